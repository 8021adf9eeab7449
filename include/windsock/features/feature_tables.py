"""The tables of a model's feature views: what they are called, what they hold, and reading them.

A view's columns and types come from running its SQL on empty tables, not from files, so
that a day written before a column existed reads as NULL there and an empty table still
has its types.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from windsock import tables
from windsock.column_types import SQL_TYPES, arrow_schema
from windsock.completeness import settled_days
from windsock.days import end_of, start_of
from windsock.errors import SpecError
from windsock.features.carry_over import carry_over
from windsock.features.definition import STAGE, definition_hash, known_mark, reads_labels
from windsock.features.view_sql import TIMESTAMP, entity_column, view_schema
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.modelling import FeatureView
from windsock.store import Store

_ENTITY_TYPES = ("int64", "string")
_FEATURE_TYPES = tuple(SQL_TYPES.values())

Records = Mapping[date, DayRecord]
FeatureRecords = Mapping[str, Records]
"""Table name (see ``FeatureTable.name``) to its days."""

_pinned: ContextVar[Mapping[str, FeatureRecords] | None] = ContextVar("windsock_pinned_features", default=None)


@dataclass(frozen=True)
class FeatureTable:
    """The table of one definition of a view."""

    model: str
    view: str
    definition: str
    """SHA-256 of what its rows mean (see ``definition``)."""
    entity: str | None
    """Column of the entity; None for a view without one."""
    columns: tuple[tuple[str, str], ...]
    """Name and DuckDB type of every column: entity (if any), ``event_timestamp``, features."""
    ttl: timedelta | None
    """Age from which a value is not used any more; None: never."""
    lookback_days: int
    sql: str
    """Text of the view."""
    known: str | None
    """When labels become known, if the view reads them."""

    @property
    def name(self) -> str:
        """Name of the table in ``DayRecord.outputs``, and of its stage of the ledger."""
        return f"{STAGE}/{self.short_name}"

    @property
    def short_name(self) -> str:
        """Name without the common first part: ``<view>@<8 digits>``."""
        return f"{self.view}@{self.definition[:8]}"

    @property
    def feast_name(self) -> str:
        """Name of the Feast feature view and of its source; Feast keeps the ttl with the view, so it is part of it."""
        name = f"{feast_name(self.model, self.view)}__{self.definition[:8]}"
        return name if self.ttl is None else f"{name}__{self.ttl.days}d"

    def ledger(self, store: Store) -> Ledger:
        """Return the table's day records, those that version 0.1 wrote of the same text included."""
        ledger = Ledger(store, self.model, self.name)
        carry_over(ledger, self.view, self.sql, self.lookback_days, self.known)
        return ledger

    @property
    def features(self) -> tuple[str, ...]:
        """Feature columns, in the order of the SQL."""
        return tuple(name for name, _ in self.columns if name not in (self.entity, TIMESTAMP))

    @property
    def schema(self) -> pa.Schema:
        """Every column with its Arrow type."""
        return arrow_schema(self.columns)

    def open(self, store: Store, records: Iterable[DayRecord]) -> ds.Dataset | None:
        """Open the rows of some days, or return None if there are none; a column that a file lacks reads as NULL."""
        return tables.open_dataset(store, records, self.name, self.schema)

    def read(
        self, store: Store, records: Iterable[DayRecord], entities: Sequence[int | str | None] | None = None
    ) -> pa.Table:
        """Read the rows of some days, of all entities or of those given, in order of time."""
        chosen = None
        if self.entity is not None and entities is not None:
            chosen = ds.field(self.entity).isin(pa.array(entities, self.schema.field(self.entity).type))
        dataset = self.open(store, records) if entities is None or entities else None
        rows = dataset.to_table(filter=chosen) if dataset is not None else self.schema.empty_table()
        return rows.sort_by(TIMESTAMP)

    def latest(self, rows: pa.Table) -> pa.Table:
        """Keep the last row of each entity, of rows in order of time."""
        return latest_rows(rows, [self.entity] if self.entity is not None else [])


