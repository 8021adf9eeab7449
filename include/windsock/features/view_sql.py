"""One feature view for one day, by the model's own SQL on DuckDB.

The SQL sees three tables and nothing else: ``events``, ``labels`` and ``history``
(events with their label, NULL while it is unknown). All hold only what was known by the
end of the day, so no SQL can look beyond it; whether it looks ahead within the day is for ``look_ahead`` to find.
"""

from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from windsock.column_types import SQL_TYPES, arrow_schema
from windsock.days import end_of, last_instant, start_of
from windsock.errors import SpecError, listed
from windsock.spec import ModelSpec
from windsock.spec.columns import KNOWN_AT, event_columns, event_known_at, label_columns
from windsock.spec.modelling import FeatureView
from windsock.sql import open_duckdb, parse_query, query_text, quoted

TIMESTAMP = "event_timestamp"

Columns = tuple[tuple[str, str], ...]
"""Name and declared type of each column of a table."""


def compute_view(
    spec: ModelSpec, view: FeatureView, events: pa.Table | None, labels: pa.Table | None, day: date
) -> pa.Table:
    """Compute a view's rows of one day, from the events of its lookback and the labels that may be known by then.

    Returns:
        One row per entity and event time of that day: the entity's column (if the view has one),
        ``event_timestamp``, then the features, ordered by time and entity.

    Raises:
        SpecError: The SQL fails, or gives two different rows for one entity and time.
    """
    entity = entity_column(spec, view)
    try:
        with open_duckdb() as connection:
            create_tables(connection, spec, events, labels, day)
            rows = rows_of_day(connection, spec, view, day)
    except duckdb.Error as err:
        raise _explained(spec, view, err) from err
    _one_row_each(spec, view, rows, [n for n in (entity, TIMESTAMP) if n])
    return plain_types(rows)


def rows_of_day(connection: duckdb.DuckDBPyConnection, spec: ModelSpec, view: FeatureView, day: date) -> pa.Table:
    """Run a view's SQL over the tables of a connection and keep the rows of one day, in order of time and entity."""
    names = ", ".join(quoted(name) for name, _ in _columns(spec, view))
    order = ", ".join(quoted(name) for name in (TIMESTAMP, entity_column(spec, view)) if name)
    return connection.sql(
        f"select distinct {names} from ({_sql(spec, view)}\n) "
        f"where {TIMESTAMP} >= $start and {TIMESTAMP} < $stop order by {order}",
        params={"start": start_of(day), "stop": end_of(day)},
    ).to_arrow_table()


def view_schema(spec: ModelSpec, view: FeatureView) -> dict[str, str]:
    """Return a view's feature columns and their DuckDB types, by running its SQL on empty tables.

    Raises:
        SpecError: The SQL does not run, lacks the entity or ``event_timestamp``, or has no feature.
    """
    skip = {TIMESTAMP, entity_column(spec, view)}
    return {name: _plain_type(kind) for name, kind in _columns(spec, view) if name not in skip}


def entity_column(spec: ModelSpec, view: FeatureView) -> str | None:
    """Return the column of a view's entity, or None for a view without one."""
    return spec.entities[view.entity] if view.entity is not None else None


def _sql(spec: ModelSpec, view: FeatureView) -> str:
    return query_text(spec.sql_of(view))


def _columns(spec: ModelSpec, view: FeatureView) -> list[tuple[str, str]]:
    """Return name and type of what a view's SQL gives: entity and time first."""
    try:
        columns = _described(_sql(spec, view), _Inputs.of(spec))
    except (duckdb.Error, SpecError) as err:
        raise _explained(spec, view, err) from err
    names = [name for name, _ in columns]
    needed = [n for n in (entity_column(spec, view), TIMESTAMP) if n]
    where = f"{spec.folder / view.sql}: view {view.name!r}: it gives"
    if missing := [n for n in needed if n not in names]:
        raise SpecError(f"{where} no column {' and '.join(missing)}. It gives: {listed(names)}.")
    if spec.label.column in names:
        raise SpecError(f"{where} the label {spec.label.column!r} itself as a feature: that leaks the answer.")
    if len(names) == len(needed):
        raise SpecError(f"{where} no feature beside {', '.join(needed)}.")
    head = {n: i for i, n in enumerate(needed)}
    return sorted(columns, key=lambda c: head.get(c[0], len(head)))


