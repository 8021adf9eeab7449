"""DuckDB as Windsock uses it: one way to open it, one way to write a name, one way to read a query's tree.

Nothing else in the product connects to DuckDB, so what is closed here is closed everywhere.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from windsock.errors import SpecError


@contextmanager
def open_duckdb(
    *, threads: int = 2, memory_limit: str | None = None, ordered: bool = True
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory DuckDB that sees what is registered with it and nothing else, in UTC.

    It reads no files, no variables of Python, loads no extensions and spills to a folder of its own; SQL that runs in
    it cannot change any of that.

    Args:
        threads: Threads it may use.
        memory_limit: Most memory before it spills, for example ``1500MB``; None: DuckDB's default.
        ordered: Whether rows come out in the order they went in, which costs memory.
    """
    with tempfile.TemporaryDirectory(prefix="windsock-duckdb-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "temp_directory": spill,
            "preserve_insertion_order": ordered,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
        }
        if memory_limit is not None:
            config["memory_limit"] = memory_limit
        with duckdb.connect(config=config) as connection:
            connection.execute("set timezone = 'UTC'")
            # Not in the configuration: there it would forbid the folder to spill to as well.
            connection.execute("set enable_external_access = false")
            connection.execute("set lock_configuration = true")
            yield connection


def quoted(name: str) -> str:
    """Return a name as an SQL identifier, whatever signs it holds (DuckDB, SQLite, PostgreSQL)."""
    return '"' + name.replace('"', '""') + '"'


def query_text(sql: str) -> str:
    """Return a query without the semicolons and comments that end it, so that it can stand in parentheses."""
    text = sql.encode()  # tokens are placed by bytes
    stop = len(text)
    for start, kind in reversed(duckdb.tokenize(sql)):
        if "comment" not in str(kind).casefold() and text[start:stop].strip() != b";":
            break
        stop = start
    return text[:stop].decode().strip()


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
