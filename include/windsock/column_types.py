"""The column types that a spec may declare, and what each is called in Arrow and in DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

_TYPES = {
    "int64": (pa.int64(), "BIGINT"),
    "double": (pa.float64(), "DOUBLE"),
    "string": (pa.string(), "VARCHAR"),
    "bool": (pa.bool_(), "BOOLEAN"),
    "timestamp": (pa.timestamp("us"), "TIMESTAMP"),
    "date": (pa.date32(), "DATE"),
}
ARROW_TYPES: Mapping[str, pa.DataType] = MappingProxyType({name: arrow for name, (arrow, _) in _TYPES.items()})
"""Declared type to Arrow's."""
SQL_TYPES: Mapping[str, str] = MappingProxyType({name: sql for name, (_, sql) in _TYPES.items()})
"""Declared type to DuckDB's."""
_BY_ANY_NAME = {**ARROW_TYPES, **{sql: ARROW_TYPES[name] for name, sql in SQL_TYPES.items()}}
_WIDER = {(ARROW_TYPES["int64"], ARROW_TYPES["double"]), (ARROW_TYPES["date"], ARROW_TYPES["timestamp"])}
"""A stored type, and the one that it may be read as."""


def arrow_schema(columns: Iterable[tuple[str, str]]) -> pa.Schema:
    """Return the Arrow schema of columns given by name and type, declared (``int64``) or DuckDB's (``BIGINT``)."""
    return pa.schema([(name, _BY_ANY_NAME[kind]) for name, kind in columns])


def declared_name(kind: pa.DataType) -> str:
    """Return what a spec calls an Arrow type, or Arrow's own name for one that no spec can declare."""
    return next((name for name, arrow in ARROW_TYPES.items() if arrow == kind), str(kind))


def widens(stored: pa.DataType, offered: pa.DataType) -> bool:
    """Say whether a column can be read as another type without loss: the same, or a wider one."""
    return stored == offered or (stored, offered) in _WIDER


def to_pandas(rows: pa.Table) -> pd.DataFrame:
    """Return rows as pandas, whole numbers and truth values as such also where some are null."""
    import pandas as pd

    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    return pd.DataFrame(
        {
            name: column.to_pandas(types_mapper=nullable.get if column.null_count else None)
            for name, column in zip(rows.column_names, rows.columns, strict=True)
        }
    )
