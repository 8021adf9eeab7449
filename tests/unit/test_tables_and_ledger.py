import hashlib
import random
from concurrent.futures import ProcessPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from examples import examples
from fork_server import fork_context
from windsock import tables
from windsock.column_types import ARROW_TYPES
from windsock.errors import SpecError
from windsock.ledger import DayRecord, Ledger, Output, columns_hash
from windsock.row_places import places_of
from windsock.store import Store

FIRST = date(2026, 1, 1)


def rows_of(n: int, size: int = 50) -> pa.Table:
    dice = random.Random(n)
    return pa.table({"k": list(range(n * 1000, n * 1000 + size)), "x": [dice.random() for _ in range(size)]})


def publish(root: str, n: int) -> None:
    store = Store(root)
    ledger = Ledger(store, "m", "ingest")
    day = FIRST + timedelta(days=n)
    output = tables.write_day(store, "m", "events", day, rows_of(n), previous=ledger.get(day))
    ledger.publish(DayRecord(day.isoformat(), "published", {"events": output}))


def file_hashes(root: str) -> dict[date, list[str]]:
    store = Store(root)
    return {
        day: [hashlib.sha256(store.read_bytes(f)).hexdigest() for f in record.outputs["events"].files]
        for day, record in Ledger(store, "m", "ingest").all().items()
    }


def test_days_written_in_any_order_and_in_parallel_give_the_same_bytes(tmp_path: Path):
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    for n in range(16):
        publish(a, n)
    shuffled = random.Random(3).sample(range(16), 16)
    with ProcessPoolExecutor(4, mp_context=fork_context()) as pool:
        list(pool.map(publish, [b] * 16, shuffled))
    assert file_hashes(a) == file_hashes(b)
    assert len(file_hashes(a)) == 16


def test_writing_the_same_day_again_makes_no_commit(tmp_path: Path):
    publish(str(tmp_path), 0)
    before = Ledger(Store(str(tmp_path)), "m", "ingest").get(FIRST)
    publish(str(tmp_path), 0)
    assert Ledger(Store(str(tmp_path)), "m", "ingest").get(FIRST) == before


@examples(15, suppress=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=8))
def test_a_day_holds_exactly_its_last_write_whatever_came_before(tmp_path_factory, writes: list[tuple[int, int]]):
    store = Store(str(tmp_path_factory.mktemp("store")))
    ledger = Ledger(store, "m", "ingest")
    last: dict[date, int] = {}
    for n, content in writes:
        day = FIRST + timedelta(days=n)
        output = tables.write_day(store, "m", "events", day, rows_of(content), previous=ledger.get(day))
        ledger.publish(DayRecord(day.isoformat(), "published", {"events": output}))
        last[day] = content
    for day, content in last.items():
        assert tables.read(store, [ledger.get(day)], "events").equals(rows_of(content))


def test_a_replaced_day_can_still_be_read_by_its_pin(tmp_path: Path):
    store = Store(str(tmp_path))
    publish(str(tmp_path), 0)
    ledger = Ledger(store, "m", "ingest")
    pins = ledger.pins([FIRST])
    output = tables.write_day(store, "m", "events", FIRST, rows_of(7), previous=ledger.get(FIRST))
    ledger.publish(DayRecord(FIRST.isoformat(), "published", {"events": output}))
    assert tables.read(store, ledger.pinned(pins).values(), "events").equals(rows_of(0))
    assert tables.read(store, [ledger.get(FIRST)], "events").equals(rows_of(7))


def test_a_pin_that_is_gone_is_named(tmp_path: Path):
    ledger = Ledger(Store(str(tmp_path)), "m", "ingest")
    with pytest.raises(SpecError, match=r"2026-01-01 .*cannot be rebuilt"):
        ledger.pinned({"2026-01-01": "f" * 64})


def test_rows_written_but_not_recorded_are_not_seen(tmp_path: Path):
    store = Store(str(tmp_path))
    publish(str(tmp_path), 0)
    tables.write_day(store, "m", "events", FIRST, rows_of(9))  # killed before Ledger.publish
    seen = tables.read(store, Ledger(store, "m", "ingest").all().values(), "events")
    assert seen.equals(rows_of(0))


def test_of_two_writers_of_one_day_one_is_in_force_whole_whoever_comes_between(tmp_path: Path):
    store, ledger = Store(str(tmp_path)), Ledger(Store(str(tmp_path)), "m", "ingest")
    one, other = (
        {table: tables.write_day(store, "m", table, FIRST, rows_of(n)) for table in ("events", "labels")}
        for n in (1, 2)  # both have written before either publishes
    )
    for outputs, n in ((one, 1), (other, 2)):
        ledger.publish(DayRecord(FIRST.isoformat(), "published", outputs))
        for table in ("events", "labels"):
            rows = tables.read(store, [ledger.get(FIRST)], table)
            assert rows.equals(rows_of(n))
            assert tables.content_hash(rows) == outputs[table].hash


DAY_ROWS = st.sampled_from(
    [
        *(pa.array([1, None, 2**62], pa.int64()), pa.array([1.75, None, -0.0]), pa.array(["a", None, "1"])),
        *(pa.array([True, None, False]), pa.array([FIRST, None, FIRST]), pa.array([0, None, 1], pa.timestamp("us"))),
    ]
)


@given(days=st.lists(DAY_ROWS, min_size=1, max_size=4))
def test_whatever_a_day_holds_is_stored_and_hashed_as_it_came_whatever_other_days_hold(tmp_path_factory, days):
    store = Store(str(tmp_path_factory.mktemp("store")))
    for n, values in enumerate(days):
        rows, day = pa.table({"z": values, "x": values}), FIRST + timedelta(days=n)
        output = tables.write_day(store, "m", "events", day, rows)
        record = DayRecord(day.isoformat(), "published", {"events": output})
        assert tables.read(store, [record], "events").equals(rows)
        assert output.hash == tables.content_hash(rows)


