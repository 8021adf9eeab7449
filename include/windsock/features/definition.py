"""What a view's rows mean, and their name: equal meaning, equal name, on every machine and for years.

A definition is a view's SQL in normal form, its entity's column, its lookback, the columns that it reads with their
types, and the features that it gives. Comments, layout, file names, ttl, owner, label delay and library versions do not
belong to it. Nothing of DuckDB's tree is hashed, as that differs between its releases; tokens do not.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache

import duckdb

from windsock.errors import SpecError
from windsock.features.sql_rules import row_sql
from windsock.features.view_sql import entity_column, view_schema
from windsock.spec import ModelSpec
from windsock.spec.columns import declared_columns, label_type
from windsock.spec.modelling import FeatureView
from windsock.sql import open_duckdb, parse_query, tokens, tree_nodes

FORMAT = 1
"""Counts up when Windsock itself changes what the same text computes: every name is a new one then."""

STAGE = "features"
"""First part of the names of ledger stages and tables of features."""

_WORD = re.compile(r"[A-Za-z_]\w*")


def table_name(spec: ModelSpec, view: FeatureView) -> str:
    """Return the name of a view's table and ledger stage, ``features/<view>@<8 digits of its definition>``."""
    return f"{STAGE}/{view.name}@{definition_hash(spec, view)[:8]}"


def definition_hash(spec: ModelSpec, view: FeatureView) -> str:
    """Return the SHA-256 of a view's definition; of a registered version's view, as it was frozen.

    Raises:
        SpecError: The SQL does not run.
    """
    if (frozen := spec.definitions.get(view.name)) is not None:
        return frozen
    reads = read_columns(spec, view)
    # Where SQL takes columns by their places (``*``, alias lists), their order is part of what it means.
    places = {"places": list(reads)} if _names_in(spec, view)[0] is None else {}
    return _digest(
        "view",
        spec.sql_of(view),
        reads,
        **places,
        entity=entity_column(spec, view),
        lookback_days=view.lookback_days,
        gives=[[name, kind] for name, kind in view_schema(spec, view).items()],
    )


def row_hash(spec: ModelSpec, name: str) -> str:
    """Return the SHA-256 of a row feature's definition: its expression and the columns that it reads."""
    return _digest("row", spec.features.row[name], row_columns(spec, name))


def row_columns(spec: ModelSpec, name: str) -> dict[str, str]:
    """Return the columns of the events that a row feature's expression can see, with their types."""
    expression = row_sql(spec, spec.features.row[name])
    return _typed(_reads(f"select ({expression}\n) from events")[0], spec.events.columns)


def read_columns(spec: ModelSpec, view: FeatureView) -> dict[str, str]:
    """Return the columns of the events, and the label, that a view's SQL can see, with their types."""
    columns = {**declared_columns(spec), spec.label.column: label_type(spec)}
    return _typed(_names_in(spec, view)[0], columns)


def columns_read(spec: ModelSpec) -> list[str]:
    """List the columns of events that any feature of a spec reads, in the order of the spec."""
    read = {name for view in spec.features.views for name in read_columns(spec, view)}
    for name in spec.features.row:
        read |= set(row_columns(spec, name))
    return [name for name in spec.events.columns if name in read]


def reads_labels(spec: ModelSpec, view: FeatureView) -> bool:
    """Say whether a view's rows depend on labels, or on when they became known."""
    names, tables = _names_in(spec, view)
    return "labels" in tables or names is None or spec.label.column.casefold() in names


def known_mark(spec: ModelSpec) -> str:
    """Return what says when a label becomes known: a fact, which no definition holds."""
    return "as delivered" if spec.label.files is not None else f"{spec.label.delay_days} days after the event"


def normal_form(sql: str) -> str:
    """Return SQL as DuckDB cuts it, without comments, joined by one space; words outside quotes in small letters."""
    # A byte order mark says nothing.
    parts = [text.strip() for text, is_comment in tokens(sql.removeprefix("\ufeff")) if not is_comment]
    return " ".join(part.lower() if _WORD.fullmatch(part) else part for part in parts).rstrip("; ")


def _digest(kind: str, sql: str, reads: Mapping[str, str], **rest: object) -> str:
    body = {"format": FORMAT, "kind": kind, "sql": normal_form(sql), "reads": dict(reads), **rest}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _names_in(spec: ModelSpec, view: FeatureView) -> tuple[frozenset[str] | None, frozenset[str]]:
    sql = spec.sql_of(view)
    try:
        return _reads(sql)
    except (SpecError, duckdb.Error) as err:
        raise SpecError(f"{spec.folder / view.sql}: view {view.name!r}: {' '.join(str(err).split())}") from err


def _typed(names: frozenset[str] | None, columns: Mapping[str, str]) -> dict[str, str]:
    return {name: kind for name, kind in columns.items() if names is None or name.casefold() in names}


@lru_cache(maxsize=512)
def _reads(sql: str) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Return the names that a query mentions as columns, None where it may see all of them, and the tables it reads."""
    with open_duckdb() as connection:
        nodes = list(tree_nodes(parse_query(connection, sql)))
    tables = {str(n["table_name"]).casefold() for n in nodes if n.get("type") == "BASE_TABLE"}
    rows = {
        str(n["alias"]).casefold() for n in nodes if "alias" in n and "sample" in n
    } | tables  # what stands in a FROM
    names: set[str] = set()
    for node in nodes:
        mentioned = [str(part).casefold() for part in node.get("column_names") or node.get("using_columns") or ()]
        hidden = (
            node.get("class") in ("STAR", "POSITIONAL_REFERENCE")
            or node.get("ref_type") == "NATURAL"
            or (node.get("type") == "BASE_TABLE" and node.get("column_name_alias"))
        )
        # A table's name as a value is its whole row; of several parts any may be the column, the rest its fields.
        if hidden or node.get("type") == "PIVOT" or (len(mentioned) == 1 and mentioned[0] in rows):
            return None, frozenset(tables)
        names.update(mentioned)
    return frozenset(names), frozenset(tables)
