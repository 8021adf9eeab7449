r"""Training rows as gzip CSV, for trainers that bring nothing but a standard library.

It is as exact as Parquet, as these rules leave no value open to guessing; equal rows give equal bytes:

- UTF-8, a header line, commas, lines end with ``\n``, texts in double quotes. NULL is the empty field.
- A text that is empty or begins with a backslash carries one backslash in front; a reader takes it away again.
- Whole numbers in decimal; flags as ``0`` and ``1``; floating-point numbers in the shortest form that gives the same
  double again, also ``nan``, ``inf`` and ``-inf``.
- Times as ``2026-03-04T05:06:07.000008``, in UTC; dates as ``2026-03-04``.
"""

import gzip
import io
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.types as types

from windsock.column_types import arrow_schema
from windsock.errors import SpecError


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
    kinds = csv_columns(rows)
    texts = [_text(rows.column(name), name, kind) for name, kind in kinds.items()]
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(dict(zip(kinds, texts, strict=True))), buffer)
    # Without a time of writing in its header, the file depends on the rows alone.
    return gzip.compress(buffer.getvalue(), compresslevel=6, mtime=0)


def csv_table(data: bytes, columns: Mapping[str, str]) -> pa.Table:
    """Read rows back, as a trainer that has Arrow would."""
    rows = pyarrow.csv.read_csv(
        io.BytesIO(gzip.decompress(data)),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=arrow_schema(columns.items()),
            null_values=[""],
            true_values=["1"],
            false_values=["0"],
            strings_can_be_null=True,
        ),
    )
    for index, name in enumerate(rows.column_names):
        if columns[name] == "string":
            plain = pc.replace_substring_regex(rows.column(name), pattern=r"\A\\", replacement="")
            rows = rows.set_column(index, name, plain)
    return rows


def _kind(name: str, kind: pa.DataType) -> str:
    fits: dict[str, Callable[[pa.DataType], bool]] = {
        "int64": types.is_integer,
        "double": types.is_floating,
        "bool": types.is_boolean,
        "string": lambda t: types.is_string(t) or types.is_large_string(t),
        "timestamp": types.is_timestamp,
        "date": types.is_date,
    }
    stored = kind.value_type if types.is_dictionary(kind) else kind
    for word, is_one in fits.items():
        if is_one(stored):
            return word
    raise SpecError(
        f"column {name!r} is of type {kind}, which training rows as CSV cannot hold. "
        "Give the estimator data: parquet, or cast the column in the view's SQL."
    )


def _text(column: pa.ChunkedArray, name: str, kind: str) -> pa.ChunkedArray:
    """Return a column as it stands in the file: texts, or numbers that Arrow writes exactly."""
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