KINDS = {"int64": 1, "double": 1.5, "string": "a", "bool": True, "date": FIRST, "timestamp": datetime(2026, 1, 1)}
WIDER = {("int64", "double"), ("date", "timestamp")}


@pytest.mark.parametrize("stored", KINDS)
@pytest.mark.parametrize("offered", KINDS)
def test_a_column_is_read_as_its_own_type_or_a_wider_one_and_never_as_another(
    tmp_path: Path, stored: str, offered: str
):
    store = Store(str(tmp_path))
    rows = pa.table({"x": pa.array([KINDS[stored], None], ARROW_TYPES[stored])})
    record = DayRecord("2026-01-01", "published", {"t": tables.write_day(store, "m", "t", FIRST, rows)})
    schema = pa.schema([("x", ARROW_TYPES[offered]), ("new", pa.int64())])
    if stored == offered or (stored, offered) in WIDER:
        read = tables.read(store, [record], "t", schema=schema)
        assert read.schema == schema
        assert read["x"].equals(rows["x"].cast(ARROW_TYPES[offered]))
        assert read["new"].null_count == 2
    else:
        sentence = f"column 'x' is {offered}, but {stored} in the rows of 2026-01-01, .*ingest those days again"
        with pytest.raises(SpecError, match=sentence):
            tables.read(store, [record], "t", schema=schema)


def test_without_a_schema_every_column_of_any_day_is_read_in_its_widest_type(tmp_path: Path):
    store, records = Store(str(tmp_path)), []
    for n, rows in enumerate([{"x": [1]}, {"x": [1.75], "y": ["a"]}, {"y": ["b"]}]):
        day = FIRST + timedelta(days=n)
        output = tables.write_day(store, "m", "t", day, pa.table(rows))
        records.append(DayRecord(day.isoformat(), "published", {"t": output}))
    assert tables.read(store, records, "t").to_pydict() == {"x": [1.0, 1.75, None], "y": [None, "a", "b"]}


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=20))
def test_the_content_hash_depends_on_values_alone(values: list[int | None]):
    whole = pa.table({"x": pa.array(values, pa.int64())})
    cut = pa.concat_tables([whole.slice(0, len(values) // 2), whole.slice(len(values) // 2)])
    assert tables.content_hash(whole) == tables.content_hash(cut)
    assert tables.content_hash(whole) != tables.content_hash(pa.table({"x": pa.array([*values, 1], pa.int64())}))


def output_of(rows: pa.Table) -> Output:
    return Output(rows.num_rows, tables.content_hash(rows), ("file",), column_hashes=tables.column_hashes(rows))


COLUMNS = st.fixed_dictionaries({name: st.lists(st.integers(0, 1), min_size=3, max_size=3) for name in "abc"})


@given(one=COLUMNS, other=COLUMNS, names=st.sets(st.sampled_from("abcd")))
def test_the_hash_of_columns_is_another_exactly_if_one_of_them_is(one: dict, other: dict, names: set[str]):
    same = all(one.get(name) == other.get(name) for name in names)
    others = [columns_hash(output_of(pa.table(rows)), names) for rows in (one, other)]
    assert (others[0] == others[1]) == same


def test_a_column_more_in_another_place_or_type_is_noticed_by_its_own_readers_alone():
    rows = pa.table({"k": [1, 2], "x": [3, 4]})
    edited = pa.table({"new": ["a", "b"], "x": pa.array([3, 4], pa.float64()), "k": [1, 2]})
    before, after = (
        {name: columns_hash(output_of(t), ["k", name]) for name in ("k", "x", "new")} for t in (rows, edited)
    )
    assert {name for name in before if before[name] != after[name]} == {"x", "new"}


def test_a_day_without_a_column_has_a_hash_of_its_own_for_each_number_of_rows():
    assert len({columns_hash(output_of(pa.table({"x": [1] * n})), ["new"]) for n in range(3)}) == 3


def test_readers_of_columns_keep_what_they_wrote_of_records_without_hashes_of_columns():
    old, new = Output(1, "h", ("file",)), output_of(pa.table({"x": [1]}))
    record = DayRecord("2026-01-01", "published", {"events": new, "labels": old, "quarantine": old})
    assert columns_hash(old, ["x"]) == "h"
    assert record.data_hash_of({"events": ["x"], "labels": ["x"]}) == record.data_hash
    assert record.data_hash_of({"events": ["x"]}) != record.data_hash
    empty = DayRecord("2026-01-01", "empty")
    assert empty.data_hash_of({"events": ["x"]}) == empty.data_hash


KEYS = st.lists(st.integers(0, 12) | st.none(), max_size=14)


@given(
    rows=KEYS | KEYS.map(lambda keys: list(dict.fromkeys(keys))), wanted=KEYS, dice=st.randoms(use_true_random=False)
)
def test_a_row_stands_where_the_first_one_with_the_same_values_does_whether_or_not_its_key_tells_it_apart(
    rows: list[int | None], wanted: list[int | None], dice: random.Random
):
    ours, theirs = (list(zip(keys, dice.choices([1, 2, None], k=len(keys)), strict=True)) for keys in (wanted, rows))
    columns = [
        [pa.chunked_array([pa.array([row[at] for row in side], pa.int64())]) for at in (0, 1)]
        for side in (ours, theirs)
    ]
    found = places_of(*columns).to_pylist()
    assert found == [theirs.index(row) if row in theirs else None for row in ours]
