"""Where materialized rows go: the embedded online store directly, or any store through Feast.

Both sinks offer the same operations, so that the step and the parity check need not know
which store is configured. The embedded one imports no Feast.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, TypeAlias

from windsock.featurestore.cells import Entity, entity_keys, entity_value
from windsock.featurestore.feast_import import import_feast
from windsock.featurestore.feature_tables import FeatureTable
from windsock.featurestore.online_db import OnlineDb, OnlineRow
from windsock.featurestore.repo import embedded_online_path, raw_config
from windsock.settings import Settings

if TYPE_CHECKING:
    from windsock.featurestore.feast_sink import FeastSink


class EmbeddedSink:
    """The embedded online store, without Feast in between."""

    resolution_us = 1
    """Steps in which the store tells times apart, in microseconds."""

    def __init__(self, db: OnlineDb, project: str, tables: Sequence[FeatureTable]) -> None:
        self._db, self._project = db, project
        for table in tables:
            db.create(self._name(table), table.features)

    def _name(self, table: FeatureTable) -> str:
        return f"{self._project}_{table.feast_name}"

    @contextmanager
    def day(self) -> Iterator[None]:
        """Write a whole day in one transaction: a kill leaves all of it or nothing."""
        with self._db.writing():
            yield

    def write(self, table: FeatureTable, rows: Mapping[Entity, OnlineRow], *, regardless_of_time: bool) -> int:
        """Write rows that are not older than what is stored; return how many are different now."""
        keys = entity_keys(table.entity, list(rows))
        cells = ((key, row.micros, *row.values) for key, row in zip(keys, rows.values(), strict=True))
        return self._db.upsert(self._name(table), table.features, cells, regardless_of_time=regardless_of_time)

    def delete(self, table: FeatureTable, entities: Sequence[Entity]) -> int:
        """Remove entities."""
        return self._db.delete(self._name(table), entity_keys(table.entity, entities))

    def read(self, table: FeatureTable, entities: Collection[Entity]) -> dict[Entity, OnlineRow]:
        """Return what is served for these entities."""
        keys = entity_keys(table.entity, list(entities))
        found = self._db.read(self._name(table), table.features, keys)
        return {entity: found[key] for entity, key in zip(entities, keys, strict=True) if key in found}

    def entities_between(self, table: FeatureTable, first_us: int, stop_us: int) -> list[Entity]:
        """List entities whose stored time lies in ``[first, stop)``."""
        keys = self._db.keys_between(self._name(table), first_us, stop_us)
        return [entity_value(table.entity, key) for key in keys]

    def note_day(self, table: FeatureTable, day: date, content_hash: str) -> None:
        """Note which version of a day was written, in the same transaction as its rows."""
        self._db.note_day(self._name(table), day, content_hash)

    def observe(
        self, table: FeatureTable, entities: Collection[Entity]
    ) -> tuple[dict[Entity, OnlineRow], Mapping[str, str] | None]:
        """Return at one moment what is served for these entities, and day to the version that was written last.

        A store that keeps no such note returns None in its place.
        """
        with self._db.snapshot():
            return self.read(table, entities), self._db.noted_days(self._name(table))


Sink: TypeAlias = "EmbeddedSink | FeastSink"


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
    return EmbeddedSink(db, config["project"], tables)
