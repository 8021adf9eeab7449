"""Where materialized rows go: the embedded online store or Redis directly, or any other store through Feast.

All sinks offer the same operations, so that the step and the parity check need not know
which store is configured. The embedded one imports no Feast.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from typing import TYPE_CHECKING, TypeAlias

from windsock.features.feature_tables import FeatureTable
from windsock.featurestore.online_db import DAYS_TABLE, Entity, OnlineDb, OnlineRow, entity_keys, entity_value
from windsock.featurestore.repo import embedded_online_path, import_feast, raw_config
from windsock.settings import Settings
from windsock.sql import quoted

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

    def day(self) -> AbstractContextManager[object]:
        """Write a whole day in one transaction: a kill leaves all of it or nothing."""
        return self._db.writing()

    def write(self, table: FeatureTable, rows: Mapping[Entity, OnlineRow], *, regardless_of_time: bool) -> int:
        """Write rows that are not older than what is stored; return how many are different now."""
        keys = entity_keys(table.entity, list(rows))
        cells = ((key, row.micros, *row.values) for key, row in zip(keys, rows.values(), strict=True))
        return self._db.upsert(self._name(table), table.features, cells, regardless_of_time=regardless_of_time)

    def delete(self, table: FeatureTable, entities: Sequence[Entity]) -> int:
        """Remove entities; return how many there were."""
        cursor = self._db.connection().executemany(
            f"delete from {quoted(self._name(table))} where entity_key = ?",
            [(key,) for key in entity_keys(table.entity, entities)],
        )
        return max(cursor.rowcount, 0)

    def read(self, table: FeatureTable, entities: Collection[Entity]) -> dict[Entity, OnlineRow]:
        """Return what is served for these entities."""
        keys = entity_keys(table.entity, list(entities))
        found = self._db.read(self._name(table), table.features, keys)
        return {entity: found[key] for entity, key in zip(entities, keys, strict=True) if key in found}

    def entities_between(self, table: FeatureTable, first_us: int, stop_us: int) -> list[Entity]:
        """List entities whose stored time lies in ``[first, stop)``."""
        rows = self._db.connection().execute(
            f"select entity_key from {quoted(self._name(table))} where event_us >= ? and event_us < ?",
            (first_us, stop_us),
        )
        return [entity_value(table.entity, key) for (key,) in rows]

    def note_day(self, table: FeatureTable, day: date, content_hash: str) -> None:
        """Note which version of a day was written, in the same transaction as its rows."""
        self._db.connection().execute(
            f"insert or replace into {DAYS_TABLE} (view, ds, content_hash) values (?, ?, ?)",
            (self._name(table), day.isoformat(), content_hash),
        )

    def observe(
        self, table: FeatureTable, entities: Collection[Entity]
    ) -> tuple[dict[Entity, OnlineRow], Mapping[str, str] | None]:
        """Return at one moment what is served for these entities, and day to the version that was written last.

        A store that keeps no such note returns None in its place.
        """
        with self._db.connection() as connection:
            connection.execute("begin")
            noted = f"select ds, content_hash from {DAYS_TABLE} where view = ?"
            return self.read(table, entities), dict(connection.execute(noted, (self._name(table),)))


Sink: TypeAlias = "EmbeddedSink | FeastSink"


def open_sink(settings: Settings, tables: Sequence[FeatureTable]) -> Sink:
    """Return the configured online store, ready for these views.

    Raises:
        SpecError: The configuration is wrong, or a store other than the embedded one lacks a view.
        UpstreamUnavailable: The store cannot be reached.
    """
    path, config = embedded_online_path(settings), raw_config(settings)
    if path is None:
        import_feast()
        if config["online_store"].get("type") == "redis":
            from windsock.featurestore.redis_sink import RedisSink

            return RedisSink(settings)
        from windsock.featurestore.feast_sink import FeastSink

        return FeastSink(settings)
    db = OnlineDb(path, float(config["online_store"].get("busy_timeout_s", 60.0)))
    return EmbeddedSink(db, config["project"], tables)
