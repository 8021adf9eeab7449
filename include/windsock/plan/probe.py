"""What the source delivers today for days that are published: is it the same? Asked before a source is exchanged."""

from collections.abc import Sequence
from datetime import date

import pyarrow as pa

from windsock import tables
from windsock.errors import WindsockError
from windsock.ingest.conform import conform
from windsock.ingest.late import is_late
from windsock.ingest.sources.delivery import fetch
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.columns import declared_columns, delivered_names, label_values
from windsock.sql import open_duckdb, quoted
from windsock.store import Store


def probe_source(settings: Settings, spec: ModelSpec, days: Sequence[date], count: int) -> list[str]:
    """Fetch the newest published days from the spec's source, and say how each differs from what is published."""
    ledger, said = Ledger.of(settings, spec.name, "ingest"), list[str]()
    equal = 0
    for day in reversed(days):
        record = ledger.get(day)
        if record is None or not record.rows("events"):
            continue
        try:
            differs = _differences(Store.of(settings), spec, record)
        except WindsockError as err:
            differs = [str(err)]
        equal += not differs
        said.append(f"source, {day}: {'; '.join(differs) or 'equal'}")
        if len(said) == count:
            break
    return [f"source: {equal} of {len(said)} published days are delivered as they were", *said]


def _differences(store: Store, spec: ModelSpec, record: DayRecord) -> list[str]:
    delivery = fetch(spec, record.day)
    if delivery.rows is None:
        return [delivery.problem or f"{delivery.name} cannot be read"]
    key = spec.events.key
    conformed = conform(
        delivery.rows,
        declared_columns(spec),
        sources=delivered_names(spec),
        ignore=spec.events.ignore,
        values=label_values(spec),
        zone=delivery.zone,
        key=key,
    )
    if conformed.rows is None:
        return list(conformed.problems)
    published = tables.read_events(store, spec, [record])
    if spec.label.files is None:
        labels = tables.read_labels(store, spec, [record]).select([key, spec.label.column])
        published = published.join(labels, key)
    rows = conformed.rows.filter(pa.array(~is_late(spec, record.day, conformed.rows)))
    return _compared(published, rows, key, record.rows("quarantine"))


def _compared(published: pa.Table, delivered: pa.Table, key: str, set_aside: int) -> list[str]:
    """Say which rows only one side has, by their keys, and in how many of the others each column differs."""
    name, said = quoted(key), list[str]()
    with open_duckdb() as connection:
        connection.register("published", published)
        connection.register("delivered", delivered)
        for there, other, what in (("published", "delivered", "no longer"), ("delivered", "published", "newly")):
            query = f"select count(*) from {there} anti join {other} using ({name})"
            [(rows,)] = connection.execute(query).fetchall()
            if rows:
                then = f" ({set_aside:,} rows were set aside then)" if set_aside and what == "newly" else ""
                said.append(f"{rows:,} rows {what} delivered{then}")
        for column in delivered.column_names:
            if column == key:
                continue
            differs = f"p.{quoted(column)} is distinct from d.{quoted(column)}"
            query = f"select count(*), count(*) filter ({differs}) from published p join delivered d using ({name})"
            [(rows, others)] = connection.execute(query).fetchall()
            if others:
                said.append(f"{column} differs in {others:,} of {rows:,} rows")
    return said
