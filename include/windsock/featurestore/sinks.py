"""Where materialized rows go: the embedded online store directly, or any store through Feast.

Both offer the same few operations on columns, so that the step and the parity check need
not know which store is configured. The embedded one imports no Feast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Protocol

from windsock.featurestore.cells import entity_keys, entity_value
from windsock.featurestore.feast_import import import_feast
from windsock.featurestore.feature_tables import FeatureTable
from windsock.featurestore.online_db import OnlineDb, OnlineRow
from windsock.featurestore.online_rows import Entity, Observed, OnlineRows
from windsock.featurestore.repo import embedded_online_path, raw_config
from windsock.settings import Settings


class Sink(Protocol):
    """An online store, as far as materializing needs it."""

    resolution_us: int
    """Steps in which the store tells times apart, in microseconds."""

    @contextmanager
    def day(self) -> Iterator[None]:
        """Write within one transaction, where the store has such a thing."""

    def write(self, table: FeatureTable, rows: OnlineRows, *, regardless_of_time: bool) -> int:
        """Write rows that are not older than what is stored; return how many are different now."""

    def delete(self, table: FeatureTable, entities: Sequence[Entity]) -> int:
        """Remove entities."""

    def read(self, table: FeatureTable, entities: Sequence[Entity]) -> dict[Entity, OnlineRow]:
        """Return what is served for these entities."""

    def entities_between(self, table: FeatureTable, first_us: int, stop_us: int) -> list[Entity]:
        """List entities whose stored time lies in ``[first, stop)``, where the store can tell."""

    def note_day(self, table: FeatureTable, day: date, content_hash: str) -> None:
        """Note which version of a day was written, where the store can."""

    def observe(self, table: FeatureTable, entities: Sequence[Entity]) -> Observed:
        """Return what is served for these entities and which versions it was written from, at one moment."""


class EmbeddedSink:
    """The embedded online store, without Feast in between."""

    resolution_us = 1

    def __init__(self, db: OnlineDb, project: str) -> None:
        self._db, self._project = db, project

    def _name(self, table: FeatureTable) -> str:
        return f"{self._project}_{table.feast_name}"

    @contextmanager
    def day(self) -> Iterator[None]:
        """Write a whole day in one transaction: a kill leaves all of it or nothing."""
        with self._db.writing():
            yield

    def prepare(self, tables: Sequence[FeatureTable]) -> None:
        """Make sure that the views' tables exist; outside :meth:`day`."""
        for table in tables:
            self._db.create(self._name(table), table.features)

    def write(self, table: FeatureTable, rows: OnlineRows, *, regardless_of_time: bool) -> int:
        """Write rows that are not older than what is stored; the database compares."""
        keys = entity_keys(table.entity, rows.entities)
        cells = ((key, micros, *values) for key, micros, values in zip(keys, rows.micros, rows.values, strict=True))
        return self._db.upsert(self._name(table), table.features, cells, regardless_of_time=regardless_of_time)

    def delete(self, table: FeatureTable, entities: Sequence[Entity]) -> int:
        """Remove entities."""
        return self._db.delete(self._name(table), entity_keys(table.entity, entities))

    def read(self, table: FeatureTable, entities: Sequence[Entity]) -> dict[Entity, OnlineRow]:
        """Return what is served for these entities."""
        keys = entity_keys(table.entity, entities)
        found = self._db.read(self._name(table), table.features, keys)
        return {entity: found[key] for entity, key in zip(entities, keys, strict=True) if key in found}

    def entities_between(self, table: FeatureTable, first_us: int, stop_us: int) -> list[Entity]:
        """List entities whose stored time lies in ``[first, stop)``."""
        keys = self._db.keys_between(self._name(table), first_us, stop_us)
        return [entity_value(table.entity, key) for key in keys]

    def note_day(self, table: FeatureTable, day: date, content_hash: str) -> None:
        """Note which version of a day was written, in the same transaction as its rows."""
        self._db.note_day(self._name(table), day, content_hash)

    def observe(self, table: FeatureTable, entities: Sequence[Entity]) -> Observed:
        """Return what is served for these entities and which versions it was written from, at one moment."""
        with self._db.snapshot():
            return Observed(self.read(table, entities), self._db.noted_days(self._name(table)))


def open_sink(settings: Settings, tables: Sequence[FeatureTable]) -> Sink:
    """Return the configured online store, ready for these views.

    Raises:
        SpecError: The configuration is wrong, or a store other than the embedded one lacks a view.
        UpstreamUnavailable: The store cannot be reached.
    """
    path = embedded_online_path(settings)
    if path is None:
        import_feast()
        from windsock.featurestore.feast_sink import FeastSink

        return FeastSink(settings)
    config = raw_config(settings)
    db = OnlineDb(path, float(config["online_store"].get("busy_timeout_s", 60.0)))
    sink = EmbeddedSink(db, config["project"])
    sink.prepare(tables)
    return sink
