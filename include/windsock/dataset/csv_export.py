r"""Training rows as gzip CSV, for trainers that bring nothing but a standard library.

Parquet is exact and small, but needs a library to read. This CSV is exact too, as these
rules leave no value open to guessing:

- UTF-8, a header line, commas, lines end with ``\n``, texts in double quotes.
- NULL is the empty field, in every column.
- A text that is empty or begins with a backslash carries one backslash in front, so the
  empty field is always NULL; a reader takes one leading backslash away again.
- Whole numbers in decimal; flags as ``0`` and ``1``; floating-point numbers in the
  shortest form that gives the same double again, also ``nan``, ``inf`` and ``-inf``.
- Times as ``2026-03-04T05:06:07.000008``, in UTC; dates as ``2026-03-04``.

The request names each column's kind (:func:`csv_columns`). Equal rows give equal bytes.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from windsock.errors import SpecError

if TYPE_CHECKING:
    import pyarrow as pa


def csv_columns(rows: pa.Table) -> dict[str, str]:
    """Return each column's kind: int64, double, bool, string, timestamp or date.

    Raises:
        SpecError: A column is of a type that the CSV has no rule for.
    """
    return {field.name: _kind(field.name, field.type) for field in rows.schema}


def csv_bytes(rows: pa.Table) -> bytes:
    """Return rows as gzip CSV by the rules of this module.

    Raises:
        SpecError: A column is of a type that the CSV has no rule for, or a time is finer than a microsecond.
    """
    import pyarrow as pa
    import pyarrow.csv

    kinds = csv_columns(rows)
    texts = [_text(rows.column(name), name, kind) for name, kind in kinds.items()]
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(dict(zip(kinds, texts, strict=True))), buffer)
    # Without a time of writing in its header, the file depends on the rows alone.
    return gzip.compress(buffer.getvalue(), compresslevel=6, mtime=0)


def csv_table(data: bytes, columns: Mapping[str, str]) -> pa.Table:
    """Read rows back, as a trainer that has Arrow would."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv

    known = {
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "string": pa.string(),
        "timestamp": pa.timestamp("us"),
        "date": pa.date32(),
    }
    rows = pyarrow.csv.read_csv(
        io.BytesIO(gzip.decompress(data)),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: known[kind] for name, kind in columns.items()},
            null_values=[""],
            true_values=["1"],
            false_values=["0"],
            strings_can_be_null=True,
        ),
    )
    for place, name in enumerate(rows.column_names):
        if columns[name] == "string":
            plain = pc.replace_substring_regex(rows.column(name), pattern=r"\A\\", replacement="")
            rows = rows.set_column(place, name, plain)
    return rows


def _kind(name: str, kind: Any) -> str:
    import pyarrow.types as types

    known = {
        "int64": types.is_integer(kind),
        "double": types.is_floating(kind),
        "bool": types.is_boolean(kind),
        "string": types.is_string(kind) or types.is_large_string(kind),
        "timestamp": types.is_timestamp(kind),
        "date": types.is_date(kind),
    }
    if types.is_dictionary(kind):
        return _kind(name, kind.value_type)
    found = [word for word, fits in known.items() if fits]
    if not found:
        raise SpecError(
            f"column {name!r} is of type {kind}, which training rows as CSV cannot hold. "
            "Give the estimator data: parquet, or cast the column in the view's SQL."
        )
    return found[0]


def _text(column: pa.ChunkedArray, name: str, kind: str) -> pa.ChunkedArray:
    """Return a column as it stands in the file: texts, or numbers that Arrow writes exactly."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind == "int64":
        return column
    if kind == "double":
        return column.cast(pa.float64())
    if kind == "bool":
        return column.cast(pa.int8())
    if kind == "date":
        return pc.strftime(column.cast(pa.date32()), format="%Y-%m-%d")
    if kind == "timestamp":
        try:
            micro = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.timestamp("us"))
        except pa.ArrowInvalid as err:
            raise SpecError(
                f"column {name!r} holds times finer than a microsecond, which training rows as CSV cannot hold: {err}. "
                "Give the estimator data: parquet."
            ) from err
        return pc.strftime(micro, format="%Y-%m-%dT%H:%M:%S")
    column = column.cast(pa.large_string())
    backslash, nothing = pa.scalar("\\", pa.large_string()), pa.scalar("", pa.large_string())
    guarded = pc.or_(pc.equal(column, nothing), pc.starts_with(column, "\\"))
    return pc.if_else(guarded, pc.binary_join_element_wise(backslash, column, nothing), column)
