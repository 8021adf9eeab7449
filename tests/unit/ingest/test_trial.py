"""``windsock lint --data`` looks at what lies at the source, without taking it in."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delivered import DAY, PAYMENT, Inbox, transactions, with_column
from windsock.days import utc_now
from windsock.lint import lint_model
from windsock.spec.load import SPEC_FILE

YESTERDAY = utc_now().date() - timedelta(days=1)


def _lint(inbox):
    return lint_model("fraud", inbox.spec.folder / SPEC_FILE, inbox.settings, estimators=False)


def _without(table, name):
    return table.drop_columns([name])


FAULTS = {
    "a missing column": (lambda t: _without(t, "TX_AMOUNT"), "TX_AMOUNT: the declared column (double) is missing"),
    "a type": (
        lambda t: with_column(t, "TX_AMOUNT", ["much"] * len(t)),
        "TX_AMOUNT: declared double, delivered as string",
    ),
    "no label": (lambda t: _without(t, "TX_FRAUD"), "TX_FRAUD: the declared column (int64) is missing"),
    "too much set aside": (
        lambda t: with_column(t, "CUSTOMER_ID", [None] * 40 + t["CUSTOMER_ID"].to_pylist()[40:]),
        "40 of 400 rows (10.00%) break a rule",
    ),
}


@pytest.mark.parametrize(("change", "says"), FAULTS.values(), ids=FAULTS)
def test_a_delivery_that_would_be_refused_is_a_fault(tmp_path, change, says):
    inbox = Inbox(tmp_path)
    inbox.deliver(change(transactions(day=YESTERDAY)), YESTERDAY)

    (fault,) = _lint(inbox).faults

    assert fault.startswith(f"delivery {YESTERDAY}.parquet: ")
    assert says in fault
    assert inbox.record(YESTERDAY) is None


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path):
    inbox = Inbox(tmp_path)
    (inbox.folder / f"{YESTERDAY}.parquet").write_bytes(b"no parquet")

    assert any("no parquet" in f or "Parquet" in f for f in _lint(inbox).faults)


def test_the_newest_delivery_is_looked_at_and_what_it_would_come_to_is_said(tmp_path):
    inbox = Inbox(tmp_path)
    day = YESTERDAY - timedelta(days=3)
    table = transactions(day=day).append_column("SECRET", pa.array([1] * 400))
    inbox.deliver(with_column(table, "CUSTOMER_ID", [None, *table["CUSTOMER_ID"].to_pylist()[1:]]), day)
    inbox.deliver(transactions(), DAY)

    found = _lint(inbox)

    assert found.faults == []
    assert f"delivery {day}.parquet: 400 rows, 1 of them (0.25%) set aside, 4 with TX_FRAUD 1" in found.note
    assert any("SECRET: 1 column that the spec does not declare" in w for w in found.warnings)
    assert any("CUSTOMER_ID: 1 of 400 rows break the rule 'not null'" in w for w in found.warnings)


def test_a_source_without_deliveries_is_said(tmp_path):
    assert _lint(Inbox(tmp_path)).warnings == [
        "no delivery lies at the source for any of the last 14 days, so none was looked at."
    ]


def test_label_files_are_looked_at_too(tmp_path):
    events = {"time": "TX_DATETIME", "key": "TRANSACTION_ID", "columns": PAYMENT, "ignore": ["TX_FRAUD"]}
    given = {"url": f"{tmp_path}/{{ds}}.labels.parquet", "key": "TRANSACTION_ID"}
    inbox = Inbox(
        tmp_path, events=events, label={"column": "TX_FRAUD", "task": "binary", "delay_days": 2, "files": given}
    )
    inbox.deliver(transactions(day=YESTERDAY), YESTERDAY)
    file, labels = tmp_path / f"{YESTERDAY}.labels.parquet", transactions().select(["TRANSACTION_ID", "TX_FRAUD"])
    pq.write_table(labels, file)

    assert f"; label file {file.name}: 400 labels, 4 of them 1" in _lint(inbox).note

    pq.write_table(labels.drop_columns(["TX_FRAUD"]), file)
    (fault,) = _lint(inbox).faults
    assert fault.startswith(f"label file {file.name}: TX_FRAUD: the declared column (int64) is missing")
