"""A Feast data source that is one view's table in Windsock's store.

It survives the registry: model, view and columns travel in Feast's ``custom_options``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from feast import RepoConfig, ValueType
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.types import Bool, Float64, Int64, PrimitiveFeastType, String, UnixTimestamp

from windsock.features.view_sql import TIMESTAMP, table_name
from windsock.featurestore.feature_tables import FeatureTable, feast_name

FEAST_TYPES: Mapping[str, PrimitiveFeastType] = MappingProxyType(
    {
        "BIGINT": Int64,
        "DOUBLE": Float64,
        "BOOLEAN": Bool,
        "VARCHAR": String,
        "TIMESTAMP": UnixTimestamp,
        "DATE": UnixTimestamp,
    }
)
"""DuckDB's type to Feast's."""


class WindsockSource(DataSource):
    """The table of one feature view, read through the ledger's records."""

    def __init__(self, *, model: str, view: str, columns: Iterable[tuple[str, str]], **common: Any) -> None:
        """Name a view's table by model and view; columns are given by name and DuckDB type."""
        super().__init__(name=common.pop("name", feast_name(model, view)), timestamp_field=TIMESTAMP, **common)
        self.model, self.view, self.columns = model, view, tuple((n, t) for n, t in columns)

    @classmethod
    def of(cls, table: FeatureTable, **common: Any) -> WindsockSource:
        """Return the source of a view's table."""
        return cls(model=table.model, view=table.view, columns=table.columns, **common)

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
        options = json.loads(data_source.custom_options.configuration)
        return WindsockSource(
            model=options["model"],
            view=options["view"],
            columns=options["columns"],
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
