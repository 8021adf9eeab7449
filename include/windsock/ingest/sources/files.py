"""Files: one a day by pattern, or one big file of which each day is cut by event time.

A relative path is relative to the model's folder, so that a model folder can be moved
with its data. A daily file is read once: hash, raw copy and rows come from the same bytes.
A day of a big file is read without the rest: Parquet by its row groups' statistics, CSV as
a stream. Rows of a big file without a readable event time belong to no day; they come
with the model's first day, so that they are set aside there instead of being lost.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from windsock.days import end_of, start_of
from windsock.errors import SpecError, UpstreamUnavailable, WindsockError
from windsock.ingest.casts import ColumnTypeError, cast_column, is_text
from windsock.ingest.sources.delivery import Delivery, NotDelivered
from windsock.ingest.sources.parse import (
    INT96_UNIT,
    Allowance,
    Format,
    Unreadable,
    check_parquet_ends,
    csv_batches,
    format_of,
    is_transport,
    parse,
)
from windsock.redact import redact, redact_line
from windsock.spec import ModelSpec
from windsock.spec.data import FilesSource, has_day, url_of_day


def fetch(spec: ModelSpec, source: FilesSource, day: date) -> Delivery:
    """Fetch one day from its file, or cut it out of the big file."""
    if has_day(source.url):
        return fetch_daily(spec, source.url, source.format, day)
    url = locate(spec, source.url)
    kind, compression = format_of(url, source.format)
    name, origin = f"{day}.parquet", f"{day} of {redact(url)}"
    try:
        with opening(url) as (fs, path):
            rows = _cut(fs, path, kind, compression, spec, day)
    except Unreadable as problem:
        return Delivery(None, None, name, origin, f"{redact(url)}: {problem}")
    return Delivery.of_rows(rows, name=name, origin=origin)


def fetch_daily(spec: ModelSpec, pattern: str, given: Format | None, day: date) -> Delivery:
    """Fetch the file of one day, which the pattern names; its format is given, or told by the ending.

    Raises:
        SpecError: Its format is unknown.
    """
    url = locate(spec, url_of_day(pattern, day))
    kind, compression = format_of(url, given)
    shown = redact(url)
    raw, rows, problem = None, None, None
    try:
        raw = _read(url, allowance(spec))
        rows = parse(raw, kind, compression, allowance(spec))
    except Unreadable as err:
        problem = f"{shown}: {err}"
    name = url.split("?", 1)[0].rsplit("/", 1)[-1]
    return Delivery(rows, raw, name, shown, problem)


def allowance(spec: ModelSpec) -> Allowance:
    """Return how much a delivery of a model may hold."""
    return Allowance(spec.validation.max_bytes, spec.validation.max_rows)


def _read(url: str, allowed: Allowance) -> bytes:
    """Return a file's bytes, unless there are more than are allowed."""
    with opening(url) as (fs, path):
        if (size := fs.info(path)["size"]) is not None:
            allowed.take(n_bytes=size)
            return bytes(fs.cat_file(path))
        blocks = []
        with fs.open(path, "rb") as file:  # a web server need not say how long a file is
            while block := bytes(file.read(1 << 20)):
                allowed.take(n_bytes=len(block))
                blocks.append(block)
        return b"".join(blocks)


def locate(spec: ModelSpec, url: str) -> str:
    """Return a URL as it is, and a path as absolute, relative ones from the model's folder."""
    if "://" in url or "::" in url:
        return url
    return str(spec.folder / Path(url).expanduser())


@contextmanager
def opening(url: str) -> Iterator[tuple[Any, str]]:
    """Resolve a URL to ``(file system, path)`` and turn what goes wrong inside into our errors.

    The original errors are not chained: they may quote the URL with its secrets.

    Raises:
        NotDelivered: The file is not there.
        UpstreamUnavailable: It cannot be reached.
        SpecError: There is no such file system, or a folder stands there.
    """
    import fsspec

    shown = redact(url)
    try:
        try:
            fs, path = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as err:
            raise SpecError(
                f"source.url {shown!r} cannot be used: {redact_line(err)}. Give a path or an fsspec URL."
            ) from None
        yield fs, path
    except (WindsockError, Unreadable):
        raise
    except FileNotFoundError as err:
        if isinstance(err.__cause__, OSError) and not isinstance(err.__cause__, FileNotFoundError):
            raise _away(shown, err.__cause__) from None  # so says fsspec of a web server that does not answer
        raise NotDelivered(
            f"{shown} does not exist (yet). If it will not come, check source.url in the model's model.yaml."
        ) from None
    except IsADirectoryError:
        raise SpecError(f"{shown} is a folder, not a file. Name one file, or one a day with {{ds}}.") from None
    except Exception as err:
        raise _away(shown, err) from None


