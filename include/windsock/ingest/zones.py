"""Times without a zone, read on the clocks of the zone that the spec names for a delivery.

Twice a year such clocks leave an hour out, or show one twice. A time that they never showed is a fault of its row,
unless it is a midnight: so a date is written, and it means when the day began. Of a time that they showed twice nobody
can tell which was meant: it is read as the first, and that is said.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from windsock.ingest.casts import cast_column, in_calendar, is_text

_TEXT_WITHOUT_ZONE = r"^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?)?\s*$"


def cast_times(
    column: pa.ChunkedArray, zone: str | None, *, from_text: bool
) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Read a column as times in UTC; those that say no zone are of ``zone`` (None: UTC).

    Returns:
        The times as :func:`cast_column` does, the positions of what could not be read, and of what stood twice.

    Raises:
        ColumnTypeError: The column's type does not fit at all.
    """
    times, broken = cast_column(column, "timestamp", from_text=from_text)
    if zone is None:
        return times, broken, np.empty(0, dtype=np.int64)
    first, last = (
        pc.assume_timezone(times, zone, ambiguous=which, nonexistent=which).cast(pa.timestamp("us"))
        for which in ("earliest", "latest")
    )
    shown = pc.equal(pc.local_timestamp(last.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone))), times)
    without_zone = _says_no_zone(column)
    # A day that began with what the clocks left out began at its end: a date is no fault.
    begins = pc.and_(pc.invert(shown), pc.equal(times, pc.floor_temporal(times, unit="day")))
    shown, first = pc.or_(shown, begins), pc.if_else(begins, last, first)
    never, twice = pc.and_(without_zone, pc.invert(shown)), pc.and_(without_zone, pc.not_equal(first, last))
    read = in_calendar(pc.if_else(pc.fill_null(without_zone, False), pc.if_else(shown, first, None), times))
    unread = pc.and_(pc.is_valid(times), pc.is_null(read))
    return read, np.union1d(broken, _places(unread)), _places(pc.and_(twice, pc.invert(never)))


def _says_no_zone(column: pa.ChunkedArray) -> pa.Array:
    """Return which values of a column of times name no zone and no offset."""
    array = column.combine_chunks()
    array = array.dictionary_decode() if t.is_dictionary(array.type) else array
    if is_text(array.type):
        text = array.storage if isinstance(array, pa.ExtensionArray) else array
        return pc.match_substring_regex(text.cast(pa.string()), _TEXT_WITHOUT_ZONE)
    return pa.repeat(not (t.is_timestamp(array.type) and array.type.tz is not None), len(array))


def _places(mask: pa.Array) -> np.ndarray:
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