@dataclass(frozen=True)
class _Inputs:
    """The columns of what a view's SQL reads."""

    events: Columns
    labels: Columns
    known_at: str
    """Column of ``events`` that says when each became known."""
    time: str
    """Column of ``events`` that says when each was."""

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        columns = tuple(event_columns(spec).items()), tuple(label_columns(spec).items())
        return cls(*columns, event_known_at(spec), spec.events.time)


@lru_cache(maxsize=256)
def _described(sql: str, inputs: _Inputs) -> list[tuple[str, str]]:
    with open_duckdb() as connection:
        parse_query(connection, sql)  # what comes next puts the text into brackets, which only a whole query may fill
        _create_tables(connection, inputs, None, None, None)
        return [(row[0], row[1]) for row in connection.execute(f"describe ({sql}\n)").fetchall()]


def create_tables(
    connection: duckdb.DuckDBPyConnection,
    spec: ModelSpec,
    events: pa.Table | None,
    labels: pa.Table | None,
    day: date,
) -> None:
    """Make ``events``, ``labels`` and ``history`` as known by the end of a day, in place of those that are there."""
    _create_tables(connection, _Inputs.of(spec), events, labels, last_instant(day))


def _create_tables(
    connection: duckdb.DuckDBPyConnection,
    inputs: _Inputs,
    events: pa.Table | None,
    labels: pa.Table | None,
    known: datetime | None,
) -> None:
    for name, rows, wanted, known_at in (
        ("events", events, inputs.events, inputs.known_at),
        ("labels", labels, inputs.labels, KNOWN_AT),
    ):
        connection.register("given", rows if rows is not None else arrow_schema(wanted).empty_table())
        picked = ", ".join(f"{quoted(column)}::{SQL_TYPES[kind]} as {quoted(column)}" for column, kind in wanted)
        connection.execute(
            f"create or replace temp table {name} as select {picked} from given where {quoted(known_at)} <= $known",
            {"known": known},
        )
        connection.unregister("given")  # it holds what was not known yet
    key, label, time = (quoted(name) for name, _ in inputs.labels[:3])
    # A label may be delivered twice (a correction); the latest that was known by then is in force. Of an event, and
    # not of every one with its key: ids may begin anew.
    connection.execute(
        f"create or replace temp view history as select e.*, l.{label} from events e left join "
        f"(select {key}, {time}, arg_max({label}, {KNOWN_AT}) as {label} from labels group by {key}, {time}) l "
        f"on e.{key} = l.{key} and e.{quoted(inputs.time)} = l.{time}"
    )


def _one_row_each(spec: ModelSpec, view: FeatureView, rows: pa.Table, keys: list[str]) -> None:
    groups = rows.select(keys).group_by(keys).aggregate([([], "count_all")])
    if groups.num_rows == rows.num_rows:
        return
    worst = groups.sort_by([("count_all", "descending")]).slice(0, 1).to_pylist()[0]
    twice = pc.sum(pc.greater(groups["count_all"], 1)).as_py()
    raise SpecError(
        f"{spec.folder / view.sql}: view {view.name!r} gives different rows for one {' and '.join(keys)} "
        f"({twice} cases, for example {', '.join(f'{k}={worst[k]}' for k in keys)}). Rows with equal keys must agree: "
        "use 'range' frames, which count ties together, or aggregate."
    )


def _explained(spec: ModelSpec, view: FeatureView, err: duckdb.Error | SpecError) -> Exception:
    if isinstance(err, duckdb.OutOfMemoryException | duckdb.IOException):
        return err
    text = " ".join(str(err).split())
    return SpecError(f"{spec.folder / view.sql}: the SQL of view {view.name!r} does not run: {text}")


def _plain_type(kind: str) -> str:
    """Map a DuckDB type to the few that tables and models use."""
    if kind in {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}:
        return "BIGINT"
    # The sum of whole numbers is a HUGEINT, of which Arrow gets a double.
    if kind.startswith("DECIMAL") or kind in {"FLOAT", "DOUBLE", "HUGEINT"}:
        return "DOUBLE"
    return kind


def plain_types(rows: pa.Table) -> pa.Table:
    """Cast columns to the few types that tables and models use: whole numbers, doubles, microseconds."""

    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_integer(kind):
            return pa.int64()
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return pa.float64()
        if pa.types.is_timestamp(kind):
            return pa.timestamp("us")
        return kind

    return rows.cast(pa.schema([(f.name, plain(f.type)) for f in rows.schema])).combine_chunks()
