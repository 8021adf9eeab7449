"""One big file, of which each day is cut by event time.

A day is read without the rest: Parquet by its row groups' statistics, CSV as a stream. Rows without a readable event
time belong to no day; they come with the model's first day, so that they are set aside there instead of being lost.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from windsock.days import end_of, start_of
from windsock.ingest.casts import ColumnTypeError, is_text
from windsock.ingest.sources.delivery import NotDelivered
from windsock.ingest.sources.packed import is_transport
from windsock.ingest.sources.parse import (
    INT96_UNIT,
    Format,
    Unreadable,
    check_parquet_ends,
    csv_batches,
    rows_at_once,
)
from windsock.ingest.sources.places import allowance
from windsock.ingest.zones import cast_times
from windsock.redact import redact_line
from windsock.spec import ModelSpec


def cut(
    fs: Any, path: str, kind: Format, compression: str | None, spec: ModelSpec, day: date, zone: str | None = None
) -> tuple[pa.Table, Callable[[], bool]]:
    """Return the rows of one day of a big file, in the file's order, without loading the rest of it.

    The first day also brings the rows without a readable event time. Times that say no zone are of ``zone``.

    Returns:
        The rows, and what says whether the file holds events of later days, so that the day is over in it.

    Raises:
        Unreadable: The file cannot be read, or its event time is no time.
        NotDelivered: The file ends before the day does; more may come.
    """
    later: Callable[[], bool]
    if fs.info(path)["size"] == 0:
        raise Unreadable("the file is empty (0 bytes). Deliver it again.")
    if kind == "csv":
        batches = csv_batches(lambda: fs.open(path, "rb"), compression)
        rows, passed = _sift(batches, next(batches).schema, spec, day, zone)
        later = partial(bool, passed)
    elif compression is not None:
        raise Unreadable(f"a Parquet file in {compression} cannot be cut by day. Deliver it as it is: it packs itself.")
    else:
        try:
            with fs.open(path, "rb") as file:
                check_parquet_ends(file)
                at_once = rows_at_once(pq.read_metadata(file), allowance(spec))
            rows, later = _cut_parquet(fs, path, spec, day, at_once, zone)
        except (pa.ArrowException, OSError) as err:
            if is_transport(err):
                raise
            raise Unreadable(f"the Parquet file is damaged ({redact_line(err)}). Deliver it again.") from err
    if rows.num_rows == 0 and not later():
        raise NotDelivered(
            f"The file holds no event on or after {day} (column {spec.events.time_source!r}), so the day is not "
            f"in it (yet). If no more data will come, set last_day in the model.yaml of {spec.name!r}."
        )
    return rows, later


def _cut_parquet(
    fs: Any, path: str, spec: ModelSpec, day: date, at_once: int, zone: str | None
) -> tuple[pa.Table, Callable[[], bool]]:
    """Return the day's rows, and whether later ones exist; reads only the row groups that may hold them.

    They are read ``at_once`` rows at a time.
    """
    parquet = ds.ParquetFileFormat(coerce_int96_timestamp_unit=INT96_UNIT)
    dataset = ds.dataset(path, filesystem=fs, format=parquet)
    if twice := sorted(name for name, n in Counter(dataset.schema.names).items() if n > 1):
        raise Unreadable(f"the columns {', '.join(map(repr, twice))} stand more than once. Deliver each column once.")
    kind = _type_of_times(dataset.schema, spec)
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        rows, passed = _sift(dataset.to_batches(), dataset.schema, spec, day, zone)
        return rows, partial(bool, passed)
    if zone is not None and getattr(kind, "tz", None) is None:
        return _cut_by_clocks(dataset, kind, spec, day, at_once, zone)
    time = ds.field(spec.events.time_source)
    start, end = (_scalar(moment, kind) for moment in (start_of(day), end_of(day)))
    wanted = (time >= start) & (time < end)
    if day == spec.first_day:
        wanted = wanted | time.is_null()
    kept, allowed = [], allowance(spec)
    # One piece after the other: what is read ahead would lie in memory beside it.
    for batch in dataset.to_batches(filter=wanted, batch_size=at_once, batch_readahead=1, fragment_readahead=1):
        allowed.take(n_bytes=batch.nbytes, rows=batch.num_rows)
        kept.append(batch)
    rows = pa.Table.from_batches(kept, schema=dataset.schema)
    after = dataset.scanner(columns=[spec.events.time_source], filter=time >= end)
    return rows, lambda: after.head(1).num_rows > 0


def _cut_by_clocks(
    dataset: Any, kind: pa.DataType, spec: ModelSpec, day: date, at_once: int, zone: str
) -> tuple[pa.Table, Callable[[], bool]]:
    """Cut a day by times without a zone, which are of ``zone``: no clock shows another day than UTC's neighbours."""
    time, first, last = ds.field(spec.events.time_source), _near(day, -1, kind), _near(day, 2, kind)
    near = (time >= first) & (time < last)
    if day == spec.first_day:
        near = near | time.is_null()
    batches = dataset.to_batches(filter=near, batch_size=at_once, batch_readahead=1, fragment_readahead=1)
    rows, passed = _sift(batches, dataset.schema, spec, day, zone)
    after = dataset.scanner(columns=[spec.events.time_source], filter=time >= last)
    return rows, lambda: passed or after.head(1).num_rows > 0


