"""Rows of several files as one table: of part files, of two local days, of one delivery after the other."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.types as t

from windsock.ingest.sources.parse import Unreadable
from windsock.redact import redact_line


def join_rows(tables: Sequence[pa.Table]) -> pa.Table:
    """Put rows one after the other; a column that only some tables have is null in the others.

    Types may differ where no value changes by it: whole numbers beside floats, units of time, zones.

    Raises:
        Unreadable: A column is of types that do not go together.
    """
    try:
        return pa.concat_tables(map(_plain, tables) if len(tables) > 1 else tables, promote_options="permissive")
    except pa.ArrowException as err:
        raise Unreadable(
            f"a column is not in the same type throughout ({redact_line(err)}). Deliver all files with the same types."
        ) from err


def _plain(rows: pa.Table) -> pa.Table:
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
