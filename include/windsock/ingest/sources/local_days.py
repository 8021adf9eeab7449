"""Files cut by the days of a time zone: what they hold of a day of the model, which is one of UTC (ADR 0020).

A day overlaps two local ones, so it is taken from two files. Each row of a file comes with the day that holds its time.
A row whose time is not of the file's own local day, or cannot be read, comes with the day of the file's name, once:
there it is judged as such rows are anywhere.
"""

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from windsock.days import ONE_DAY, end_of, start_of
from windsock.ingest.casts import ColumnTypeError, is_text
from windsock.ingest.sources.delivery import Delivery, NotDelivered, NotWhole
from windsock.ingest.sources.joined import join_rows
from windsock.ingest.sources.parse import Unreadable
from windsock.ingest.zones import cast_times
from windsock.spec import ModelSpec
from windsock.spec.columns import needed_sources
from windsock.spec.sources import FilesSource

log = logging.getLogger(__name__)

_MINUTE = timedelta(minutes=1)


def local_days(day: date, zone: str) -> list[date]:
    """List the days of a zone that a day of UTC overlaps, in order."""
    start, clocks = start_of(day).replace(tzinfo=UTC), ZoneInfo(zone)
    return sorted({(start + n * _MINUTE).astimezone(clocks).date() for n in range(ONE_DAY // _MINUTE)})


def last_day_over(day: date, zone: str) -> date:
    """Return the last local day that is over when a day of UTC is, whatever the season of that year."""
    clocks = ZoneInfo(zone)
    offsets = [datetime(day.year, month, 1, tzinfo=clocks).utcoffset() or timedelta(0) for month in range(1, 13)]
    return day if min(offsets) >= timedelta(0) else day - ONE_DAY


def fetch_overlapping(
    spec: ModelSpec, source: FilesSource, zone: str, day: date, ask: Callable[[date], Delivery]
) -> Delivery:
    """Fetch a day from the files of the local days that it overlaps; ``ask`` fetches one of these.

    Of a local day before the model's first day, or after its last one, there may be no file.

    Returns:
        The day's rows, file by file; refused whole if one of the files cannot be read.

    Raises:
        NotDelivered: One of them is not there yet.
    """
    found: dict[str, pa.Table] = {}
    needed = []
    for local in local_days(day, zone):
        try:
            delivery = ask(local)
        except NotDelivered as absent:
            outside = local < spec.first_day or (spec.last_day is not None and local > spec.last_day)
            if local == day or not outside or isinstance(absent, NotWhole):
                raise
            log.warning("%s %s is taken without the hours of %s: %s", spec.name, day, local, absent)
            continue
        if delivery.rows is None:
            return delivery
        try:
            found[delivery.origin] = _rows_of(spec, source, zone, day, local, delivery.rows)
            needed.append(needed_sources(spec, local))
        except Unreadable as err:
            return Delivery(None, delivery.raw, delivery.name, delivery.origin, f"{delivery.origin}: {err}")
    name, origin = f"{day}.parquet", f"{day} (UTC) of {' and '.join(found)}"
    parts = [(rows, some) for rows, some in zip(found.values(), needed, strict=True) if rows.num_rows]
    try:  # an empty file's types say nothing
        rows = join_rows(*zip(*parts, strict=True)) if parts else next(iter(found.values()))
    except Unreadable as err:
        return Delivery(None, None, name, origin, f"{origin}: {err}")
    return Delivery.of_rows(rows, name=name, origin=origin, zone=source.zone_of_times)


def _rows_of(spec: ModelSpec, source: FilesSource, zone: str, day: date, local: date, rows: pa.Table) -> pa.Table:
    """Return the rows of a local day's file that come with a day of UTC."""
    name = spec.events.time_source
    if not rows.num_rows:
        return rows
    if (count := rows.schema.names.count(name)) != 1:
        raise Unreadable(
            f"the event time column {name!r} stands in the file {count} times, expected once, so its rows cannot be "
            "given to days. Deliver the column once, or correct events.time."
        )
    column = rows.column(name)
    try:
        times, _, _ = cast_times(column, source.zone_of_times, from_text=is_text(column.type))
    except ColumnTypeError as err:
        raise Unreadable(
            f"the event time column {name!r} ({err.found}) holds no times, so its rows cannot be given to days. "
            f"{err.advice}"
        ) from None
    start, end = (pa.scalar(moment, pa.timestamp("us")) for moment in (start_of(day), end_of(day)))
    of_day = pc.and_(pc.greater_equal(times, start), pc.less(times, end))
    clocks = pc.local_timestamp(times.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone)))
    of_file = pc.equal(clocks.cast(pa.date32(), safe=False), pa.scalar(local, pa.date32()))
    its_own = local == day
    wanted = pc.or_(of_day, pc.invert(of_file)) if its_own else pc.and_(of_day, of_file)
    return rows.filter(pc.fill_null(wanted, its_own))
