"""DuckDB as Windsock uses it: one way to open it, one way to write a name, one way to read a query's tree.

Nothing else in the product connects to DuckDB, so what is closed here is closed everywhere.
"""

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from windsock.errors import SpecError

_databases: dict[tuple[object, ...], duckdb.DuckDBPyConnection] = {}
"""What it was opened with, to the database."""
# A child would wait at its end for threads that only its parent has.
os.register_at_fork(before=_databases.clear)


@contextmanager
def open_duckdb(
    *, threads: int = 2, memory_limit: str | None = None, ordered: bool = True
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory DuckDB that sees what is registered with it and nothing else, in UTC.

    It reads no files, no variables of Python, loads no extensions and spills to a folder of its own; SQL that runs in
    it cannot change any of that. To make a database takes 30 ms, a connection to it less than one: those of a process
    share one, and none sees the temporary tables, or what was registered, of another.

    Args:
        threads: Threads it may use.
        memory_limit: Most memory before it spills, for example ``1500MB``; None: DuckDB's default.
        ordered: Whether rows come out in the order they went in, which costs memory.
    """
    kind = (threads, memory_limit, ordered)
    if kind not in _databases or not _answers(_databases[kind]):
        _databases[kind] = _database(threads, memory_limit, ordered=ordered)
    with _databases[kind].cursor() as connection:
        yield connection


def _database(threads: int, memory_limit: str | None, *, ordered: bool) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "temp_directory": _spill_folder(),
        "preserve_insertion_order": ordered,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allow_persistent_secrets": False,
        "python_enable_replacements": False,
    }
    if memory_limit is not None:
        config["memory_limit"] = memory_limit
    database = duckdb.connect(config=config)
    database.execute("set global timezone = 'UTC'")
    # Not in the configuration: there it would forbid the folder to spill to as well.
    database.execute("set enable_external_access = false")
    database.execute("set lock_configuration = true")
    return database


def _answers(database: duckdb.DuckDBPyConnection) -> bool:
    """Say whether a database is well: one that met an error inside DuckDB refuses everything from then on."""
    try:
        database.execute("select 1")
    except duckdb.Error:
        return False
    return True


def _spill_folder() -> str:
    """Return a folder that this user alone can read; DuckDB's processes share it and remove what they leave."""
    folder = Path(tempfile.gettempdir(), f"windsock-duckdb-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return str(folder)
    return tempfile.mkdtemp(prefix="windsock-duckdb-")  # somebody else was quicker to take the name


def quoted(name: str) -> str:
    """Return a name as an SQL identifier, whatever signs it holds (DuckDB, SQLite, PostgreSQL)."""
    return '"' + name.replace('"', '""') + '"'


def tokens(sql: str) -> list[tuple[str, bool]]:
    """Cut SQL as DuckDB does: each token with the blanks that follow it, and whether it is a comment."""
    text = sql.encode()  # tokens are placed by bytes
    found = duckdb.tokenize(sql)
    stops = [*(start for start, _ in found[1:]), len(text)]
    return [
        (text[start:stop].decode(), "comment" in str(kind).casefold())
        for (start, kind), stop in zip(found, stops, strict=False)
    ]


def query_text(sql: str) -> str:
    """Return a query without the semicolons and comments that end it, so that it can stand in parentheses."""
    parts = tokens(sql)
    while parts and (parts[-1][1] or parts[-1][0].strip() == ";"):
        parts.pop()
    return "".join(text for text, _ in parts).strip()


def parse_query(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """Return the tree of one query, as DuckDB's own parser reads it.

    Raises:
        SpecError: The text does not parse, is no query, or more than one statement.
    """
    [(serialized,)] = connection.execute("select json_serialize_sql($1::varchar)", [sql]).fetchall()
    parsed: dict[str, Any] = json.loads(serialized)
    if parsed["error"]:
        message = " ".join(str(parsed.get("error_message", "it does not parse")).split())
        raise SpecError(message if "SELECT" not in message else "give one SELECT; nothing else may be run here.")
    statements = parsed["statements"]
    if len(statements) != 1:
        raise SpecError(f"give one SELECT; there are {len(statements)} statements.")
    node: dict[str, Any] = statements[0]["node"]
    return node


def tree_nodes(tree: object) -> Iterator[dict[str, Any]]:
    """Yield every node of a parsed query."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
