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
from windsock.days import end_of, start_of
from windsock.errors import SpecError
from windsock.features.view_sql import TIMESTAMP, entity_column, view_schema
from windsock.ledger import DayRecord, Ledger
from windsock.spec import ModelSpec
from windsock.spec.modelling import FeatureView
from windsock.store import Store

STAGE = "features"

_ENTITY_TYPES = ("int64", "string")
_FEATURE_TYPES = tuple(SQL_TYPES.values())

Records = Mapping[date, DayRecord]

_pinned: ContextVar[Mapping[str, Records] | None] = ContextVar("windsock_pinned_features", default=None)


@dataclass(frozen=True)
class FeatureTable:
    """One view's table of features."""

    model: str
    view: str
    entity: str | None
    """Column of the entity; None for a view without one."""
    columns: tuple[tuple[str, str], ...]
    """Name and DuckDB type of every column: entity (if any), ``event_timestamp``, features."""
    ttl: timedelta | None
    """Age from which a value is not used any more; None: never."""

    @property
    def name(self) -> str:
        """Name of the table in ``DayRecord.outputs``."""
        return table_name(self.view)

    @property
    def feast_name(self) -> str:
        """Name of the Feast feature view and of its source."""
        return feast_name(self.model, self.view)

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


def table_name(view: str) -> str:
    """Return the name of a view's table in ``DayRecord.outputs``."""
    return f"features/{view}"


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
    return FeatureTable(spec.name, view.name, entity, tuple(columns.items()), ttl)


@contextmanager
def pinned(model: str, records: Records) -> Iterator[None]:
    """Let :func:`feature_records` find exactly these records of one model, and nothing newer.

    Feast's calls have no argument for a version of the data; a training run makes them in here. The pin
    belongs to the calling thread or task alone.
    """
    token = _pinned.set({**(_pinned.get() or {}), model: dict(records)})
    try:
        yield
    finally:
        _pinned.reset(token)


def feature_records(store: Store, model: str, first: datetime | None, last: datetime | None) -> Records:
    """Return the feature records that touch ``[first, last]``: the pinned ones, or those in force now."""
    chosen = (_pinned.get() or {}).get(model)
    if chosen is not None:
        return days_within(chosen, first, last)
    ledger = Ledger(store, model, STAGE)
    days = days_within(dict.fromkeys(ledger.days()), first, last)
    return {day: record for day in days if (record := ledger.get(day)) is not None}


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
