"""How entity keys and feature values stand in the embedded online store.

Keys are Feast's own serialization (version 3), made directly from columns instead of one
protobuf object per row. Values are SQLite's own types; what SQLite cannot hold (NaN
would become NULL) gets a mark of its own.
"""

import math
import struct
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Cell = int | float | str | bytes | None
Entity = int | str | None
"""Value of a view's entity column; None for the only row of a view without an entity."""

NAN = b"nan"
"""Stands for NaN; no serialized Feast value begins with these bytes (their wire type does not exist)."""

NO_ENTITY_COLUMN = "__dummy_id"
"""Feast's join key for views without an entity; its value is the empty string."""

_STRING, _INT64 = 2, 4  # feast.types.ValueType
_EPOCH = datetime(1970, 1, 1)


def entity_keys(column: str | None, values: Sequence[Any]) -> list[bytes]:
    """Serialize the values of one entity column as Feast does, version 3.

    The values are whole numbers or strings, none of them None; without an entity column they are ignored.
    """
    name = (column or NO_ENTITY_COLUMN).encode()
    head = struct.pack("<III", 1, _STRING, len(name)) + name
    if column is None:
        return [head + struct.pack("<II", _STRING, 0)] * len(values)
    if values and isinstance(values[0], str):
        return [head + struct.pack("<II", _STRING, len(raw)) + raw for raw in (v.encode() for v in values)]
    pack = struct.Struct("<IIq").pack
    return [head + pack(_INT64, 8, value) for value in values]


def entity_value(column: str | None, key: bytes) -> int | str | None:
    """Return the entity that a key from :func:`entity_keys` stands for; None for a view without an entity."""
    if column is None:
        return None
    at = 12 + len(column.encode())
    kind, length = struct.unpack_from("<II", key, at)
    raw = key[at + 8 : at + 8 + length]
    return int(struct.unpack("<q", raw)[0]) if kind == _INT64 else raw.decode()


def column_cells(column: pa.ChunkedArray) -> list[Cell]:
    """Turn a feature column into cells; times become whole seconds, as Feast holds them."""
    if pa.types.is_temporal(column.type):
        micros = column.cast(pa.timestamp("us")).cast(pa.int64())
        return [None if v is None else v // 1_000_000 for v in micros.to_pylist()]
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        return [cell(v) for v in column.to_pylist()]
    cells: list[Cell] = column.to_pylist()
    return cells


def cell(value: float | str | datetime | date | None) -> Cell:
    """Turn one plain value into a cell."""
    if isinstance(value, float) and math.isnan(value):
        return NAN
    if isinstance(value, datetime):
        return micros_of(value) // 1_000_000
    if isinstance(value, date):
        return (value - _EPOCH.date()).days * 86_400
    return int(value) if isinstance(value, bool) else value


def micros_of(time: datetime) -> int:
    """Return microseconds since 1970 of a time in UTC without a zone."""
    delta = time - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
