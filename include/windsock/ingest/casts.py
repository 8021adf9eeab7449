"""Reading one delivered column as its declared type, where no meaning can be lost.

Accepted: any width of integer, whole floats (a null key turns a pandas column into floats),
decimals, any unit and zone of time, dictionary encoding, and text if the whole delivery is text
(CSV). Refused: text in a typed file, numbers as times (of which unit?), nested values.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from windsock.column_types import ARROW_TYPES
from windsock.ingest.sources.times import text_times

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
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
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
        words = pc.is_in(pc.utf8_lower(array), pa.array(_NULL_WORDS))
        array = pc.if_else(words, pa.scalar(None, pa.string()), array)
        values = _FROM_TEXT[kind](array)
    else:
        values = _FROM_TYPED[kind](array)
    given = values if kind == "string" else _nan_is_null(array)  # empty text is null, not unreadable
    broken = pc.and_(pc.is_null(values), pc.is_valid(given))
    return values, np.flatnonzero(broken.to_numpy(zero_copy_only=False))


def _nan_is_null(array: pa.Array) -> pa.Array:
    if not t.is_floating(array.type):
        return array
    return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)


def _number(array: pa.Array) -> pa.Array:
    """Return the column as doubles or refuse it; NaN becomes null."""
    if not (t.is_integer(array.type) or t.is_floating(array.type) or t.is_decimal(array.type)):
        raise ColumnTypeError(array, "Have the sender deliver numbers, or change the declared type in model.yaml.")
    return _nan_is_null(array.cast(pa.float64(), safe=False))


def _to_int(array: pa.Array) -> pa.Array:
    if t.is_boolean(array.type):
        return array.cast(pa.int8()).cast(pa.int64())
    if t.is_integer(array.type):
        if t.is_uint64(array.type):
            fits = pc.less_equal(array, pa.scalar(2**63 - 1, pa.uint64()))
            array = pc.if_else(fits, array, pa.scalar(None, pa.uint64()))
        return array.cast(pa.int64())
    numbers = _number(array)
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less_equal(pc.abs(numbers), _WHOLE_LIMIT))
    return pc.if_else(whole, numbers, pa.scalar(None, pa.float64())).cast(pa.int64())


def _to_string(array: pa.Array) -> pa.Array:
    if not is_text(array.type):
        raise ColumnTypeError(array, "Numbers lose leading zeros as text: have the sender deliver text.")
    text = array.cast(pa.string())
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _to_bool(array: pa.Array) -> pa.Array:
    if t.is_boolean(array.type):
        return array
    numbers = _number(array)
    known = pc.or_(pc.equal(numbers, 0.0), pc.equal(numbers, 1.0))
    return pc.if_else(known, pc.equal(numbers, 1.0), pa.scalar(None, pa.bool_()))


def _to_timestamp(array: pa.Array) -> pa.Array:
    if not (t.is_timestamp(array.type) or t.is_date(array.type)):
        raise ColumnTypeError(array, "A number does not say its unit or zone: have the sender deliver timestamps.")
    # Of a time with a zone, Arrow keeps the instant and drops the zone: UTC, as wanted.
    return array.cast(pa.timestamp("us"), safe=False)


def _to_date(array: pa.Array) -> pa.Array:
    times = _to_timestamp(array)
    midnight = pc.equal(times, pc.floor_temporal(times, unit="day"))
    return pc.if_else(midnight, times, pa.scalar(None, times.type)).cast(pa.date32())


def _matching(array: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(array, pattern), array, pa.scalar(None, pa.string()))


def _int_of_text(array: pa.Array) -> pa.Array:
    whole = _matching(array, r"^[+-]?[0-9]{1,18}(\.0*)?$")  # "107.0": a nullable key that went through floats
    return pc.replace_substring_regex(whole, r"^\+|\.0*$", "").cast(pa.int64())


def _double_of_text(array: pa.Array) -> pa.Array:
    text = _matching(array, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$")
    return pc.replace_substring_regex(text, r"^\+", "").cast(pa.float64())


def _bool_of_text(array: pa.Array) -> pa.Array:
    low = pc.utf8_lower(array)
    yes = pc.is_in(low, pa.array(["true", "t", "1", "yes"]))
    known = pc.or_(yes, pc.is_in(low, pa.array(["false", "f", "0", "no"])))
    return pc.if_else(known, yes, pa.scalar(None, pa.bool_()))


_FROM_TYPED: dict[str, Callable[[pa.Array], pa.Array]] = {
    "int64": _to_int,
    "double": _number,
    "string": _to_string,
    "bool": _to_bool,
    "timestamp": _to_timestamp,
    "date": _to_date,
}
_FROM_TEXT: dict[str, Callable[[pa.Array], pa.Array]] = {
    "int64": _int_of_text,
    "double": _double_of_text,
    "bool": _bool_of_text,
    "timestamp": text_times,
    "date": lambda array: _to_date(text_times(array)),
}