def settled_features(settings: Settings, spec: ModelSpec, first: date, last: date) -> FeatureRecords:
    """Return the records of every view's table from ``first`` to ``last``, once all of those days are settled.

    Raises:
        NotReady: Some of the days have no record yet; the message lists them.
    """
    store = Store.of(settings)
    found: dict[str, Records] = {}
    for table in feature_tables(spec):
        table.ledger(store)  # days of version 0.1 are found
        found[table.name] = settled_days(settings, spec, table.name, first, last)
    return found


def feast_name(model: str, part: str) -> str:
    """Return the name that Feast knows a model's view or entity by."""
    return f"{model}__{part}"


def feature_tables(spec: ModelSpec) -> list[FeatureTable]:
    """Describe every view's table, in the order of the spec.

    Raises:
        SpecError: A view's SQL does not run, or gives a type that Feast cannot hold.
    """
    return [feature_table(spec, view) for view in spec.features.views]


def feature_table(spec: ModelSpec, view: FeatureView) -> FeatureTable:
    """Describe one view's table; see :func:`feature_tables`."""
    entity = entity_column(spec, view)
    columns = {TIMESTAMP: "TIMESTAMP"}
    if entity is not None:
        declared = spec.events.columns[entity]
        if declared not in _ENTITY_TYPES:
            raise SpecError(
                f"{spec.folder / 'model.yaml'}: view {view.name!r} looks rows up by {entity!r}, which is of type "
                f"{declared}. Use an entity column of type {' or '.join(_ENTITY_TYPES)}."
            )
        columns = {entity: SQL_TYPES[declared], **columns}
    for name, kind in view_schema(spec, view).items():
        columns[name] = "TIMESTAMP" if kind.startswith("TIMESTAMP") else kind
        if columns[name] not in _FEATURE_TYPES:
            raise SpecError(
                f"{spec.folder / view.sql}: view {view.name!r}: feature {name!r} is of type {kind}, which the feature "
                f"store cannot hold. Cast it in the SQL to one of {', '.join(_FEATURE_TYPES)}."
            )
    ttl = timedelta(days=view.ttl_days) if view.ttl_days is not None else None
    return FeatureTable(
        model=spec.name,
        view=view.name,
        definition=definition_hash(spec, view),
        entity=entity,
        columns=tuple(columns.items()),
        ttl=ttl,
        lookback_days=view.lookback_days,
        sql=spec.sql_of(view),
        known=known_mark(spec) if reads_labels(spec, view) else None,
    )


@contextmanager
def pinned(model: str, records: FeatureRecords) -> Iterator[None]:
    """Let :func:`days_of_table` find exactly these records of one model, and nothing newer.

    Feast's calls have no argument for a version of the data; a training run makes them in here. The pin
    belongs to the calling thread or task alone.
    """
    token = _pinned.set({**(_pinned.get() or {}), model: dict(records)})
    try:
        yield
    finally:
        _pinned.reset(token)


def days_of_table(store: Store, model: str, table: str, first: datetime | None, last: datetime | None) -> Records:
    """Return a table's records that touch ``[first, last]``: the pinned ones, or those in force now."""
    chosen = (_pinned.get() or {}).get(model)
    if chosen is not None:
        return days_within(chosen.get(table, {}), first, last)
    ledger = Ledger(store, model, table)
    days = days_within(dict.fromkeys(ledger.days()), first, last)
    return ledger.records(days)


def days_within(records: Mapping[date, Any], first: datetime | None, last: datetime | None) -> dict[date, Any]:
    """Keep the days that touch ``[first, last]``; None leaves that side open."""
    return {
        day: record
        for day, record in sorted(records.items())
        if (last is None or start_of(day) <= last) and (first is None or end_of(day) > first)
    }


def latest_rows(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Keep the last row of each key, of rows in order of time; without keys the last row of all."""
    if not keys:
        return rows.slice(max(rows.num_rows - 1, 0))
    numbered = rows.select(list(keys)).append_column("line", pa.array(np.arange(rows.num_rows)))
    last = numbered.group_by(list(keys)).aggregate([("line", "max")])["line_max"]
    return rows.take(last.take(pc.sort_indices(last)))
