"""One day out of a big file, without loading the rest of it."""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from windsock.days import end_of, start_of
from windsock.ingest.sources.base import NotDelivered, is_transport, shorten
from windsock.ingest.sources.parse import Format, Unreadable, check_names, check_parquet_ends, csv_batches
from windsock.ingest.sources.times import utc_times
from windsock.spec import ModelSpec


def cut(fs: Any, path: str, kind: Format, compression: str | None, *, spec: ModelSpec, day: date) -> pa.Table:
    """Return the rows of one day, in the file's order.

    Args:
        fs: The fsspec file system.
        path: The file's path there.
        kind: Format of the file.
        compression: Of a CSV file.
        spec: Names the event time column and the first day.
        day: The day; the first day also brings the rows without a readable event time.

    Raises:
        Unreadable: The file cannot be read, or its event time is no time.
        NotDelivered: The file ends before the day does; more may come.
    """
    size = int(fs.info(path)["size"])
    if size == 0:
        raise Unreadable("the file is empty (0 bytes). Deliver it again.")
    if kind == "csv":
        batches = csv_batches(lambda: fs.open(path, "rb"), compression)
        rows, later = _sift(batches, spec, day)
    else:
        with fs.open(path, "rb") as file:
            head = file.read(4)
            file.seek(max(0, size - 4))
            check_parquet_ends(head, file.read(4), size)
        try:
            rows, later = _cut_parquet(fs, path, spec, day)
        except (pa.ArrowException, OSError) as err:
            if is_transport(err):
                raise
            raise Unreadable(f"the Parquet file is damaged ({shorten(err)}). Deliver it again.") from err
    if rows.num_rows == 0 and not later:
        raise NotDelivered(
            f"The file holds no event on or after {day} (column {spec.events.time!r}), so the day is not in it (yet). "
            f"If no more data will come, set last_day in the model.yaml of {spec.name!r}."
        )
    return rows


def _cut_parquet(fs: Any, path: str, spec: ModelSpec, day: date) -> tuple[pa.Table, bool]:
    """Return the day's rows, and whether later ones exist; reads only the row groups that may hold them."""
    dataset = ds.dataset(path, filesystem=fs, format="parquet")
    check_names(dataset.schema.names)
    kind = _time_field(dataset.schema, spec).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return _sift(dataset.to_batches(), spec, day, dataset.schema)
    time = ds.field(spec.events.time)
    start, end = (_scalar(moment, kind) for moment in (start_of(day), end_of(day)))
    wanted = (time >= start) & (time < end)
    if day == spec.first_day:
        wanted = wanted | time.is_null()
    rows = dataset.to_table(filter=wanted)
    later = rows.num_rows > 0 or dataset.scanner(columns=[spec.events.time], filter=time >= end).head(1).num_rows > 0
    return rows, later


def _scalar(moment: datetime, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_date(kind):
        return pa.scalar(moment.date(), kind)
    return pa.scalar(moment.replace(tzinfo=UTC) if kind.tz else moment, kind)


def _sift(
    batches: Iterable[pa.RecordBatch], spec: ModelSpec, day: date, schema: pa.Schema | None = None
) -> tuple[pa.Table, bool]:
    """Return the day's rows of a stream of batches, and whether later ones passed by."""
    start, end = (pa.scalar(moment, pa.timestamp("us")) for moment in (start_of(day), end_of(day)))
    kept: list[pa.RecordBatch] = []
    later, readable, seen = False, 0, 0
    for batch in batches:
        schema = schema or batch.schema
        _time_field(schema, spec)
        times = utc_times(batch.column(spec.events.time))
        if times is None:
            raise Unreadable(_no_times(spec, batch.schema))
        wanted = pc.and_(pc.greater_equal(times, start), pc.less(times, end))
        # A null mask entry would drop the row, on the first day it must not.
        wanted = pc.fill_null(wanted, day == spec.first_day)
        later = later or bool(pc.any(pc.greater_equal(times, end)).as_py())
        seen, readable = seen + len(times), readable + len(times) - times.null_count
        chosen = batch.filter(wanted.combine_chunks())
        if chosen.num_rows:
            kept.append(chosen)
    if schema is None:
        raise Unreadable("the file holds no rows and no columns. Deliver it again.")
    if seen and not readable:
        raise Unreadable(_no_times(spec, schema))
    return pa.Table.from_batches(kept, schema=schema), later


def _time_field(schema: pa.Schema, spec: ModelSpec) -> pa.Field:
    if spec.events.time not in schema.names:
        raise Unreadable(
            f"the event time column {spec.events.time!r} is missing, so no day can be cut out of the file. "
            f"It has: {', '.join(schema.names)}. Deliver the column, or correct events.time."
        )
    return schema.field(spec.events.time)


def _no_times(spec: ModelSpec, schema: pa.Schema) -> str:
    kind = schema.field(spec.events.time).type
    return (
        f"the event time column {spec.events.time!r} ({kind}) holds no readable time. Deliver timestamps, or text "
        "such as 2026-03-01 13:45:00; a number does not say its unit."
    )
