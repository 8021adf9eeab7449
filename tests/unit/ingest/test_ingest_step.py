"""The ingest step on small deliveries: what is kept, set aside, refused, warned of and repeated."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from delivered import DAY, PAYMENT, Inbox, transactions, with_column
from kill import snapshot
from small_model import small_fraud
from windsock.days import last_instant
from windsock.errors import DayRejected, SpecError, UpstreamUnavailable
from windsock.ingest.sources.delivery import NotDelivered
from windsock.ledger import Ledger, columns_hash
from windsock.steps import run_step
from windsock.store import Store

GOOD = transactions()


def _first(values, count, value):
    return [value] * count + values[count:]


def _broken(column, count, value, table=GOOD):
    kind = table.schema.field(column).type
    return with_column(table, column, _first(table[column].to_pylist(), count, value), kind)


def test_the_same_delivery_again_changes_nothing_at_all(tmp_path):
    inbox = Inbox(tmp_path)
    first = inbox.ingest(GOOD)
    path = Path(Store.of(inbox.settings).path("fraud", "ledger", "ingest", f"{DAY}.json"))
    before = path.read_bytes(), path.stat().st_ino  # within a second a record written again has the same bytes

    again = inbox.ingest(GOOD)

    assert first["changed"]
    assert not again["changed"]
    assert (path.read_bytes(), path.stat().st_ino) == before


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_rows_in_any_order_and_either_format_give_the_same_rows(tmp_path, ending):
    inbox, other = Inbox(_folder(tmp_path / "a")), Inbox(_folder(tmp_path / "b"), ending=ending)
    inbox.ingest(GOOD)

    other.ingest(GOOD.take(pa.array(list(reversed(range(GOOD.num_rows))))))

    assert inbox.record().data_hash == other.record().data_hash


def test_one_far_time_is_set_aside_and_a_column_that_would_be_dropped_anyway_ends_nothing(tmp_path):
    inbox = Inbox(tmp_path)
    milliseconds = GOOD["TX_DATETIME"].cast(pa.timestamp("ms")).cast(pa.int64()).to_pylist()
    milliseconds[5] *= 1000  # year 58132
    times = pa.array(milliseconds).cast(pa.timestamp("ms"))
    latin = pa.Array.from_buffers(pa.string(), 400, pa.array([b"M\xfcller"] * 400).buffers())
    ids = pa.array([10**18 + n for n in range(400)])
    delivered = with_column(with_column(GOOD, "TX_DATETIME", times), "TRANSACTION_ID", ids)

    result = inbox.ingest(delivered.append_column("exported_at", times).append_column("name", latin))

    assert (result["rows"], result["by_rule"]) == (399, {"TX_DATETIME is timestamp": 1})
    assert any("(row 5, TRANSACTION_ID 1000000000000000005)" in w for w in result["warnings"])
    assert "M\\\\xfcller" in inbox.rows("quarantine")["row"][0].as_py()


def _folder(path):
    path.mkdir()
    return path


def test_events_carry_when_they_became_known_and_no_label(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.ingest(GOOD)

    events, labels = inbox.rows("events"), inbox.rows("labels")

    assert "TX_FRAUD" not in events.column_names
    assert set(events["known_at"].to_pylist()) == {last_instant(DAY)}
    delays = pc.subtract(labels["known_at"], labels["event_time"]).to_pylist()
    assert set(delays) == {timedelta(days=7)}
    assert labels.num_rows == events.num_rows


def test_a_record_holds_a_hash_of_every_column_and_none_of_them_is_part_of_its_own(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.ingest(GOOD)
    record = inbox.record()

    inbox.ingest(with_column(GOOD, "TX_AMOUNT", [1.0] * GOOD.num_rows, pa.float64()))

    columns = ("TRANSACTION_ID", "TX_AMOUNT", "TX_DATETIME")
    moved = [
        c
        for c in columns
        if columns_hash(record.outputs["events"], [c]) != columns_hash(inbox.record().outputs["events"], [c])
    ]
    assert moved == ["TX_AMOUNT"]
    assert record.data_hash_of({"labels": ["TX_FRAUD"]}) == inbox.record().data_hash_of({"labels": ["TX_FRAUD"]})
    bare = {name: replace(output, column_hashes={}) for name, output in record.outputs.items()}
    assert replace(record, outputs=bare).content_hash == record.content_hash


def test_null_labels_are_not_stored(tmp_path):
    inbox = Inbox(tmp_path)

    result = inbox.ingest(_broken("TX_FRAUD", 40, None))

    assert result["rows"] == GOOD.num_rows
    assert inbox.rows("labels").num_rows == GOOD.num_rows - 40
    assert any(w.startswith("TX_FRAUD: 40 of 400 rows break the rule 'not null") for w in result["warnings"])


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("TX_AMOUNT", -1.0, "TX_AMOUNT between 0 and 100,000"),
        ("TX_AMOUNT", 1e6, "TX_AMOUNT between 0 and 100,000"),
        ("TX_AMOUNT", float("inf"), "TX_AMOUNT between 0 and 100,000"),
        ("TX_AMOUNT", float("nan"), "TX_AMOUNT not null"),
        ("TX_DATETIME", None, "TX_DATETIME not null"),
        ("TX_DATETIME", datetime(2026, 3, 2), "TX_DATETIME within its day (UTC)"),
        ("TX_DATETIME", datetime(1970, 1, 1), "TX_DATETIME within its day (UTC)"),
        ("CUSTOMER_ID", None, "CUSTOMER_ID not null"),
        ("CUSTOMER_ID", -7, "CUSTOMER_ID at least 0"),
        ("TX_FRAUD", 2, "TX_FRAUD one of 0, 1"),
    ],
)
def test_broken_rows_are_set_aside_with_the_rule_and_the_row(tmp_path, column, value, rule):
    inbox = Inbox(tmp_path)

    result = inbox.ingest(_broken(column, 3, value))

    assert result["by_rule"] == {rule: 3}
    assert result["rows"] == GOOD.num_rows - 3
    rows = inbox.rows("quarantine").to_pylist()
    assert [r["rule"] for r in rows] == [rule] * 3
    assert [r["key"] for r in rows] == [str(k) for k in GOOD["TRANSACTION_ID"].to_pylist()[:3]]
    assert all(set(json.loads(r["row"])) == set(GOOD.column_names) for r in rows)
    assert all(r["reason"].startswith(f"{column}: 3 of 400 rows break the rule") for r in rows)
    assert any(f"{column}: 3 of 400" in w for w in result["warnings"])


def test_rows_that_share_a_key_and_differ_are_all_set_aside(tmp_path):
    inbox = Inbox(tmp_path)
    twins = with_column(GOOD.slice(0, 4), "TX_AMOUNT", [1.0] * 4)

    result = inbox.ingest(pa.concat_tables([GOOD, twins]))

    assert result["by_rule"] == {"TRANSACTION_ID unique": 8}
    assert result["rows"] == GOOD.num_rows - 4


def test_exact_copies_are_counted_once_and_cost_nothing_of_the_budget(tmp_path):
    inbox = Inbox(tmp_path)

    result = inbox.ingest(pa.concat_tables([GOOD, GOOD, GOOD]))

    assert result["by_rule"] == {"duplicate copy": 800}
    assert result["rows"] == GOOD.num_rows
    assert any("800 of 1,200 rows are exact copies" in w for w in result["warnings"])


def test_a_row_that_breaks_several_rules_is_set_aside_once_and_names_them_all(tmp_path):
    inbox = Inbox(tmp_path)

    result = inbox.ingest(_broken("TX_AMOUNT", 2, -5.0, _broken("CUSTOMER_ID", 2, None)))

    assert result["by_rule"] == {"CUSTOMER_ID not null": 2}
    (reason,) = set(inbox.rows("quarantine")["reason"].to_pylist())
    assert "Also broken: TX_AMOUNT between 0 and 100,000" in reason


def test_too_many_broken_rows_refuse_the_day_and_say_which_rule_and_how_many(tmp_path):
    inbox = Inbox(tmp_path)

    with pytest.raises(
        DayRejected, match=r"21 of 400 rows \(5\.25%\).*TX_AMOUNT: 21 of 400 rows break.*e\.g\. -1 \(TRANS"
    ):
        inbox.ingest(_broken("TX_AMOUNT", 21, -1.0))

    assert inbox.record().status == "rejected"
    assert inbox.rows("events") is None


def test_a_day_whose_rows_are_all_of_another_day_is_refused_whatever_the_budget(tmp_path):
    inbox = Inbox(tmp_path, validation={"quarantine_budget": 1.0})

    with pytest.raises(DayRejected, match="400 of 400 rows"):
        inbox.ingest(transactions(day=DAY + timedelta(days=1)))


def test_unreadable_cells_of_a_csv_are_set_aside(tmp_path):
    inbox = Inbox(tmp_path, ending="csv")
    text = with_column(GOOD, "TX_AMOUNT", ["n/a", "12,50", *map(str, GOOD["TX_AMOUNT"].to_pylist()[2:])])

    result = inbox.ingest(text)

    # "n/a" is a null, "12,50" is no number.
    assert result["by_rule"] == {"TX_AMOUNT is double": 1, "TX_AMOUNT not null": 1}
    assert any("'12,50'" in w for w in result["warnings"])


def test_a_refused_redelivery_leaves_the_published_day_in_force(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.ingest(GOOD)
    before = snapshot(inbox.settings, "fraud", ["ingest"])

    with pytest.raises(DayRejected, match=f"The published content of {DAY} stays in force"):
        inbox.ingest(GOOD.drop_columns(["TX_AMOUNT"]))

    assert snapshot(inbox.settings, "fraud", ["ingest"]) == before
    folders = Store.of(inbox.settings).fs.ls(
        Store.of(inbox.settings).path("quarantine", "fraud", str(DAY)), detail=False
    )
    assert len(folders) == 1


def test_an_empty_redelivery_does_not_wipe_a_published_day_unless_that_is_meant(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.ingest(GOOD)

    with pytest.raises(DayRejected, match="0 rows would replace 400 published ones"):
        inbox.ingest(GOOD.slice(0, 0))
    assert inbox.record().status == "published"

    assert inbox.ingest(GOOD.slice(0, 0), accept_worse=True, reason="shops were closed")["status"] == "empty"
    assert inbox.record().status == "empty"


def test_a_corrected_delivery_replaces_a_rejected_or_published_day(tmp_path):
    inbox = Inbox(tmp_path)
    with pytest.raises(DayRejected):
        inbox.ingest(GOOD.drop_columns(["TX_AMOUNT"]))

    assert inbox.ingest(GOOD)["changed"]
    assert inbox.record().status == "published"
    assert inbox.ingest(GOOD.slice(1))["changed"]
    assert inbox.rows().num_rows == GOOD.num_rows - 1


def test_a_changed_day_names_the_later_days_whose_features_it_made_stale(tmp_path, monkeypatch):
    from windsock import completeness

    inbox = Inbox(tmp_path)
    asked = []
    later = [DAY + timedelta(days=n) for n in (1, 2)]
    monkeypatch.setattr(completeness, "stale_days", lambda settings, spec, day: asked.append(day) or later)

    assert inbox.ingest(GOOD)["refresh"] == [str(d) for d in later]
    assert asked == [DAY]


def test_a_missing_file_is_waited_for_until_a_person_gives_the_day_up(tmp_path):
    inbox = Inbox(tmp_path)

    with pytest.raises(UpstreamUnavailable, match="does not exist"):
        inbox.ingest()
    assert inbox.record() is None

    assert inbox.ingest(no_delivery=True)["status"] == "rejected"
    assert inbox.record().status == "rejected"
    inbox.ingest(GOOD)
    with pytest.raises(SpecError, match="was delivered"):
        inbox.ingest(no_delivery=True)


def test_raw_deliveries_are_kept_as_they_came_and_once(tmp_path):
    inbox = Inbox(tmp_path)
    path = inbox.deliver(GOOD)
    inbox.ingest()
    inbox.ingest()

    store = Store.of(inbox.settings)
    (kept,) = store.fs.ls(store.path("raw", "fraud"), detail=False)
    assert Path(kept).read_bytes() == path.read_bytes()
    assert inbox.record().detail["source"]["raw"] == kept.split("/store/")[1]


def test_delivery_times_decide_when_an_event_is_known(tmp_path):
    columns = {
        **PAYMENT,
        "ARRIVED": "timestamp",
    }
    inbox = Inbox(
        tmp_path,
        events={"time": "TX_DATETIME", "key": "TRANSACTION_ID", "columns": columns, "delivered_at": "ARRIVED"},
    )
    times = GOOD["TX_DATETIME"].to_pylist()
    arrived = [None, times[1] - timedelta(seconds=1), *(t + timedelta(days=2) for t in times[2:])]

    result = inbox.ingest(GOOD.append_column("ARRIVED", pa.array(arrived, pa.timestamp("us"))))

    assert result["by_rule"] == {"ARRIVED, TX_DATETIME not before TX_DATETIME": 1}
    events = inbox.rows()
    assert events["known_at"].to_pylist()[0] == last_instant(DAY)
    assert events["known_at"].to_pylist()[1] == times[2] + timedelta(days=2)


def test_a_key_outside_the_models_days_is_refused(tmp_path):
    inbox = Inbox(tmp_path)

    with pytest.raises(SpecError, match="outside the days"):
        inbox.ingest(GOOD, DAY - timedelta(days=1))


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("last_day", [None, "2100-12-31"])
def test_a_day_that_has_not_begun_is_recorded_by_nobody_whatever_the_spec_says(tmp_path, live, last_day):
    settings, _ = small_fraud(tmp_path, last_day=last_day)  # its simulator would make any day

    for step in ("ingest", "features", "score", "monitor"):
        with pytest.raises(SpecError, match="2062-03-01, but today is"):
            run_step(step, model="fraud", key="2062-03-01", live=live, settings=settings)
    with pytest.raises(SpecError, match="The as_of is 2062-03-01"):
        run_step("assemble", model="fraud", options={"as_of": "2062-03-01"}, settings=settings)
    assert Ledger.of(settings, "fraud", "ingest").days() == []


def test_keys_beyond_double_precision_stay_distinct_next_to_null_keys(tmp_path):
    inbox = Inbox(tmp_path)
    large = [2**60 + n for n in range(399)]

    result = inbox.ingest(with_column(GOOD, "TRANSACTION_ID", [None, *large], pa.int64()))

    assert result["by_rule"] == {"TRANSACTION_ID not null": 1}
    assert inbox.rows()["TRANSACTION_ID"].to_pylist() == large


def test_the_record_holds_nothing_that_depends_on_which_days_were_run_before(tmp_path):
    days = [DAY + timedelta(days=n) for n in range(5)]
    hashes = []
    for name, order in (("sequence", days), ("shuffled", [days[i] for i in (3, 0, 4, 2, 1)])):
        inbox = Inbox(_folder(tmp_path / name))
        for day in days:
            inbox.deliver(transactions(300 if day != days[4] else 30, day), day)
        for day in order:
            inbox.ingest(day=day)
        # Paths of the inbox differ between the two worlds; everything else must be equal.
        ledger = Ledger.of(inbox.settings, "fraud", "ingest")
        details = [{**dict(ledger.get(d).detail), "source": None} for d in days]
        hashes.append(([ledger.get(d).data_hash for d in days], details))

    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(("live", "raised"), [(True, NotDelivered), (False, UpstreamUnavailable)])
def test_a_day_that_was_not_delivered_is_waited_for_live_and_ends_a_replay(tmp_path, live, raised):
    inbox = Inbox(tmp_path)
    with pytest.raises(UpstreamUnavailable, match="does not exist") as caught:
        run_step("ingest", model="fraud", key=str(DAY), live=live, settings=inbox.settings)
    assert type(caught.value) is raised  # a sensor waits on the first, and Airflow gives up on the second


def test_labels_that_are_words_become_classes_and_another_word_is_set_aside(tmp_path):
    inbox = Inbox(tmp_path, label={"column": "TX_FRAUD", "task": "binary", "delay_days": 2, "values": {"no": 0, -1: 1}})
    words = ["no"] * 390 + ["-1"] * 9 + ["yes"]

    result = inbox.ingest(with_column(transactions(), "TX_FRAUD", words, pa.string()))

    assert (result["rows"], result["by_rule"]) == (399, {"TX_FRAUD is one of 'no', '-1'": 1})
    assert sum(inbox.rows(table="labels")["TX_FRAUD"].to_pylist()) == 9


@pytest.mark.parametrize("values", [{"no": 0}, {"a": 0, "b": 2}, {"a": 0, "b": 0}])
def test_words_for_labels_name_both_classes(tmp_path, values):
    with pytest.raises(SpecError, match=r"label\.values"):
        Inbox(tmp_path, label={"column": "TX_FRAUD", "task": "binary", "delay_days": 2, "values": values})
