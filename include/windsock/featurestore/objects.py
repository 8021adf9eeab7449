"""Model specs as Feast objects: entities, sources, feature views and one service per model."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field

from windsock.featurestore.feature_tables import FeatureTable, feast_name, feature_tables
from windsock.featurestore.source import FEAST_TYPES, WindsockSource
from windsock.spec import ModelSpec

MODEL_TAG = "windsock_model"
"""Marks an object as made from a model's spec; objects without it are left alone."""


@dataclass(frozen=True)
class FeastObjects:
    """What one model registers."""

    entities: tuple[Entity, ...]
    views: tuple[FeatureView, ...]
    service: FeatureService | None
    """The model's features, in model order; None if it has no views."""

    def all(self) -> list[Any]:
        """Return everything, sources included."""
        sources = [view.batch_source for view in self.views]
        return [*sources, *self.entities, *self.views, *([self.service] if self.service is not None else [])]


def model_objects(spec: ModelSpec) -> FeastObjects:
    """Turn a model's spec into Feast objects.

    Raises:
        SpecError: A view's SQL does not run, or gives a type that Feast cannot hold.
    """
    tables = feature_tables(spec)
    entities = {name: _entity(spec, name, tables) for name in _entities_of(spec)}
    views = tuple(
        _view(spec, table, entities.get(view.entity or ""))
        for table, view in zip(tables, spec.features.views, strict=True)
    )
    service = None
    if views:
        service = FeatureService(
            name=spec.name,
            features=list(views),
            description=spec.description,
            owner=spec.owner,
            tags={MODEL_TAG: spec.name},
        )
    return FeastObjects(tuple(entities.values()), views, service)


def registered_objects(store: FeatureStore) -> list[Any]:
    """List the registered objects that were made from specs."""
    registry, project = store.registry, store.project
    found: Iterable[Any] = (
        *registry.list_feature_services(project),
        *registry.list_feature_views(project),
        *registry.list_entities(project),
        *registry.list_data_sources(project),
    )
    return [o for o in found if MODEL_TAG in (o.tags or {})]


def _entities_of(spec: ModelSpec) -> list[str]:
    used = {view.entity for view in spec.features.views}
    return [name for name in spec.entities if name in used]


def _entity(spec: ModelSpec, name: str, tables: list[FeatureTable]) -> Entity:
    column = spec.entities[name]
    kind = next(dict(table.columns)[column] for table in tables if table.entity == column)
    return Entity(
        name=feast_name(spec.name, name),
        join_keys=[column],
        value_type=FEAST_TYPES[kind].to_value_type(),
        description=f"{name} of model {spec.name}",
        owner=spec.owner,
        tags={MODEL_TAG: spec.name},
    )


def _view(spec: ModelSpec, table: FeatureTable, entity: Entity | None) -> FeatureView:
    kinds = dict(table.columns)
    names = [*([table.entity] if table.entity is not None else []), *table.features]
    return FeatureView(
        name=table.feast_name,
        entities=[entity] if entity is not None else [],
        ttl=table.ttl,
        schema=[Field(name=name, dtype=FEAST_TYPES[kinds[name]]) for name in names],
        source=WindsockSource.of(table, owner=spec.owner, tags={MODEL_TAG: spec.name}),
        description=f"{table.view} of model {spec.name}, made by {spec.view(table.view).sql}",
        owner=spec.owner,
        tags={MODEL_TAG: spec.name},
    )
