"""What feature SQL may not do, told from its text: read other rows, the clock, chance, files, or hide its names.

DuckDB itself says most of it: its parser gives the tree, a generated column takes functions of one row only, and its
list of functions says which give another answer at another time. Whether a view looks ahead is told from data
(``look_ahead``).
"""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import duckdb

from windsock.column_types import SQL_TYPES
from windsock.errors import SpecError
from windsock.features.view_sql import view_schema
from windsock.spec import ModelSpec
from windsock.spec.base import COLUMN_PATTERN
from windsock.spec.columns import event_columns
from windsock.spec.modelling import FeatureView
from windsock.sql import open_duckdb, parse_query, quoted, tree_nodes

_TABLES = frozenset({"events", "labels", "history"})
_VALUES = frozenset({"null", "true", "false"})
"""Names that DuckDB gives to columns without one, and that look like one."""
_TABLE_FUNCTIONS = frozenset({"generate_series", "range", "unnest"})
_WORDS = frozenset(
    {
        *("current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp"),
        *("current_user", "localtime", "localtimestamp", "session_user", "user"),
    }
)
"""Functions that SQL calls without brackets, unless there is a column of that name."""
_MISLABELLED = frozenset(
    {"current_localtime", "current_localtimestamp", "getenv", "reservoir_quantile", "version"}  # age(x): see below
)
"""Functions that DuckDB takes for constant."""


def row_sql(spec: ModelSpec, expression: str) -> str:
    """Return a row feature's SQL; the bare name of a column is that column, also if SQL has the word for itself."""
    name = expression.strip()
    return quoted(name) if name in spec.events.columns else expression


def row_faults(spec: ModelSpec) -> dict[str, str]:
    """Return the row features that are no functions of one event alone, each with the reason."""
    expressions = tuple(row_sql(spec, expression) for expression in spec.features.row.values())
    found = zip(spec.features.row, _row_faults(expressions, tuple(event_columns(spec).items())), strict=True)
    return {name: fault for name, fault in found if fault is not None}


@lru_cache(maxsize=256)
def _row_faults(expressions: tuple[str, ...], declared: tuple[tuple[str, str], ...]) -> list[str | None]:
    with open_duckdb() as connection:
        return [_row_fault(connection, sql, dict(declared)) for sql in expressions]


def _row_fault(connection: duckdb.DuckDBPyConnection, sql: str, declared: dict[str, str]) -> str | None:
    columns = ", ".join(f"{quoted(name)} {SQL_TYPES[kind]}" for name, kind in declared.items())
    try:
        node, plain = (parse_query(connection, f"select ({text}\n)") for text in (sql, "1"))
        items = node.pop("select_list", [])
        del plain["select_list"]
        if node != plain or len(items) != 1:
            return "it is more than one expression"
        if (moving := next(_moving_parts(items, set(declared)), None)) is not None:
            return moving
        # A generated column takes no window, aggregate, subquery or other row.
        connection.execute(f'create or replace temp table events ({columns}, "the feature" as ({sql}\n))')
    except (SpecError, duckdb.Error) as err:
        return f"{_first_part(err)}{_hint(list(declared), sql)}"
    return None


def view_faults(spec: ModelSpec, view: FeatureView) -> list[str]:
    """List what a view's SQL may not do and does.

    Raises:
        SpecError: It does not run.
    """
    with open_duckdb() as connection:
        try:
            node = parse_query(connection, spec.sql_of(view))
        except (SpecError, duckdb.Error) as err:
            return [_first_part(err)]
        nodes = list(tree_nodes(node))
        faults = [
            *_moving_parts(node, {*event_columns(spec), spec.label.column}),
            *_foreign_tables(connection, nodes),
            *_unnamed(node),
        ]
    kinds = {str(n.get("type", "")) for n in nodes}
    if "SHOW_REF" in kinds or any(kind.endswith("_QUERY_NODE") for kind in kinds):
        faults.append("it is more than a query: DESCRIBE, SHOW, SUMMARIZE and what writes tell nothing of events")
    if faults:
        return list(dict.fromkeys(faults))
    odd = [n for n in view_schema(spec, view) if not re.fullmatch(COLUMN_PATTERN, n) or n.casefold() in _VALUES]
    return [f"its column {n!r} has no name of letters, digits and _: write '... as name'" for n in odd[:1]]


