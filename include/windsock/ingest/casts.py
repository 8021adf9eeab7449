"""Reading one delivered column as its declared type, where no meaning can be lost.

Accepted: any width of integer, whole floats (a null key turns a pandas column into floats) as far as floats tell
whole numbers apart, decimals, any unit and zone of time, dictionary encoding, UUIDs and UTF-8 bytes as text, and text
if the whole delivery is text (CSV). Refused: text in a typed file, numbers as times (of which unit?), nested values.
A time outside the years 1 to 9999, which nothing later could name, is a fault of its row.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from windsock.column_types import ARROW_TYPES
from windsock.ingest.delivered_values import plain_value

_NULL_WORDS = ("", "nan", "null", "none", "na", "n/a", "<na>", "nat")
_AMBIGUOUS_FROM = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}
"""From here on a float no longer says which whole number was meant: it stands for its neighbours, too."""
_INT64 = pa.decimal256(76, 0)
"""What holds every whole number that may turn out to be an int64, or not."""
_UNITS_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}
_FIRST_DAY, _LAST_DAY = ((day - date(1970, 1, 1)).days for day in (date.min, date.max))
_ISO_PARTS = (
    r"^(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
    r"(?:[T ](?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:[.,](?P<fraction>\d+))?)?"
    r" ?(?:[Zz]|(?P<sign>[+-])(?P<zone_hour>[01]\d|2[0-3])(?::?(?P<zone_minute>[0-5]\d))?)?)?$"
)


class ColumnTypeError(Exception):
    """A whole column is of a type that cannot be taken for the declared one."""

    def __init__(self, column: pa.Array, advice: str) -> None:
        super().__init__(advice)
        present = column.is_valid().to_numpy(zero_copy_only=False)
        self.found = str(column.type)
        self.count = int(present.sum())
        self.row = int(present.argmax())
        self.example = plain_value(column[self.row])
        self.advice = advice


def is_text(kind: pa.DataType) -> bool:
    """Say whether an Arrow type holds text."""
    if isinstance(kind, pa.JsonType):
        return True
    if t.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def cast_column(column: pa.ChunkedArray, kind: str, *, from_text: bool) -> tuple[pa.Array, np.ndarray]:
    """Read a column as a declared type; ``from_text``: the whole delivery is text, so that text is no fault.

    Returns:
        The values (null where one could not be read) and the positions of those that could not.

    Raises:
        ColumnTypeError: The column's type does not fit at all.
    """
    array = _plain(column)
    target = ARROW_TYPES[kind]
    if t.is_null(array.type) or (array.null_count == len(array) and not t.is_nested(array.type)):
        return pa.nulls(len(array), target), np.empty(0, dtype=np.int64)
    given = _present(array)
    if kind == "string" or is_text(array.type):
        if kind != "string" and not from_text:
            raise ColumnTypeError(
                array, "Text is not converted in a typed file: have the sender deliver the declared type."
            )
        text = _text(array) if kind == "string" else pc.utf8_trim_whitespace(_text(array))
        words = [""] if kind == "string" else _NULL_WORDS  # these are null, not unreadable
        nothing = pc.is_in(text if kind == "string" else pc.utf8_lower(text), pa.array(words))
        given, text = pc.and_(given, pc.invert(nothing)), pc.if_else(nothing, None, text)
        values = text if kind == "string" else _from_text(text, kind)
    else:
        values = _from_typed(array, kind)
    broken = pc.and_(pc.is_null(values), given)
    return values, np.flatnonzero(broken.to_numpy(zero_copy_only=False))


def map_column(column: pa.ChunkedArray, values: Mapping[str, int]) -> tuple[pa.Array, np.ndarray]:
    """Read a column of words, numbers or truth values as the int64 that stands for each.

    Returns:
        The numbers (null where there is no value, or one that has no name here) and the positions of the latter.

    Raises:
        ColumnTypeError: The column holds something else, times for example.
    """
    array = _plain(column)
    given = _present(array)
    if t.is_boolean(array.type) or t.is_integer(array.type) or t.is_null(array.type):
        text = array.cast(pa.string())
    elif t.is_floating(array.type) or t.is_decimal(array.type):
        text = _from_typed(array, "int64").cast(pa.string())
    else:
        text = pc.utf8_trim_whitespace(_text(array))
        words = [word for word in _NULL_WORDS if word not in values]
        given = pc.and_(given, pc.invert(pc.is_in(pc.utf8_lower(text), pa.array(words))))
    named = pc.index_in(text, pa.array(list(values), pa.string()))
    found = pa.array(list(values.values()), pa.int64()).take(named)
    return found, np.flatnonzero(pc.and_(given, pc.is_null(found)).to_numpy(zero_copy_only=False))


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.dictionary_decode() if t.is_dictionary(array.type) else array


def _present(array: pa.Array) -> pa.Array:
    """Return where there is a value; NaN is none."""
    given = array.is_valid()
    return pc.and_(given, pc.invert(pc.fill_null(pc.is_nan(array), False))) if t.is_floating(array.type) else given


def _text(array: pa.Array) -> pa.Array:
    """Return text, UTF-8 bytes or UUIDs as text, null where bytes are no UTF-8."""
    if isinstance(array.type, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    if not (is_text(array.type) or _is_bytes(array.type)):
        raise ColumnTypeError(array, "Numbers lose leading zeros as text: have the sender deliver text.")
    try:
        text = array.cast(pa.string())
        text.validate(full=True)  # a cast from text believes what it is given
    except pa.ArrowInvalid:
        return pa.array([_decoded(value) for value in array.cast(pa.large_binary()).to_pylist()], pa.string())
    return text


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (t.is_binary, t.is_large_binary, t.is_binary_view, t.is_fixed_size_binary)
    return any(is_kind(kind) for is_kind in tests)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _from_text(array: pa.Array, kind: str) -> pa.Array:
    """Read trimmed text as a declared type, null where it is none."""
    match kind:
        case "int64":
            return _whole_from_text(array)
        case "double":
            number = _matching(array, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$")
            return pc.replace_substring_regex(number, r"^\+", "").cast(pa.float64())
        case "bool":
            return _truth(array, ["true", "t", "1", "yes"], ["false", "f", "0", "no"])
        case "date":
            return _days(_times(array))
        case _:
            return _times(array)


def _truth(array: pa.Array, true: Sequence[str], false: Sequence[str]) -> pa.Array:
    low = pc.utf8_lower(array)
    yes = pc.is_in(low, pa.array(true))
    return pc.if_else(pc.or_(yes, pc.is_in(low, pa.array(false))), yes, None)


def _whole_from_text(array: pa.Array) -> pa.Array:
    """Read whole numbers; ``107.0`` is a nullable key that went through floats, and says no more than they do."""
    text = _matching(array, r"^[+-]?[0-9]{1,76}(\.0*)?$")
    digits = pc.replace_substring_regex(text, r"^\+|\.0*$", "")
    try:
        whole = digits.cast(pa.int64())
    except pa.ArrowInvalid:  # one is beyond 64 bits
        whole = _whole_of_decimals(digits.cast(_INT64))
    if whole.null_count == len(whole):  # a label that is told by truth values, as it may be in a typed file
        return _truth(array, ["true"], ["false"]).cast(pa.int8()).cast(pa.int64())
    exact = pc.or_(pc.invert(pc.ends_with(array, ".0")), _told_apart(whole, pa.float64()))
    return pc.if_else(exact, whole, None)


def _matching(array: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(array, pattern), array, None)


def _times(array: pa.Array) -> pa.Array:
    """Read ISO 8601, with or without an offset, with ``T`` or a blank; a time without a zone is in UTC."""
    # Arrow alone would also take "2026" for a time: a number that lost its meaning.
    iso = _matching(array, r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$")
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return in_calendar(iso.cast(kind)).cast(pa.timestamp("us"))
        except pa.ArrowInvalid:  # with a zone, or without; parts of a microsecond, or no time at all
            continue
    return in_calendar(_times_by_parts(iso))


def _times_by_parts(array: pa.Array) -> pa.Array:
    """Read ISO 8601 number by number, null where there is no such time: no library takes them in all their forms."""
    parts = pc.extract_regex(array, _ISO_PARTS)

    def part(name: str, width: int = 2) -> np.ndarray:
        text = pc.utf8_slice_codeunits(pc.fill_null(pc.struct_field(parts, name), ""), 0, width)
        return np.asarray(pc.utf8_rpad(text, width, "0").cast(pa.int64()))

    month, day = part("month"), part("day")
    months = ((part("year", 4) - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    real = (month >= 1) & (month <= 12) & (day >= 1) & (days.astype("datetime64[M]") == months)
    behind = pc.equal(pc.fill_null(pc.struct_field(parts, "sign"), ""), "-").to_numpy(zero_copy_only=False)
    ahead = (part("zone_hour") * 60 + part("zone_minute")) * np.where(behind, -1, 1)
    seconds = (part("hour") * 60 + part("minute") - ahead) * 60 + part("second")
    times = days.astype("datetime64[us]") + (seconds * 1_000_000 + part("fraction", 6))
    return pa.array(times, pa.timestamp("us"), mask=~real)


def in_calendar(times: pa.Array) -> pa.Array:
    """Return times or dates with null for those outside the years 1 to 9999.

    Arrow's casts between units wrap what does not fit: of the year 635,000 they would make another date.
    """
    if t.is_date32(times.type):
        per_day = 1
    elif t.is_timestamp(times.type) and times.type.unit == "ns":
        return times  # its 64 bits end in the year 2262
    else:
        per_day = _UNITS_PER_DAY["ms" if t.is_date64(times.type) else times.type.unit]
    number = (times.cast(pa.int32()) if per_day == 1 else times).cast(pa.int64())
    named = pc.and_(pc.greater_equal(number, _FIRST_DAY * per_day), pc.less(number, (_LAST_DAY + 1) * per_day))
    return pc.if_else(named, times, None)


def _days(times: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(times, pc.floor_temporal(times, unit="day")), times, None).cast(pa.date32())


def _from_typed(array: pa.Array, kind: str) -> pa.Array:
    """Read a typed column that is no text as a declared type, null where a value does not fit."""
    given = array.type
    if kind in ("timestamp", "date"):
        if not (t.is_timestamp(given) or t.is_date(given)):
            raise ColumnTypeError(array, "A number does not say its unit or zone: have the sender deliver timestamps.")
        # Of a time with a zone, Arrow keeps the instant and drops the zone: UTC, as wanted.
        times = in_calendar(array).cast(pa.timestamp("us"), safe=False)
        return times if kind == "timestamp" else _days(times)
    if kind in ("bool", "int64") and t.is_boolean(given):
        return array if kind == "bool" else array.cast(pa.int8()).cast(pa.int64())
    if kind == "int64" and t.is_integer(given):
        if t.is_uint64(given):
            array = pc.if_else(pc.less_equal(array, pa.scalar(2**63 - 1, pa.uint64())), array, None)
        return array.cast(pa.int64())
    if not (t.is_integer(given) or t.is_floating(given) or t.is_decimal(given)):
        raise ColumnTypeError(array, "Have the sender deliver numbers, or change the declared type in model.yaml.")
    if kind == "int64" and t.is_decimal(given):
        return _whole_of_decimals(array)
    numbers = array.cast(pa.float64(), safe=False)
    numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
    if kind == "int64":
        whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), _told_apart(numbers, given))
        return pc.if_else(whole, numbers, None).cast(pa.int64())
    if kind == "bool":
        one = pc.equal(numbers, 1.0)
        return pc.if_else(pc.or_(one, pc.equal(numbers, 0.0)), one, None)
    return numbers


def _told_apart(whole: pa.Array, kind: pa.DataType) -> pa.Array:
    """Say which whole numbers a type of float tells from their neighbours."""
    limit = _AMBIGUOUS_FROM[kind]
    return pc.and_(pc.greater(whole, -limit), pc.less(whole, limit))


def _whole_of_decimals(array: pa.Array) -> pa.Array:
    """Return the whole ones among decimals as they are, digit by digit; null: a fraction, or beyond 64 bits."""
    wide = array.cast(pa.decimal256(76, array.type.scale))
    whole = pc.if_else(pc.equal(wide, pc.trunc(wide)), wide, None).cast(_INT64)
    low, high = (pa.scalar(Decimal(bound), _INT64) for bound in (-(2**63), 2**63 - 1))
    return pc.if_else(pc.and_(pc.greater_equal(whole, low), pc.less_equal(whole, high)), whole, None).cast(pa.int64())
