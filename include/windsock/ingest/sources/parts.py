"""A folder of part files: what Spark and its like write for a day.

Names that begin with ``_`` or ``.`` are not data: marks, checksums, what is being written. Parts are taken in the order
of their names, and hold the same columns.
"""

from typing import Any

import pyarrow as pa

from windsock.ingest.sources.delivery import NotWhole
from windsock.ingest.sources.joined import join_rows
from windsock.ingest.sources.parse import Allowance, Format, Unreadable, format_of, parse
from windsock.ingest.sources.places import read_file

MARK = "_SUCCESS"
"""What says that a folder is whole, unless the spec names another mark."""
_BEING_WRITTEN = ("._copying_", ".tmp", ".part", ".filepart", ".inprogress")


def listed(fs: Any, path: str) -> list[dict[str, Any]]:
    """Return what the file system says of each part file, by name.

    Raises:
        NotWhole: One of them is being written.
        Unreadable: There are none, or there are further folders.
    """
    infos = sorted(fs.ls(path, detail=True), key=lambda info: str(info["name"]))
    found = [info for info in infos if (name := _name(info)) and not name.startswith(("_", "."))]
    if writing := [name for info in found if (name := _name(info)).lower().endswith(_BEING_WRITTEN)]:
        raise NotWhole(f"{path} is not whole yet: {writing[0]} is being written.")
    if folders := [_name(info) for info in found if info["type"] == "directory"]:
        raise Unreadable(
            f"the folder holds another folder, {folders[0]!r}, whose name may say what its rows do not. Deliver the "
            "part files of a day in one folder, with all columns in them."
        )
    if not found:
        raise Unreadable("the folder holds no part file. Deliver it again.")
    return found


def read_parts(fs: Any, path: str, given: Format | None, allowed: Allowance, shown: str) -> pa.Table:
    """Read all part files of a folder as one table.

    Raises:
        SpecError: The format is neither given nor told by their endings.
        Unreadable: A part cannot be read, or they do not fit together; or there is more than is allowed.
    """
    packed, tables, first = Allowance(allowed.max_bytes), list[pa.Table](), ""
    for info in listed(fs, path):
        name, raw = _name(info), read_file(fs, info["name"], packed)
        kind, compression = format_of(name, given)
        if not raw and kind == "csv":
            continue  # of a partition without rows
        try:
            rows = parse(raw, kind, compression, allowed)
        except Unreadable as err:
            raise Unreadable(f"{name}: {err}") from err
        first = first or name
        if tables and sorted(rows.column_names) != sorted(tables[0].column_names):
            odd = sorted({*rows.column_names} ^ {*tables[0].column_names}) or rows.column_names
            raise Unreadable(
                f"{name} has not the columns that {first} has (differing: {', '.join(map(repr, odd[:10]))}). Deliver "
                "all parts with the same columns."
            )
        in_order = tables and len({*rows.column_names}) == rows.num_columns
        tables.append(rows.select(tables[0].column_names) if in_order else rows)
    if not tables:
        raise Unreadable("all its part files are empty (0 bytes). Deliver it again.")
    return join_rows(tables)


def _name(info: dict[str, Any]) -> str:
    return str(info["name"]).rstrip("/").rpartition("/")[2]
