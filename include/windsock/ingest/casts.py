"""Reading one delivered column as its declared type, where no meaning can be lost.

Accepted: any width of integer, whole floats (a null key turns a pandas column into floats),
decimals, any unit and zone of time, dictionary encoding, and text if the whole delivery is text
(CSV). Refused: text in a typed file, numbers as times (of which unit?), nested values.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from windsock.column_types import ARROW_TYPES

_NULL_WORDS = ("", "nan", "null", "none", "na", "n/a", "<na>", "nat")
_WHOLE_LIMIT = float(2**53)
"""Above this a float no longer says which whole number was meant."""


class ColumnTypeError(Exception):
    """A whole column is of a type that cannot be taken for the declared one."""

    def __init__(self, column: pa.Array, advice: str) -> None:
        super().__init__(advice)
        present = column.is_valid().to_numpy(zero_copy_only=False)
        self.found = str(column.type)
        self.count = int(present.sum())
        self.row = int(present.argmax())
        self.example = column[self.row].as_py()
        self.advice = advice


def is_text(kind: pa.DataType) -> bool:
    """Say whether an Arrow type holds text."""
    return bool(t.is_string(kind) or t.is_large_string(kind) or (t.is_dictionary(kind) and is_text(kind.value_type)))


def cast_column(column: pa.ChunkedArray, kind: str, *, from_text: bool) -> tuple[pa.Array, np.ndarray]:
    """Read a column as a declared type; ``from_text``: the whole delivery is text, so that text is no fault.

    Returns:
        The values (null where one could not be read) and the positions of those that could not.

    Raises:
        ColumnTypeError: The column's type does not fit at all.
    """
    array = column.combine_chunks()
    if t.is_dictionary(array.type):
        array = array.dictionary_decode()
    target = ARROW_TYPES[kind]
    if t.is_null(array.type) or (array.null_count == len(array) and not t.is_nested(array.type)):
        return pa.nulls(len(array), target), np.empty(0, dtype=np.int64)
    if is_text(array.type) and kind != "string":
        if not from_text:
            raise ColumnTypeError(
                array, "Text is not converted in a typed file: have the sender deliver the declared type."
            )
        array = pc.utf8_trim_whitespace(array.cast(pa.string()))
        array = pc.if_else(pc.is_in(pc.utf8_lower(array), pa.array(_NULL_WORDS)), None, array)
        values = _from_text(array, kind)
    else:
        values = _from_typed(array, kind)
    given = values if kind == "string" else _nan_is_null(array)  # empty text is null, not unreadable
    broken = pc.and_(pc.is_null(values), pc.is_valid(given))
    return values, np.flatnonzero(broken.to_numpy(zero_copy_only=False))


def _nan_is_null(array: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_nan(array), None, array) if t.is_floating(array.type) else array


def _from_text(array: pa.Array, kind: str) -> pa.Array:
    """Read trimmed text as a declared type, null where it is none."""
    match kind:
        case "int64":
            whole = _matching(array, r"^[+-]?[0-9]{1,18}(\.0*)?$")  # "107.0": a nullable key that went through floats
            return pc.replace_substring_regex(whole, r"^\+|\.0*$", "").cast(pa.int64())
        case "double":
            number = _matching(array, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$")
            return pc.replace_substring_regex(number, r"^\+", "").cast(pa.float64())
        case "bool":
            low = pc.utf8_lower(array)
            yes = pc.is_in(low, pa.array(["true", "t", "1", "yes"]))
            return pc.if_else(pc.or_(yes, pc.is_in(low, pa.array(["false", "f", "0", "no"]))), yes, None)
        case "date":
            return _days(_times(array))
        case _:
            return _times(array)


def _matching(array: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(array, pattern), array, None)


def _times(array: pa.Array) -> pa.Array:
    """Read ISO 8601, with or without an offset, with ``T`` or a blank; a time without a zone is in UTC."""
    # pandas alone would also take "2026" and "20260301" for times: numbers that lost their meaning.
    iso = _matching(array, r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$")
    try:
        return iso.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:  # a zone, parts of a microsecond, or no time at all
        read = pd.to_datetime(iso.to_pandas(), format="ISO8601", utc=True, errors="coerce")
        return pa.array(read.dt.tz_localize(None).dt.floor("us"), pa.timestamp("us"), safe=False)


def _days(times: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(times, pc.floor_temporal(times, unit="day")), times, None).cast(pa.date32())


def _from_typed(array: pa.Array, kind: str) -> pa.Array:
    """Read a typed column as a declared type, null where a value does not fit."""
    given = array.type
    if kind == "string":
        if not is_text(given):
            raise ColumnTypeError(array, "Numbers lose leading zeros as text: have the sender deliver text.")
        text = array.cast(pa.string())
        return pc.if_else(pc.equal(text, ""), None, text)
    if kind in ("timestamp", "date"):
        if not (t.is_timestamp(given) or t.is_date(given)):
            raise ColumnTypeError(array, "A number does not say its unit or zone: have the sender deliver timestamps.")
        # Of a time with a zone, Arrow keeps the instant and drops the zone: UTC, as wanted.
        times = array.cast(pa.timestamp("us"), safe=False)
        return times if kind == "timestamp" else _days(times)
    if kind in ("bool", "int64") and t.is_boolean(given):
        return array if kind == "bool" else array.cast(pa.int8()).cast(pa.int64())
    if kind == "int64" and t.is_integer(given):
        if t.is_uint64(given):
            array = pc.if_else(pc.less_equal(array, pa.scalar(2**63 - 1, pa.uint64())), array, None)
        return array.cast(pa.int64())
    if not (t.is_integer(given) or t.is_floating(given) or t.is_decimal(given)):
        raise ColumnTypeError(array, "Have the sender deliver numbers, or change the declared type in model.yaml.")
    numbers = _nan_is_null(array.cast(pa.float64(), safe=False))
    if kind == "int64":
        whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less_equal(pc.abs(numbers), _WHOLE_LIMIT))
        return pc.if_else(whole, numbers, None).cast(pa.int64())
    if kind == "bool":
        one = pc.equal(numbers, 1.0)
        return pc.if_else(pc.or_(one, pc.equal(numbers, 0.0)), one, None)
    return numbers
