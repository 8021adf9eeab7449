"""Any delivery: whatever is in a file, each of its rows is stored, set aside with its rule, or refused with the file.

Schemas, encodings, values and damage are drawn; ``make test-thorough`` tries 2,000 deliveries.
"""

import bz2
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from delivered import DAY, PAYMENT, Inbox
from examples import thorough
from windsock.errors import DayRejected
from windsock.steps import run_step

DELIVERIES = 340 if thorough() else 4
"""Of each kind of file."""
COLUMNS = {
    **PAYMENT,
    "NOTE": "string",
    "FLAG": "bool",
    "DUE": "date",
    "UNTIL": "timestamp",
}
NAMES = [*COLUMNS, "TX_FRAUD"]
START = datetime(DAY.year, DAY.month, DAY.day)


@pytest.fixture(scope="module", params=["parquet", "csv", "csv.gz", "csv.bz2", "csv.zip", "parquet/"])
def inbox(request, tmp_path_factory) -> Inbox:
    """A model without rules of its own and without a budget, so that rows are set aside rather than files refused."""
    events = {"time": "TX_DATETIME", "key": "TRANSACTION_ID", "columns": COLUMNS}
    made = Inbox(
        tmp_path_factory.mktemp("any"), ending=request.param, events=events, validation={"quarantine_budget": 1.0}
    )
    (made.spec.folder / "expectations.json").write_text('{"expectations": []}')
    return made


INTEGERS = st.one_of(
    st.integers(0, 50), st.integers(2**53 - 2, 2**53 + 2), st.integers(2**63 - 3, 2**63 - 1), st.integers(-3, 0)
)
TODAY = st.integers(0, 86_399).map(lambda s: START + timedelta(seconds=s))
TIMES = st.one_of(
    st.datetimes(), st.sampled_from([datetime.min, datetime.max, datetime(1677, 9, 21), datetime(2262, 4, 12)]), TODAY
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "NULL", r"\N", "nan", '5" pipe', 'a "b" c', "x,y", "two\nlines", "\r", "é", "\x00", "🙂", "="]
    ),
)
NUMBERS = st.one_of(st.floats(), st.floats(0, 1000), st.sampled_from([0.0, -0.0, 1e300, 5e-324]))


def _rows(draw: Any) -> list[dict[str, Any]]:
    """Draw rows in Python's own values; keys are different most of the time."""
    values = {
        "TRANSACTION_ID": st.one_of(st.integers(1, 10**6), INTEGERS),
        "TX_DATETIME": st.one_of(TODAY, TODAY, TODAY, TIMES),
        "CUSTOMER_ID": INTEGERS,
        "TERMINAL_ID": INTEGERS,
        "TX_AMOUNT": NUMBERS,
        "NOTE": TEXTS,
        "FLAG": st.booleans(),
        "DUE": st.dates(),
        "UNTIL": TIMES,
        "TX_FRAUD": st.integers(0, 1),
    }
    emptied = st.sampled_from([*[False] * 30, True])
    row = st.fixed_dictionaries(
        {n: st.tuples(emptied, v).map(lambda p: None if p[0] else p[1]) for n, v in values.items()}
    )
    return draw(st.lists(row, min_size=draw(st.sampled_from([0, 1, 1, 1, 1])), max_size=8))


@dataclass(frozen=True)
class Form:
    """A way to write a column in Parquet."""

    kind: pa.DataType
    convert: Callable[[Any], Any] = lambda value: value


def _whole_seconds(value: datetime) -> int:
    return (value.replace(microsecond=0) - datetime(1970, 1, 1)) // timedelta(seconds=1)


