"""Label files whose positives are missing or late are told once; real ones are left in peace."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delivered import DAY, PAYMENT, Inbox, transactions
from shared_data import shared_data
from windsock.ingest import label_history
from windsock.ingest.lasting import newly
from windsock.ledger import DayRecord
from windsock.settings import REPO_ROOT
from windsock.spec import load_spec
from windsock.steps import run_step

DELAY = 7


@pytest.fixture(scope="module")
def spec():
    return load_spec(REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")


def _file(spec, day, positives, lag, labels=9_500):
    """Return what the record of a label file says, ``positives`` of which came ``lag`` days after their events."""
    event = np.datetime64(day, "us") - np.timedelta64(lag, "D")
    rows = pa.table({spec.label.column: np.arange(labels) < positives, "event_time": np.repeat(event, labels),
                     "known_at": np.repeat(np.datetime64(day, "us"), labels)})  # fmt: skip
    rows = rows.set_column(0, spec.label.column, rows[spec.label.column].cast(pa.int64()))
    return DayRecord(str(day), "published", detail={"stats": label_history.stats_of(spec, rows)})


def _told(spec, records):
    """Return the day in the row of each alarm, and its first words, as days come one after the other."""
    told = [
        (n, sentence)
        for n in range(len(records))
        for rule in label_history._rules(spec)
        for sentence in newly(rule, records[max(0, n - 27) : n + 1], live=True)
    ]
    assert all(sentence.endswith("This is said once.") for _, sentence in told)
    return told


def test_real_labels_raise_nothing_in_all_their_136_days(spec):
    source = shared_data("fraud_handbook") / "transactions_2018-04-01_2018-08-14.parquet"
    rows = pq.read_table(source, columns=["TX_DATETIME", "TX_FRAUD"]).to_pandas()
    by_day = rows.groupby(rows["TX_DATETIME"].dt.date)["TX_FRAUD"].agg(["sum", "size"])
    files = [
        _file(spec, d + timedelta(days=DELAY), int(day["sum"]), DELAY, int(day["size"])) for d, day in by_day.iterrows()
    ]

    assert len(files) == 136
    assert _told(spec, files) == []
    few = [_file(spec, DAY + timedelta(days=n), int(p), DELAY, 400) for n, p in enumerate(
        np.random.default_rng(0).poisson(3, 200))]  # fmt: skip
    assert _told(spec, few) == []


def test_frauds_that_come_late_are_missed_on_the_first_day_and_told_again_when_they_come(spec):
    usual = [(80, DELAY)] * 20
    files = [
        _file(spec, DAY + timedelta(days=n), *f) for n, f in enumerate([*usual, *[(0, DELAY)] * 33, *[(80, 40)] * 20])
    ]

    told = _told(spec, files)

    assert [n for n, _ in told] == [20, 53]
    assert told[0][1].startswith(
        "TX_FRAUD: 0 positives among 9,500 labels of the last 1 label file, where 80 are usual"
    )
    assert "of 80 positives in the last label files came later than label.delay_days (7) says" in told[1][1]


def test_frauds_that_were_always_late_are_told_at_the_start(spec):
    told = _told(spec, [_file(spec, DAY + timedelta(days=n), 80, 40) for n in range(40)])

    assert [n for n, _ in told] == [0]
    assert "80 of 80 positives in the last label files came later than label.delay_days (7)" in told[0][1]
    assert "19 of 20 are known after 40 days" in told[0][1]


def test_a_few_positives_a_day_that_stop_are_missed_within_a_week(spec):
    files = [_file(spec, DAY + timedelta(days=n), 5 * (n < 20), DELAY, 400) for n in range(40)]

    told = _told(spec, files)

    assert len(told) == 1
    assert 20 <= told[0][0] < 27


def test_a_delay_that_grows_within_what_is_declared_is_told_once(spec):
    files = [_file(spec, DAY + timedelta(days=n), 80, 2 if n < 20 else 6) for n in range(40)]

    told = _told(spec, files)

    assert [n for n, _ in told] == [20]
    assert "half of the 80 newest positives came 6 days or more after their event, usually 2" in told[0][1]


def test_the_step_says_so_with_the_first_file_and_not_with_the_next(tmp_path):
    (tmp_path / "labels").mkdir()
    events = {"time": "TX_DATETIME", "key": "TRANSACTION_ID", "columns": PAYMENT, "ignore": ["TX_FRAUD"]}
    given = {"url": f"{tmp_path}/labels/{{ds}}.parquet", "key": "TRANSACTION_ID"}
    inbox = Inbox(
        tmp_path, events=events, label={"column": "TX_FRAUD", "task": "binary", "delay_days": 2, "files": given}
    )
    for n in range(6):
        inbox.ingest(transactions(100, DAY + timedelta(days=n)), DAY + timedelta(days=n))
    said = []
    for n in (4, 5):
        keys = transactions(100, DAY + timedelta(days=n - 4))["TRANSACTION_ID"]
        day = DAY + timedelta(days=n)
        pq.write_table(
            pa.table({"TRANSACTION_ID": keys, "TX_FRAUD": [1] * 100}), tmp_path / "labels" / f"{day}.parquet"
        )
        said += [run_step("labels", model="fraud", key=str(day), settings=inbox.settings, live=False)["warnings"]]

    assert [len(warnings) for warnings in said] == [1, 0]
    assert "100 of 100 positives in the last label files came later than label.delay_days (2) says" in said[0][0]
    assert inbox.record(day, "labels").detail["stats"] == {"labels": 100, "told": 100, "lags": {"4": 100}}