def _moving_parts(tree: Any, columns: set[str]) -> Iterator[str]:
    """Say which parts of a tree give another answer at another time, by chance or elsewhere."""
    words = _WORDS - {name.casefold() for name in columns}
    for node in tree_nodes(tree):
        name = str(node.get("function_name") or "").casefold()
        if name in _moving_functions() or (name == "age" and len(node.get("arguments", ())) == 1):
            yield f"{name}() gives another answer at another time or place; use what the events say"
        if node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
            word = str(node["column_names"][0]).casefold()
            if word in words:
                yield f"{word} gives another answer at another time or place; use what the events say"
        if node.get("sample"):
            yield "a sample draws other rows each time"


@cache
def _moving_functions() -> frozenset[str]:
    """Return the functions that give other answers at other times, by DuckDB's own account, and macros over them."""
    with open_duckdb() as connection:
        moving = {
            str(name)
            for (name,) in connection.execute(
                "select distinct function_name from duckdb_functions() where stability <> 'CONSISTENT'"
            ).fetchall()
        } | _MISLABELLED
        macros = connection.execute(
            "select function_name, replace(lower(macro_definition), '(current', '( current') from duckdb_functions() "
            "where macro_definition is not null"
        ).fetchall()
    while True:
        called = moving - {"error"}  # the same error every time
        over = {n for n, text in macros if called & set(re.findall(r'\w+(?="?\()', text)) or _WORDS & set(text.split())}
        if over <= moving:
            return frozenset(moving)
        moving |= over


def _foreign_tables(connection: duckdb.DuckDBPyConnection, nodes: list[dict[str, Any]]) -> Iterator[str]:
    """Say what is read beside the three tables and the query's own common table expressions."""
    system = {str(n).casefold() for (n,) in connection.execute("select view_name from duckdb_views()").fetchall()}
    own = {str(entry["key"]).casefold() for n in nodes for entry in (n.get("cte_map") or {}).get("map", ())} - system
    for node in nodes:
        if node.get("type") == "BASE_TABLE":
            path = [str(part) for part in node["qualified_name"]["path"]]
            if len(path) > 1 or path[0].casefold() not in _TABLES | own:
                yield f"it reads {'.'.join(path)!r}; there are {', '.join(sorted(_TABLES))}"
        elif node.get("type") == "TABLE_FUNCTION":
            name = str(node["function"].get("function_name", ""))
            if name.casefold() not in _TABLE_FUNCTIONS:
                yield f"it reads {name}(); there are {', '.join(sorted(_TABLES))}"


def _unnamed(node: dict[str, Any]) -> Iterator[str]:
    """Say which columns a query gives without a name of their own."""
    while "select_list" not in node:  # the first part of a union names the columns
        node = node.get("left") or (node.get("children") or [{"select_list": []}])[0]
    for place, item in enumerate(node.get("select_list", ()), 1):
        if not item.get("alias") and item.get("class") not in ("COLUMN_REF", "STAR"):
            yield f"its column {place} has no name: write '... as name'"


def _first_part(err: Exception) -> str:
    return " ".join(str(err).partition("LINE 1:")[0].split())


def _hint(columns: list[str], sql: str) -> str:
    """Say that words of SQL need quotes, if the text holds one that is also a column."""
    named = [name for name in columns if re.search(rf'(?<!["\w]){name}(?!["\w])', sql)]
    with open_duckdb() as connection:
        taken = "select keyword_name from duckdb_keywords() where keyword_category in ('reserved', 'type_function')"
        words = {str(word) for (word,) in connection.execute(taken).fetchall()}
    clash = [name for name in named if name.casefold() in words]
    return f" Columns named like words of SQL are written in quotes: {', '.join(map(quoted, clash))}." if clash else ""
