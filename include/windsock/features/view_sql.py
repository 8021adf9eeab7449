"""One feature view for one day, by the model's own SQL on DuckDB.

The SQL sees three tables and nothing else: ``events``, ``labels`` and ``history``
(events with their label, NULL while it is unknown). All hold only what was known by the
end of the day, so look-ahead is impossible whatever the SQL says.
"""

from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from windsock.column_types import SQL_TYPES
from windsock.days import end_of, last_instant, start_of
from windsock.errors import SpecError
from windsock.spec import ModelSpec
from windsock.spec.columns import label_type
from windsock.spec.modelling import FeatureView
from windsock.sql import open_duckdb

TIMESTAMP = "event_timestamp"


def compute_view(
    spec: ModelSpec, view: FeatureView, events: pa.Table | None, labels: pa.Table | None, day: date
) -> pa.Table:
    """Compute a view's rows of one day.

    Args:
        spec: The model.
        view: One of its feature views.
        events: Rows of table ``events`` over the view's lookback and the day; None: no rows.
        labels: Rows of table ``labels`` that may be known by then; None: no rows.
        day: The day whose rows are wanted.

    Returns:
        One row per entity and event time of that day: the entity's column (if the view has one),
        ``event_timestamp``, then the features, ordered by time and entity.

    Raises:
        SpecError: The SQL fails, or gives two different rows for one entity and time.
    """
    entity = entity_column(spec, view)
    try:
        with open_duckdb() as connection:
            _create_tables(connection, spec, events, labels, day)
            names = [name for name, _ in _columns(connection, spec, view)]
            order = ", ".join(filter(None, (TIMESTAMP, entity)))
            rows = connection.sql(
                f"select distinct {', '.join(names)} from ({_sql(spec, view)}) "
                f"where {TIMESTAMP} >= $start and {TIMESTAMP} < $stop order by {order}",
                params={"start": start_of(day), "stop": end_of(day)},
            ).to_arrow_table()
    except Exception as err:
        raise _explained(spec, view, err) from err
    _one_row_each(spec, view, rows, [n for n in (entity, TIMESTAMP) if n])
    return plain_types(rows)


def view_schema(spec: ModelSpec, view: FeatureView) -> dict[str, str]:
    """Return a view's feature columns and their DuckDB types, by running its SQL on empty tables.

    Raises:
        SpecError: The SQL does not run, lacks the entity or ``event_timestamp``, or has no feature.
    """
    try:
        with open_duckdb() as connection:
            _create_tables(connection, spec, None, None, None)
            columns = _columns(connection, spec, view)
    except Exception as err:
        raise _explained(spec, view, err) from err
    skip = {TIMESTAMP, entity_column(spec, view)}
    return {name: _plain_type(kind) for name, kind in columns if name not in skip}


def entity_column(spec: ModelSpec, view: FeatureView) -> str | None:
    """Return the column of a view's entity, or None for a view without one."""
    return spec.entities[view.entity] if view.entity is not None else None


def table_name(view: str) -> str:
    """Return the name of a view's table in ``DayRecord.outputs``."""
    return f"features/{view}"


def _sql(spec: ModelSpec, view: FeatureView) -> str:
    return spec.sql_of(view).strip().rstrip(";")


def _columns(connection: duckdb.DuckDBPyConnection, spec: ModelSpec, view: FeatureView) -> list[tuple[str, str]]:
    described = connection.execute(f"describe ({_sql(spec, view)})").fetchall()
    columns = [(str(row[0]), str(row[1])) for row in described]
    names = [name for name, _ in columns]
    needed = [n for n in (entity_column(spec, view), TIMESTAMP) if n]
    missing = [n for n in needed if n not in names]
    if missing:
        raise SpecError(f"it gives no column {' and '.join(missing)}. It gives: {', '.join(names)}")
    if spec.label.column in names:
        raise SpecError(f"it gives the label {spec.label.column!r} itself as a feature: that leaks the answer")
    if len(names) == len(needed):
        raise SpecError(f"it gives no feature beside {', '.join(needed)}")
    head = {n: i for i, n in enumerate(needed)}
    return sorted(columns, key=lambda c: head.get(c[0], len(head)))


def _create_tables(
    connection: duckdb.DuckDBPyConnection,
    spec: ModelSpec,
    events: pa.Table | None,
    labels: pa.Table | None,
    day: date | None,
) -> None:
    """Make ``events``, ``labels`` and ``history`` as known by the end of ``day``."""
    columns = {**{c: SQL_TYPES[t] for c, t in spec.events.columns.items()}, "known_at": "TIMESTAMP"}
    key = spec.events.key
    label_columns = {
        key: columns[key],
        spec.label.column: SQL_TYPES[label_type(spec)],
        "event_time": "TIMESTAMP",
        "known_at": "TIMESTAMP",
    }
    for name, rows, types in (("events", events, columns), ("labels", labels, label_columns)):
        if rows is None:
            empty = ", ".join(f"null::{kind} as {column}" for column, kind in types.items())
            connection.execute(f"create temp table {name} as select {empty} where false")
            continue
        connection.register(f"all_{name}", rows)
        wanted = ", ".join(f"{column}::{kind} as {column}" for column, kind in types.items())
        connection.execute(
            f"create temp table {name} as select {wanted} from all_{name} where known_at <= $known",
            {"known": last_instant(day) if day is not None else None},
        )
    # A label may be delivered twice (a correction); the latest that was known by then is in force.
    connection.execute(
        f"create temp view history as select e.*, l.{spec.label.column} from events e left join "
        f"(select {key}, arg_max({spec.label.column}, known_at) as {spec.label.column} from labels group by {key}) l "
        f"using ({key})"
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


def _explained(spec: ModelSpec, view: FeatureView, err: Exception) -> Exception:
    if isinstance(err, SpecError):
        return SpecError(f"{spec.folder / view.sql}: view {view.name!r}: {err}.")
    if isinstance(err, duckdb.Error) and not isinstance(err, duckdb.OutOfMemoryException | duckdb.IOException):
        text = " ".join(str(err).split())
        return SpecError(f"{spec.folder / view.sql}: the SQL of view {view.name!r} does not run: {text}")
    return err


def _plain_type(kind: str) -> str:
    """Map a DuckDB type to the few that tables and models use."""
    if kind in {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}:
        return "BIGINT"
    if kind.startswith("DECIMAL") or kind in {"FLOAT", "DOUBLE"}:
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
