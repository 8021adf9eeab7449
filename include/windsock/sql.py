"""DuckDB as Windsock uses it: one way to open it, and one way to write a name."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb


@contextmanager
def open_duckdb(
    *, threads: int = 2, memory_limit: str | None = None, ordered: bool = True
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory DuckDB that sees what is registered with it and nothing else, in UTC.

    It reads no files, loads no extensions and spills to a folder of its own.

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
        }
        if memory_limit is not None:
            config["memory_limit"] = memory_limit
        with duckdb.connect(config=config) as connection:
            connection.execute("set timezone = 'UTC'")
            # Not in the configuration: there it would forbid the folder to spill to as well.
            connection.execute("set enable_external_access = false")
            yield connection


def quoted(name: str) -> str:
    """Return a name as an SQL identifier, whatever signs it holds (DuckDB, SQLite, PostgreSQL)."""
    return '"' + name.replace('"', '""') + '"'
