"""The rows that a model sees: one per event, with what can be said of the event alone.

View features are joined to these rows point in time (see ``featurestore.retrieval``);
training and scoring use the same frame, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from windsock import tables
from windsock.errors import SpecError
from windsock.features.view_sql import TIMESTAMP, connect, plain_types, view_schema
from windsock.ledger import DayRecord
from windsock.spec import ModelSpec
from windsock.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


def event_frame(store: Store, spec: ModelSpec, records: Iterable[DayRecord]) -> pa.Table:
    """List the events of some days with their row features.

    Args:
        store: Where tables live.
        spec: The model.
        records: Ingest records of the days wanted.

    Returns:
        Columns: the key, ``event_timestamp``, every entity column, then the row features; rows in
        order of days, within a day as the events table has them. No rows: the same columns, empty.

    Raises:
        SpecError: A row expression does not run.
    """
    import duckdb

    rows = tables.read(store, records, "events")
    connection = connect()
    try:
        if rows is None:
            rows = _no_events(spec)
        connection.register("events", rows)
        columns = [spec.events.key, f"{spec.events.time} as {TIMESTAMP}", *sorted(set(spec.entities.values()))]
        columns += [f"({expression}) as {name}" for name, expression in spec.features.row.items()]
        # Row features may carry the name of a column of the events; the frame's own columns come first.
        return plain_types(connection.sql(f"select {', '.join(columns)} from events").to_arrow_table())
    except duckdb.Error as err:
        text = " ".join(str(err).split())
        raise SpecError(f"{spec.folder / 'model.yaml'}: features.row: an expression does not run: {text}") from err
    finally:
        connection.close()


def feature_names(spec: ModelSpec) -> list[str]:
    """List the model's inputs in order: row features, then the views' features.

    Raises:
        SpecError: Two features have the same name, or a view's SQL does not run.
    """
    names = list(spec.features.row)
    for view in spec.features.views:
        names += view_schema(spec, view)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise SpecError(
            f"{spec.folder / 'model.yaml'}: several features are named {', '.join(twice)}. "
            "Rename them in features.row or in the views' SQL."
        )
    return names


def _no_events(spec: ModelSpec) -> pa.Table:
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "double": pa.float64(),
        "string": pa.string(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us"),
        "date": pa.date32(),
    }
    return pa.schema([(c, types[t]) for c, t in spec.events.columns.items()]).empty_table()