def _away(shown: str, err: BaseException) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"{shown} cannot be read now: {type(err).__name__}: {redact_line(err)}. "
        "Check the address and the access rights, then run the step again."
    )


def _cut(fs: Any, path: str, kind: Format, compression: str | None, spec: ModelSpec, day: date) -> pa.Table:
    """Return the rows of one day of a big file, in the file's order, without loading the rest of it.

    The first day also brings the rows without a readable event time.

    Raises:
        Unreadable: The file cannot be read, or its event time is no time.
        NotDelivered: The file ends before the day does; more may come.
    """
    if fs.info(path)["size"] == 0:
        raise Unreadable("the file is empty (0 bytes). Deliver it again.")
    if kind == "csv":
        batches = csv_batches(lambda: fs.open(path, "rb"), compression)
        rows, later = _sift(batches, next(batches).schema, spec, day)
    else:
        with fs.open(path, "rb") as file:
            check_parquet_ends(file)
        try:
            rows, later = _cut_parquet(fs, path, spec, day)
        except (pa.ArrowException, OSError) as err:
            if is_transport(err):
                raise
            raise Unreadable(f"the Parquet file is damaged ({redact_line(err)}). Deliver it again.") from err
    if rows.num_rows == 0 and not later:
        raise NotDelivered(
            f"The file holds no event on or after {day} (column {spec.events.time_source!r}), so the day is not "
            f"in it (yet). If no more data will come, set last_day in the model.yaml of {spec.name!r}."
        )
    return rows


def _cut_parquet(fs: Any, path: str, spec: ModelSpec, day: date) -> tuple[pa.Table, bool]:
    """Return the day's rows, and whether later ones exist; reads only the row groups that may hold them."""
    parquet = ds.ParquetFileFormat(coerce_int96_timestamp_unit=INT96_UNIT)
    dataset = ds.dataset(path, filesystem=fs, format=parquet)
    if twice := sorted(name for name, n in Counter(dataset.schema.names).items() if n > 1):
        raise Unreadable(f"the columns {', '.join(map(repr, twice))} stand more than once. Deliver each column once.")
    kind = _type_of_times(dataset.schema, spec)
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return _sift(dataset.to_batches(), dataset.schema, spec, day)
    time = ds.field(spec.events.time_source)
    start, end = (_scalar(moment, kind) for moment in (start_of(day), end_of(day)))
    wanted = (time >= start) & (time < end)
    if day == spec.first_day:
        wanted = wanted | time.is_null()
    kept, allowed = [], allowance(spec)
    # One piece after the other: what is read ahead would lie in memory beside it.
    for batch in dataset.to_batches(filter=wanted, batch_readahead=1, fragment_readahead=1):
        allowed.take(n_bytes=batch.nbytes, rows=batch.num_rows)
        kept.append(batch)
    rows = pa.Table.from_batches(kept, schema=dataset.schema)
    after = dataset.scanner(columns=[spec.events.time_source], filter=time >= end)
    later = rows.num_rows > 0 or after.head(1).num_rows > 0
    return rows, later


def _scalar(moment: datetime, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_date(kind):
        return pa.scalar(moment.date(), kind)
    return pa.scalar(moment.replace(tzinfo=UTC) if kind.tz else moment, kind)


def _sift(batches: Iterable[pa.RecordBatch], schema: pa.Schema, spec: ModelSpec, day: date) -> tuple[pa.Table, bool]:
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
            times, _ = cast_column(column, "timestamp", from_text=is_text(kind))
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
