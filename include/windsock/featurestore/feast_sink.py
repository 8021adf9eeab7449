"""Materializing into an online store that only Feast knows (PostgreSQL, DynamoDB, ...); for Redis see ``redis_sink``.

Feast's stores overwrite with whatever comes last. So rows are compared with what is stored before they are written.
Between reading and writing another writer may come: the embedded store and Redis exclude that, the others do not;
``feature_store.yaml`` says so where they are chosen.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

from feast.errors import FeatureViewNotFoundException
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto

from windsock.errors import SpecError, UpstreamUnavailable
from windsock.features.feature_tables import FeatureTable
from windsock.featurestore.definitions import apply
from windsock.featurestore.online import EPOCH, OnlineData, naive_utc, to_cell, to_proto
from windsock.featurestore.online_db import NO_ENTITY_COLUMN, Entity, OnlineRow, micros_of
from windsock.featurestore.repo import feature_store
from windsock.settings import Settings


class FeastSink:
    """Any online store, through Feast's provider."""

    resolution_us = 1_000_000
    """Feast's stores keep whole seconds, most of them."""

    def __init__(self, settings: Settings) -> None:
        apply(settings, remove_gone=False)
        self._store = feature_store(settings)
        self._config = self._store.config
        self._online = self._store._get_provider()
        self._views: dict[FeatureTable, Any] = {}

    @contextmanager
    def day(self) -> Iterator[None]:
        """Do without a transaction; translate what the store's client raises."""
        try:
            yield
        except (OSError, ConnectionError) as err:
            raise UpstreamUnavailable(f"The online store cannot be reached: {err}. Run the step again.") from err

    def _view(self, table: FeatureTable) -> Any:
        try:
            if table not in self._views:  # Feast reads its whole registry for each
                self._views[table] = self._store.get_feature_view(table.feast_name)
            return self._views[table]
        except FeatureViewNotFoundException as err:
            raise SpecError(f"The feature store does not know {table.feast_name!r}. Run 'windsock apply'.") from err

    def write(self, table: FeatureTable, rows: Mapping[Entity, OnlineRow], *, regardless_of_time: bool) -> int:
        """Read, compare, write what differs and is not older."""
        stored, step = self.read(table, rows), self.resolution_us
        changed = {
            entity: row
            for entity, row in rows.items()
            if (old := stored.get(entity)) is None
            or (
                (row.micros // step, row.values) != (old.micros // step, old.values)
                and (regardless_of_time or row.micros // step >= old.micros // step)
            )
        }
        self._send(table, changed)
        return len(changed)

    def _send(self, table: FeatureTable, rows: Mapping[Entity, OnlineRow]) -> None:
        if not rows:
            return
        view = self._view(table)
        types = {f.name: f.dtype for f in view.features}
        data: OnlineData = [
            (
                _key(table, entity),
                {f: to_proto(v, types[f]) for f, v in zip(table.features, row.values, strict=True)},
                EPOCH + timedelta(microseconds=row.micros),
                None,
            )
            for entity, row in rows.items()
        ]
        self._online.online_write_batch(self._config, view, data, None)

    def delete(self, table: FeatureTable, entities: Sequence[Entity]) -> int:
        """Serve NULLs for entities that have no row: Feast's stores have no way to remove one."""
        nothing = OnlineRow(0, tuple(None for _ in table.features))
        self._send(table, dict.fromkeys(entities, nothing))
        return len(entities)

    def read(self, table: FeatureTable, entities: Collection[Entity]) -> dict[Entity, OnlineRow]:
        """Return what is served for these entities."""
        if not entities:
            return {}
        keys = [_key(table, entity) for entity in entities]
        answers = self._online.online_read(self._config, self._view(table), keys, list(table.features))
        found: dict[Entity, OnlineRow] = {}
        for entity, (time, values) in zip(entities, answers, strict=True):
            if time is not None and values is not None:
                cells = tuple(to_cell(values.get(f)) for f in table.features)
                found[entity] = OnlineRow(micros_of(naive_utc(time)), cells)
        return found

    def entities_between(self, table: FeatureTable, first_us: int, stop_us: int) -> list[Entity]:
        """Return none: Feast's stores cannot be searched by time."""
        return []

    def note_day(self, table: FeatureTable, day: date, content_hash: str) -> None:
        """Note nothing: Feast's stores have no place for it."""

    def observe(
        self, table: FeatureTable, entities: Collection[Entity]
    ) -> tuple[dict[Entity, OnlineRow], Mapping[str, str] | None]:
        """Return what is served for these entities; from which versions is not known."""
        return self.read(table, entities), None


def _key(table: FeatureTable, entity: Entity) -> EntityKeyProto:
    if table.entity is None:
        return EntityKeyProto(join_keys=[NO_ENTITY_COLUMN], entity_values=[ValueProto(string_val="")])
    value = ValueProto(string_val=entity) if isinstance(entity, str) else ValueProto(int64_val=int(entity or 0))
    return EntityKeyProto(join_keys=[table.entity], entity_values=[value])
