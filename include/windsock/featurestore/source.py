"""A model's definitions as Feast objects: entities, sources, feature views and services.

A source is one definition's table in Windsock's store. It survives the registry: model, table and columns
travel in Feast's ``custom_options``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, RepoConfig, ValueType
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.types import Bool, Float64, Int64, PrimitiveFeastType, String, UnixTimestamp

from windsock.features.definition import STAGE
from windsock.features.demand import Demanded
from windsock.features.feature_tables import feast_name
from windsock.features.view_sql import TIMESTAMP
from windsock.spec import ModelSpec

MODEL_TAG = "windsock_model"
"""Marks an object as made from a model's spec; objects without it are left alone."""

FEAST_TYPES: Mapping[str, PrimitiveFeastType] = {
    "BIGINT": Int64,
    "DOUBLE": Float64,
    "BOOLEAN": Bool,
    "VARCHAR": String,
    "TIMESTAMP": UnixTimestamp,
    "DATE": UnixTimestamp,
}
"""DuckDB's type to Feast's."""


class WindsockSource(DataSource):
    """The table of one definition of a view, read through the ledger's records."""

    def __init__(self, *, model: str, table: str, columns: Iterable[tuple[str, str]], **common: Any) -> None:
        """Name a table; columns are given by name and DuckDB type, ``common`` is what any source has."""
        super().__init__(timestamp_field=TIMESTAMP, **common)
        self.model, self.table, self.columns = model, table, tuple((n, t) for n, t in columns)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, WindsockSource)
            and super().__eq__(other)  # type: ignore[no-untyped-call]
            and (self.model, self.table, self.columns) == (other.model, other.table, other.columns)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.model, self.table))

    def source_type(self) -> Any:
        """Return Feast's type for sources that it does not know."""
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> WindsockSource:
        """Rebuild a source from the registry; one that version 0.1 registered names its view."""
        options = json.loads(data_source.custom_options.configuration)
        if (view := options.pop("view", None)) is not None:
            options["table"] = f"{STAGE}/{view}"
        return WindsockSource(
            **options,
            name=data_source.name,
            description=data_source.description,
            owner=data_source.owner,
            tags=dict(data_source.tags),
        )

    def _to_proto_impl(self) -> DataSourceProto:
        options = {"model": self.model, "table": self.table, "columns": self.columns}
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{type(self).__module__}.{type(self).__name__}",
            custom_options=DataSourceProto.CustomSourceOptions(configuration=json.dumps(options).encode()),
            timestamp_field=self.timestamp_field,
            description=self.description,
            owner=self.owner,
            tags=self.tags,
        )

    def validate(self, config: RepoConfig) -> None:
        """Accept the source: its columns were taken from the SQL, and its table may still be empty."""

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """Return every column with its DuckDB type."""
        return self.columns

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Return the function from DuckDB's type to Feast's."""
        return lambda kind: FEAST_TYPES[kind].to_value_type()


def model_objects(spec: ModelSpec, served: Sequence[Demanded], services: Mapping[str, Sequence[str]]) -> list[Any]:
    """Turn definitions of a model into Feast objects: sources, entities, views and services.

    Args:
        spec: The model's spec.
        served: Every definition that somebody needs.
        services: Name of each service to the Feast names of its views.

    Raises:
        SpecError: A view's SQL does not run, or gives a type that Feast cannot hold.
    """
    common: dict[str, Any] = {"owner": spec.owner, "tags": {MODEL_TAG: spec.name}}
    sources, entities, views = [], dict[tuple[str, str], Entity](), dict[str, FeatureView]()
    for each in served:
        view, table = each.view, each.table
        kinds = {name: FEAST_TYPES[kind] for name, kind in table.columns if name != TIMESTAMP}
        entity = (view.entity, table.entity) if view.entity is not None and table.entity is not None else None
        if entity is not None and entity not in entities:
            # A version may know an entity by another column than the spec does now.
            own = spec.entities.get(entity[0], entity[1]) == entity[1]
            entities[entity] = Entity(
                name=feast_name(spec.name, entity[0] if own else "__".join(entity)),
                join_keys=[entity[1]],
                value_type=kinds[entity[1]].to_value_type(),
                description=f"{view.entity} of model {spec.name}",
                **common,
            )
        sources.append(
            WindsockSource(name=table.feast_name, model=spec.name, table=table.name, columns=table.columns, **common)
        )
        views[table.feast_name] = FeatureView(
            name=table.feast_name,
            entities=[entities[entity]] if entity is not None else [],
            ttl=table.ttl,
            schema=[Field(name=name, dtype=kind) for name, kind in kinds.items()],
            source=sources[-1],
            description=f"{view.name} of model {spec.name}, made by {view.sql}, for {' and '.join(each.by)}",
            **common,
        )
    made = [
        FeatureService(name=name, features=[views[view] for view in wanted], description=spec.description, **common)
        for name, wanted in services.items()
        if wanted
    ]
    return [*sources, *entities.values(), *views.values(), *made]


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