FORMS: dict[str, list[Form]] = {
    "int64": [
        Form(pa.int64()),
        Form(pa.decimal128(38, 0), Decimal),
        Form(pa.decimal256(60, 10), Decimal),
        Form(pa.uint64(), abs),
        Form(pa.float64(), float),
        Form(pa.dictionary(pa.int32(), pa.int64())),
    ],
    "double": [Form(pa.float64()), Form(pa.float32()), Form(pa.int16(), lambda v: 7)],
    "string": [
        Form(pa.string()),
        Form(pa.large_string()),
        Form(pa.string_view()),
        Form(pa.binary(), str.encode),
        Form(pa.binary(), lambda v: v.encode("latin-1", "replace")),
        Form(pa.json_(), json.dumps),
        Form(pa.uuid(), lambda v: UUID(int=len(v)).bytes),
        Form(pa.dictionary(pa.int8(), pa.string())),
    ],
    "bool": [Form(pa.bool_()), Form(pa.int8(), int), Form(pa.float64(), float)],
    "date": [
        Form(pa.date32()),
        Form(pa.date64()),
        Form(pa.date32(), lambda v: 2**31 - 1),
        Form(pa.timestamp("us"), lambda v: datetime(v.year, v.month, v.day)),
    ],
    "timestamp": [
        Form(pa.timestamp("us")),
        Form(pa.timestamp("us", "UTC"), lambda v: v.replace(tzinfo=UTC)),
        Form(pa.timestamp("us", "Asia/Kolkata"), lambda v: v.replace(tzinfo=UTC)),
        Form(pa.timestamp("ms"), lambda v: _whole_seconds(v) * 1000),
        Form(pa.timestamp("ms"), lambda v: _whole_seconds(v) * 1_000_000),
        Form(pa.timestamp("s"), _whole_seconds),
        Form(pa.timestamp("s"), lambda v: 10**13 + v.second),
    ],
}
REFUSED = [Form(pa.list_(pa.string()), lambda v: [str(v)]), Form(pa.time32("s"), lambda v: 7), Form(pa.string(), str)]
EXTRA = [
    pa.array([[{"a": 1}], None] * 8),
    pa.array([{"t": 10**15}] * 16, pa.struct([("t", pa.timestamp("s"))])),
    pa.array([10**15] * 16, pa.timestamp("ms")),
    pa.array([10**15] * 16, pa.timestamp("s", "Mars/Phobos")),
    pa.Array.from_buffers(pa.string(), 16, pa.array([b"M\xfcller"] * 16).buffers()),
    pa.array([timedelta(days=10**6)] * 16, pa.duration("ms")),
    pa.array([2**31 - 1] * 16, pa.int32()).cast(pa.date32()),
    pa.nulls(16),
    pa.array([b"\xff"] * 16, pa.binary(1)),
    pa.array([[("k", "v")]] * 16, pa.map_(pa.string(), pa.string())),
    pa.array([Decimal("1.5")] * 16),
]


