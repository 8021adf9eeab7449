"""The rows that a model sees: one per event, with what can be said of the event alone.

View features are joined to these rows point in time (see ``featurestore.retrieval``);
training and scoring use the same frame, so that they cannot differ.
"""

import logging
from collections.abc import Iterable

import duckdb
import pyarrow as pa

from windsock import tables
from windsock.errors import SpecError
from windsock.features.sql_rules import row_faults, row_sql
from windsock.features.view_sql import TIMESTAMP, plain_types, view_schema
from windsock.ledger import DayRecord
from windsock.spec import ModelSpec
from windsock.sql import open_duckdb, quoted
from windsock.store import Store

log = logging.getLogger(__name__)


def event_frame(store: Store, spec: ModelSpec, records: Iterable[DayRecord], *, for_champion: bool = False) -> pa.Table:
    """List the events of some days, given by their ingest records, with their row features.

    A row feature that is not one of its own row is refused, or warned about for a champion: one of version 0.1 goes on.

    Returns:
        Columns: the key, ``event_timestamp``, every entity column, then the row features; rows in
        order of days, within a day as the events table has them. No rows: the same columns, empty.

    Raises:
        SpecError: A row expression does not run, or reads more than its row.
    """
    for name, fault in row_faults(spec).items():
        sentence = f"{spec.folder / 'model.yaml'}: features.row.{name}: {fault}"
        if not for_champion:
            raise SpecError(sentence)
        log.warning("%s", sentence)
    events = tables.read_events(store, spec, records)
    own = dict.fromkeys([spec.events.key, *sorted(set(spec.entities.values()))])
    columns = [quoted(column) for column in own]
    columns.insert(1, f"{quoted(spec.events.time)} as {TIMESTAMP}")
    columns += [f"({row_sql(spec, sql)}\n) as {quoted(name)}" for name, sql in spec.features.row.items()]
    try:
        with open_duckdb() as connection:
            connection.register("events", events)
            # Row features may carry the name of a column of the events; the frame's own columns come first.
            return plain_types(connection.sql(f"select {', '.join(columns)} from events").to_arrow_table())
    except duckdb.Error as err:
        text = " ".join(str(err).split())
        raise SpecError(f"{spec.folder / 'model.yaml'}: features.row: an expression does not run: {text}") from err


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
