"""One reading of event times, for the cut of a big file and for the columns of a day alike."""

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_ISO_8601 = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$"


def utc_times(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Read a column as instants in UTC.

    A time without a zone is read as UTC. Text is read as ISO 8601, with or without an
    offset, with ``T`` or a blank; dates are their midnight.

    Args:
        column: Timestamps of any unit and zone, dates, text, or all null.

    Returns:
        ``timestamp[us]`` of the same length, null where there is no readable time; None
        if the type is none that holds times (a number has no stated unit).
    """
    chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    kind, target = chunked.type, pa.timestamp("us")
    if pa.types.is_dictionary(kind):
        return utc_times(chunked.cast(kind.value_type))
    if pa.types.is_timestamp(kind):
        # Finer units are cut down to microseconds; the zone only says how an instant was written.
        return chunked.cast(pa.timestamp("us", kind.tz), safe=False).cast(target)
    if pa.types.is_date(kind) or pa.types.is_null(kind):
        return chunked.cast(target)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    try:
        return chunked.cast(target)
    except pa.ArrowInvalid:
        return pa.chunked_array([text_times(chunked)])


def text_times(text: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Read text times one by one, as ``timestamp[us]`` in UTC: null where one cannot be read."""
    trimmed = pc.utf8_trim_whitespace(text.cast(pa.string()))
    # pandas alone would also take "2026" and "20260301" for times: numbers that lost their meaning.
    iso = pc.if_else(pc.match_substring_regex(trimmed, _ISO_8601), trimmed, pa.scalar(None, pa.string()))
    read = pd.to_datetime(iso.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    return pa.array(read.dt.tz_localize(None).dt.floor("us"), pa.timestamp("us"), safe=False)