def _array(values: list[Any], form: Form) -> pa.Array:
    given = [None if v is None else form.convert(v) for v in values]
    if isinstance(form.kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(form.kind, pa.array(given, form.kind.storage_type))
    return pa.array(given, form.kind)


def _parquet(draw: Any, rows: list[dict[str, Any]]) -> bytes:
    kinds = {**COLUMNS, "TX_FRAUD": "int64"}
    columns, odd = {}, draw(st.sampled_from([*[None] * 20, *NAMES]))
    for name in draw(st.permutations(NAMES)):
        forms = REFUSED if name == odd else FORMS[kinds[name]]
        form = forms[draw(st.one_of(st.just(0), st.integers(0, len(forms) - 1)))]
        try:
            columns[name] = _array([row[name] for row in rows], form)
        except (pa.ArrowException, OverflowError, ValueError):  # these values have no such form
            columns[name] = _array([row[name] for row in rows], forms[0])
    table = pa.table(columns)
    for n in draw(st.lists(st.integers(0, len(EXTRA) - 1), max_size=2, unique=True)):
        table = table.append_column(
            draw(st.sampled_from([f"more_{n}", "", "é", "TX_AMOUNTS"])), EXTRA[n].slice(0, len(rows))
        )
    buffer = io.BytesIO()
    options = {
        "compression": draw(st.sampled_from(["none", "snappy", "zstd"])),
        "use_dictionary": draw(st.booleans()),
        "use_deprecated_int96_timestamps": draw(st.booleans()),
        "store_schema": draw(st.booleans()),
        "write_page_checksum": draw(st.booleans()),
    }
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def _csv(draw: Any, rows: list[dict[str, Any]]) -> bytes:
    names = draw(st.permutations([*NAMES, *draw(st.sampled_from([[], [""], ["more", "é"]]))]))
    zone = draw(st.sampled_from(["", "", "Z", "+05:30", "-01"]))

    def written(value: Any) -> str:
        if isinstance(value, datetime):
            return value.isoformat(sep="T" if zone else " ") + zone
        return "" if value is None else str(value)

    buffer = io.StringIO()
    writer = csv.writer(
        buffer,
        delimiter=draw(st.sampled_from([",", ";", "\t"])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writerow(names)
    writer.writerows([[written(row.get(name, "x")) for name in names] for row in rows])
    return (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + buffer.getvalue().encode("utf-8", "surrogatepass")


def _zipped(raw: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("day.csv", raw)
    return buffer.getvalue()


PACKED = {"gz": lambda raw: gzip.compress(raw, 1, mtime=0), "bz2": bz2.compress, "zip": _zipped}


def _damaged(draw: Any, raw: bytes) -> bytes:
    """Draw damage at a few places: other bytes, lost bytes, more bytes, an early end."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        kind = draw(st.sampled_from(["other", "lost", "more", "end", "quote"]))
        if kind == "end":
            raw = raw[:at]
        elif kind == "lost":
            raw = raw[:at] + raw[at + draw(st.integers(1, 20)) :]
        else:
            more = b'"' if kind == "quote" else draw(st.binary(min_size=1, max_size=4))
            raw = raw[:at] + more + raw[at + (len(more) if kind == "other" else 0) :]
    return raw


@settings(
    max_examples=DELIVERIES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_every_row_of_any_delivery_is_stored_set_aside_or_refused(inbox: Inbox, data: st.DataObject) -> None:
    rows = _rows(data.draw)
    write = _parquet if inbox.ending.startswith("parquet") else _csv
    raw = write(data.draw, rows)
    harmed = _damaged(data.draw, raw) if data.draw(st.booleans()) else raw
    whole, raw = harmed == raw, harmed
    if pack := PACKED.get(inbox.ending.rpartition(".")[2]):
        raw = pack(raw)
        raw = raw if whole or data.draw(st.booleans()) else _damaged(data.draw, raw)
    path = inbox.folder / f"{DAY}.{inbox.ending}"
    if inbox.ending.endswith("/"):  # a folder of two part files, where they are written alike
        path.mkdir(exist_ok=True)
        (path / "_SUCCESS").touch()
        (path / "part-00001.parquet").write_bytes(write(data.draw, rows[:1]))
        path, rows = path / "part-00000.parquet", [*rows, *rows[:1]]
    path.write_bytes(raw)
    before = inbox.record()

    try:
        result = run_step("ingest", model="fraud", key=str(DAY), settings=inbox.settings, live=False)
    except DayRejected:
        event("refused")
        if before is not None and before.status in ("published", "empty"):
            assert inbox.record() == before
        return
    record = inbox.record()
    assert record is not None
    assert record.detail["delivered"] == result["rows"] + result["quarantined"]
    stored, aside = inbox.rows(), inbox.rows("quarantine")
    assert (0 if stored is None else stored.num_rows) == result["rows"]
    assert (0 if aside is None else aside.num_rows) == result["quarantined"] == sum(result["by_rule"].values())
    event("published" if result["rows"] else "empty")
    if not whole:
        return
    assert record.detail["delivered"] == len(rows)
    for name in ("TRANSACTION_ID", "CUSTOMER_ID"):  # no number became another
        delivered = {None, *(row[name] for row in rows)}
        delivered |= {abs(number) for number in delivered if number is not None}  # where it was written unsigned
        assert set(stored[name].to_pylist() if stored else []) <= delivered
