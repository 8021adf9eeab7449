"""Model specs as Feast objects: entities, sources, feature views and one service per model.

A source is one view's table in Windsock's store. It survives the registry: model, view and columns
travel in Feast's ``custom_options``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, RepoConfig, ValueType
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.types import Bool, Float64, Int64, PrimitiveFeastType, String, UnixTimestamp

from windsock.features.feature_tables import feast_name, feature_tables, table_name
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
    """The table of one feature view, read through the ledger's records."""

    def __init__(self, *, model: str, view: str, columns: Iterable[tuple[str, str]], **common: Any) -> None:
        """Name a view's table; columns are given by name and DuckDB type, ``common`` is what any source has."""
        super().__init__(name=common.pop("name", feast_name(model, view)), timestamp_field=TIMESTAMP, **common)
        self.model, self.view, self.columns = model, view, tuple((n, t) for n, t in columns)

    @property
    def table(self) -> str:
        """Name of the table in ``DayRecord.outputs``."""
        return table_name(self.view)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, WindsockSource)
            and super().__eq__(other)  # type: ignore[no-untyped-call]
            and (self.model, self.view, self.columns) == (other.model, other.view, other.columns)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.model, self.view))

    def source_type(self) -> Any:
        """Return Feast's type for sources that it does not know."""
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> WindsockSource:
        """Rebuild a source from the registry."""
        return WindsockSource(
            **json.loads(data_source.custom_options.configuration),
            name=data_source.name,
            description=data_source.description,
            owner=data_source.owner,
            tags=dict(data_source.tags),
        )

    def _to_proto_impl(self) -> DataSourceProto:
        options = {"model": self.model, "view": self.view, "columns": self.columns}
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


def model_objects(spec: ModelSpec) -> list[Any]:
    """Turn a model's spec into Feast objects: sources, entities, views and, if it has views, its service.

    Raises:
        SpecError: A view's SQL does not run, or gives a type that Feast cannot hold.
    """
    common: dict[str, Any] = {"owner": spec.owner, "tags": {MODEL_TAG: spec.name}}
    sources, entities, views = [], dict[str | None, Entity](), []
    for table, view in zip(feature_tables(spec), spec.features.views, strict=True):
        kinds = {name: FEAST_TYPES[kind] for name, kind in table.columns if name != TIMESTAMP}
        if view.entity is not None and table.entity is not None and view.entity not in entities:
            entities[view.entity] = Entity(
                name=feast_name(spec.name, view.entity),
                join_keys=[table.entity],
                value_type=kinds[table.entity].to_value_type(),
                description=f"{view.entity} of model {spec.name}",
                **common,
            )
        sources.append(WindsockSource(model=spec.name, view=view.name, columns=table.columns, **common))
        views.append(
            FeatureView(
                name=table.feast_name,
                entities=[entities[view.entity]] if view.entity is not None else [],
                ttl=table.ttl,
                schema=[Field(name=name, dtype=kind) for name, kind in kinds.items()],
                source=sources[-1],
                description=f"{view.name} of model {spec.name}, made by {view.sql}",
                **common,
            )
        )
    services = (
        [FeatureService(name=spec.name, features=[*views], description=spec.description, **common)] if views else []
    )
    return [*sources, *entities.values(), *views, *services]


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