def _near(day: date, days: int, kind: pa.DataType) -> pa.Scalar:
    return _scalar(start_of(day) + timedelta(days), kind)


def _scalar(moment: datetime, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_date(kind):
        return pa.scalar(moment.date(), kind)
    return pa.scalar(moment.replace(tzinfo=UTC) if kind.tz else moment, kind)


def _sift(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, spec: ModelSpec, day: date, zone: str | None
) -> tuple[pa.Table, bool]:
    """Return the day's rows of a stream of batches, and whether later ones passed by."""
    start, end = (pa.scalar(moment, pa.timestamp("us")) for moment in (start_of(day), end_of(day)))
    kept, kind = [], _type_of_times(schema, spec)
    no_times = (
        f"the event time column {spec.events.time_source!r} ({kind}) holds no readable time. Deliver timestamps, or "
        "text such as 2026-03-01 13:45:00; a number does not say its unit."
    )
    later, readable, seen, allowed = False, 0, 0, allowance(spec)
    for batch in batches:
        column = pa.chunked_array([batch.column(spec.events.time_source)])
        try:
            times, _, _ = cast_times(column, zone, from_text=is_text(kind))
            if zone is not None and times.null_count:  # what no clock showed is set aside on the day that it names
                times = pc.coalesce(times, cast_times(column, None, from_text=is_text(kind))[0])
        except ColumnTypeError:
            raise Unreadable(no_times) from None
        wanted = pc.and_(pc.greater_equal(times, start), pc.less(times, end))
        # A null mask entry would drop the row, on the first day it must not.
        wanted = pc.fill_null(wanted, day == spec.first_day)
        later = later or bool(pc.any(pc.greater_equal(times, end)).as_py())
        seen, readable = seen + len(times), readable + len(times) - times.null_count
        if (rows := batch.filter(wanted)).num_rows:
            allowed.take(n_bytes=rows.nbytes, rows=rows.num_rows)
            kept.append(rows)
    if seen and not readable:
        raise Unreadable(no_times)
    return pa.Table.from_batches(kept, schema=schema), later


def _type_of_times(schema: pa.Schema, spec: ModelSpec) -> pa.DataType:
    if spec.events.time_source not in schema.names:
        raise Unreadable(
            f"the event time column {spec.events.time_source!r} is missing, so no day can be cut out of the file. "
            f"It has: {', '.join(schema.names)}. Deliver the column, or correct events.time."
        )
    return schema.field(spec.events.time_source).type
