"""Several deliveries of a day that add to each other: the day is that of their rows, however they are split."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivered import DAY, Inbox, transactions, with_column
from examples import examples
from small_model import small_fraud
from windsock.errors import DamagedRecord, DayRejected, SpecError
from windsock.ingest.appended import each_once
from windsock.ingest.sources.delivery import Delivery
from windsock.ingest.sources.joined import join_rows
from windsock.ingest.sources.parse import Unreadable
from windsock.steps import run_step

WHOLE = transactions(60)
EVENTS = {
    "time": "TX_DATETIME",
    "key": "TRANSACTION_ID",
    "columns": dict(zip(WHOLE.column_names[:-1], ["int64", "timestamp", "int64", "int64", "double"], strict=True)),
}


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return _inbox(tmp_path)


def _inbox(home: Path, ending: str = "parquet", **overrides) -> Inbox:
    home.mkdir(exist_ok=True)
    inbox = Inbox(home, ending=ending)
    source = {"kind": "files", "url": f"{inbox.folder}/{{ds}}.{ending}", "deliveries": "append"}
    inbox.settings, inbox.spec = small_fraud(home, source=source, **overrides)
    (inbox.spec.folder / "expectations.json").write_text('{"expectations": []}')
    return inbox


ODD = pa.table(
    {
        "n": pa.array([1, None, 2**60 + 1, 1, 1, 3], pa.int64()),
        "x": pa.array([0.5, float("nan"), None, 0.5, -0.0, 0.0]),
        "text": pa.array(["a", "", None, "a", "é\x00", "b"]),
        "when": pa.array([10**15, 0, None, 10**15, 1, 2], pa.timestamp("s", "Mars/Phobos")),
        "list": pa.array([[1], None, [], [1], [2, 3], [1]], pa.list_(pa.int64())),
        "sum": pa.array(map(Decimal, ["1.50", "0", "2", "1.5", "3", "4"]), pa.decimal128(9, 2)),
        "latin": pa.Array.from_buffers(
            pa.string(), 6, pa.array([b"M\xfcller", b"", b"a", b"M\xfcller", b"", b"b"]).buffers()
        ),
        "yes": pa.array([True, None, False, True, True, False]),
    }
)
"""Rows as they may come in columns that nobody declares; the first and the fourth are copies."""


@given(
    owners=st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=12, max_size=12),
    order=st.permutations(range(4)),
    dice=st.randoms(use_true_random=False),
)
@examples(150)
def test_any_split_of_rows_over_deliveries_in_any_order_is_the_same_delivery(owners, order, dice) -> None:
    rows = pa.concat_tables([ODD, ODD])
    so_far = rows.slice(0, 0)
    for n in order:
        places = [place for place, some in enumerate(owners) if n in some]
        dice.shuffle(places)
        columns = rows.column_names
        dice.shuffle(columns)
        so_far = each_once(join_rows([rows.take(pa.array(places, pa.int64())).select(columns), so_far]))

    assert so_far.num_rows == 5
    assert _hash(so_far) == _hash(each_once(ODD))


def _hash(rows: pa.Table) -> str | None:
    return Delivery.of_rows(rows, name="", origin="").content_hash


@pytest.mark.parametrize("ending", ["parquet", "csv.gz"])
def test_a_day_in_parts_is_published_as_a_day_at_once(tmp_path: Path, ending: str) -> None:
    changed = with_column(WHOLE.slice(0, 1), "TX_AMOUNT", [1.25])
    budget = {"validation": {"quarantine_budget": 0.2}}
    at_once, in_parts = _inbox(tmp_path / "a", ending, **budget), _inbox(tmp_path / "b", ending, **budget)
    at_once.ingest(pa.concat_tables([WHOLE, changed]))
    parts = [WHOLE.slice(30), pa.concat_tables([WHOLE.slice(0, 5), changed]), WHOLE.slice(3, 40), WHOLE.slice(0, 0)]

    for part in parts:
        result = in_parts.ingest(part)

    assert result["by_rule"] == {"TRANSACTION_ID unique": 2}
    assert result["rows"] == 59
    parts_said, said = ({**inbox.record().detail, "source": None} for inbox in (in_parts, at_once))
    assert parts_said == said
    assert in_parts.record().detail["source"]["hash"] == at_once.record().detail["source"]["hash"]
    assert in_parts.record().data_hash == at_once.record().data_hash
    assert in_parts.rows("quarantine") == at_once.rows("quarantine")
    before = in_parts.record()
    assert not in_parts.ingest(parts[1])["changed"]
    assert in_parts.record() == before


def test_parts_that_lack_what_others_have_are_not_worse(inbox: Inbox) -> None:
    inbox.ingest(WHOLE.slice(0, 30))
    rest = with_column(WHOLE.slice(30), "TX_FRAUD", [None] * 30, pa.int64())

    assert inbox.ingest(rest)["rows"] == 60


def test_a_refused_part_leaves_the_day_and_counts_once_it_is_mended(inbox: Inbox) -> None:
    inbox.ingest(WHOLE.slice(0, 30))
    with pytest.raises(DayRejected, match="'TX_AMOUNT': missing in some of its files"):
        inbox.ingest(WHOLE.slice(40).drop_columns("TX_AMOUNT"))
    with pytest.raises(DayRejected, match="does not go with the delivery that it adds to: a column is not in the same"):
        inbox.ingest(with_column(WHOLE.slice(30), "TX_AMOUNT", ["12"] * 30))
    assert inbox.rows().num_rows == 30

    assert inbox.ingest(WHOLE.slice(30))["rows"] == 60


def test_what_was_delivered_before_must_be_known(inbox: Inbox) -> None:
    inbox.ingest(WHOLE.slice(0, 30))
    kept = Path(inbox.settings.store) / inbox.record().detail["source"]["raw"]
    record = Path(inbox.settings.store) / "fraud/ledger/ingest" / f"{DAY}.json"
    kept.rename(kept.with_suffix(".gone"))
    with pytest.raises(DayRejected, match="are not kept any more"):
        inbox.ingest(WHOLE.slice(30))
    kept.with_suffix(".gone").rename(kept)
    whole = record.read_bytes()
    record.write_bytes(whole[:20])
    with pytest.raises(DamagedRecord):
        inbox.ingest(WHOLE.slice(30))
    record.write_bytes(whole)

    assert inbox.ingest(WHOLE.slice(30))["rows"] == 60


def test_label_files_may_add_to_each_other(tmp_path: Path) -> None:
    files = {"url": f"{tmp_path}/labels/{{ds}}.parquet", "key": "TRANSACTION_ID", "deliveries": "append"}
    label = {"column": "TX_FRAUD", "task": "binary", "delay_days": 0, "files": files}
    inbox = _inbox(tmp_path, label=label, events={**EVENTS, "ignore": ["TX_FRAUD"]})
    inbox.ingest(WHOLE)
    (tmp_path / "labels").mkdir()
    told = WHOLE.select(["TRANSACTION_ID", "TX_FRAUD"])

    for part in (told.slice(20), told.slice(0, 5), told.slice(0, 20)):
        pq.write_table(part, tmp_path / "labels" / f"{DAY}.parquet")
        result = run_step("labels", model="fraud", key=str(DAY), settings=inbox.settings, live=False)

    assert (result["rows"], result["quarantined"]) == (60, 0)


def test_tables_go_together_where_no_value_changes_by_it() -> None:
    def joined(*columns: pa.Array) -> pa.ChunkedArray:
        return join_rows([pa.table({"c": column}) for column in columns])["c"]

    assert joined(pa.array([2**40]), pa.array([0.5])).to_pylist() == [2.0**40, 0.5]
    assert joined(pa.nulls(1), pa.array(["a"]).dictionary_encode()).to_pylist() == [None, "a"]
    assert joined(pa.nulls(1, pa.float64()), pa.array(["a"]), pa.nulls(1)).to_pylist() == [None, "a", None]
    instants = pa.array([datetime(2026, 3, 1, tzinfo=UTC)], pa.timestamp("us", "Asia/Kolkata"))
    assert joined(instants, instants.cast(pa.timestamp("ns", "UTC"))).to_pylist() == instants.to_pylist() * 2
    refused = [
        (pa.array([2**60 + 1]), pa.array([0.5])),
        (pa.array([1]), pa.array(["1"])),
        (pa.array([datetime(2026, 3, 1)]), instants),
        (pa.array([2**64 - 1], pa.uint64()), pa.array([1])),
        (pa.array([datetime(2026, 3, 1) - timedelta(days=365 * 500)]), pa.array([1], pa.timestamp("ns"))),
    ]
    for columns in refused:
        with pytest.raises(Unreadable, match="not in the same type throughout"):
            joined(*columns)


def test_one_big_file_is_not_appended_to_by_deliveries(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="deliveries: append is for a file or folder a day"):
        small_fraud(tmp_path, source={"kind": "files", "url": "all.csv", "deliveries": "append"})
