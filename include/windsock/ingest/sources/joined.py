"""Rows of several files as one table: of part files, of two local days, of one delivery after the other."""

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.types as t

from windsock.ingest.sources.parse import Unreadable
from windsock.redact import redact_line


def join_rows(tables: Sequence[pa.Table], needed: Sequence[Collection[str]] = ()) -> pa.Table:
    """Put rows one after the other; a column that only some tables have is null in the others.

    Types may differ where no value changes by it: whole numbers beside floats, units of time, zones, and any type of a
    column without values.

    Args:
        tables: The rows.
        needed: Of each table, the columns that it may not lack if another has them.

    Raises:
        Unreadable: A column is of types that do not go together, or a needed one is missing.
    """
    names = {name for rows in tables for name in rows.column_names}
    for rows, some in zip(tables, needed, strict=False):
        if missing := sorted(names.intersection(some).difference(rows.column_names)):
            raise Unreadable(
                f"{', '.join(map(repr, missing))}: missing in some of its files (rule: every declared column is "
                "delivered), which would be null there without a word. Deliver all files with it."
            )
    try:
        alike = all(rows.schema.equals(tables[0].schema) for rows in tables)
        return pa.concat_tables(tables if alike else _typed_by_values(tables), promote_options="permissive")
    except pa.ArrowException as err:
        raise Unreadable(
            f"a column is not in the same type throughout ({redact_line(err)}). Deliver all files with the same types."
        ) from err


def _typed_by_values(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Return tables whose columns without values have no type where others have another: pandas calls no text float."""
    plain = [plain_types(rows) for rows in tables]
    kinds: dict[str, set[pa.DataType]] = {}
    for field in (field for rows in plain for field in rows.schema):
        kinds.setdefault(field.name, set()).add(field.type)
    for place, rows in enumerate(plain):
        for n, column in enumerate(rows.columns):
            if column.null_count == len(column) and len(kinds[name := rows.schema.names[n]]) > 1:
                rows = rows.set_column(n, name, pa.nulls(len(column)))
        plain[place] = rows
    return plain


def plain_types(rows: pa.Table) -> pa.Table:
    """Decode dictionaries, and name instants by UTC, as far as tables of different writers may differ in them."""
    for n, field in enumerate(rows.schema):
        if t.is_dictionary(field.type):
            kind = field.type.value_type
        elif t.is_timestamp(field.type) and field.type.tz is not None:
            kind = pa.timestamp(field.type.unit, "UTC")
        else:
            continue
        rows = rows.set_column(n, field.name, rows.column(n).cast(kind))
    return rows
