"""The embedded online store behind Feast's API (``online_store`` in ``feature_store.yaml``).

Feast's own SQLite store overwrites whatever comes last, keeps whole seconds of local time
and one row per feature. This one keeps microseconds of UTC and one row per entity, and
the database refuses older rows, whoever writes: ``materialize``, ``push`` or a step.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from feast import Entity, FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import FeastConfigBaseModel
from feast.types import Bool, FeastType, Float32, Int32, UnixTimestamp

from windsock.featurestore.online_db import NAN, NO_ENTITY_COLUMN, Cell, OnlineDb, cell, micros_of
from windsock.featurestore.repo import feast_home
from windsock.settings import Settings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN = {"int32_val", "int64_val", "bool_val", "unix_timestamp_val", "float_val", "double_val", "string_val"}

OnlineData = list[tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]]
OnlineAnswers = list[tuple[datetime | None, dict[str, ValueProto] | None]]


class WindsockOnlineStoreConfig(FeastConfigBaseModel):
    """Settings of the embedded online store."""

    type: Literal["windsock.featurestore.online.WindsockOnlineStore"] = (
        "windsock.featurestore.online.WindsockOnlineStore"
    )
    path: str = ""
    """SQLite file, on a local disk; default ``$WINDSOCK_HOME/feast/online.db``."""
    busy_timeout_s: float = 60.0
    """How long a writer waits for another."""


class WindsockOnlineStore(OnlineStore):
    """An online store that never goes backwards."""

    def __init__(self) -> None:
        self._databases: dict[Path, OnlineDb] = {}

    def _db(self, config: RepoConfig) -> OnlineDb:
        given = config.online_store.path
        path = Path(config.repo_path or ".") / given if given else feast_home(Settings.from_env()) / "online.db"
        if path not in self._databases:
            self._databases[path] = OnlineDb(path, config.online_store.busy_timeout_s)
        return self._databases[path]

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: OnlineData, progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows that are not older than what is stored, in one transaction."""
        db, features = self._db(config), [f.name for f in table.features]
        name = table_name(config.project, table)
        db.create(name, features)
        rows = [
            (_key(config, key), micros_of(naive_utc(time)), *(to_cell(values.get(f)) for f in features))
            for key, values, time, _ in data
        ]
        with db.writing():
            db.upsert(name, features, rows)
        if progress is not None:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> OnlineAnswers:
        """Return time and values per entity, ``(None, None)`` for unknown ones."""
        fields = {f.name: f.dtype for f in table.features}
        features = [f for f in (requested_features or fields) if f in fields]
        keys = [_key(config, key) for key in entity_keys]
        found = self._db(config).read(table_name(config.project, table), features, keys)
        return [
            (
                EPOCH + timedelta(microseconds=found[key].micros),
                {f: to_proto(v, fields[f]) for f, v in zip(features, found[key].values, strict=True)},
            )
            if key in found
            else (None, None)
            for key in keys
        ]

    async def online_read_async(self, *args: Any, **kwargs: Any) -> OnlineAnswers:
        """Do as :meth:`online_read`; a look-up takes well under a millisecond."""
        return self.online_read(*args, **kwargs)

    def get_online_features(
        self, config: RepoConfig, features: Any, entity_rows: Any, *args: Any, **kwargs: Any
    ) -> OnlineResponse:
        """Answer a request; views without an entity may be asked for with empty rows (``[{}]``)."""
        return super().get_online_features(config, features, _rows_with_a_key(entity_rows), *args, **kwargs)

    async def get_online_features_async(
        self, config: RepoConfig, features: Any, entity_rows: Any, *args: Any, **kwargs: Any
    ) -> OnlineResponse:
        """Do as :meth:`get_online_features`."""
        return await super().get_online_features_async(config, features, _rows_with_a_key(entity_rows), *args, **kwargs)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        *others: Any,
        **kwargs: Any,
    ) -> None:
        """Create and drop tables as ``apply`` asks."""
        db = self._db(config)
        for view in tables_to_keep:
            db.create(table_name(config.project, view), [f.name for f in view.features])
        for view in tables_to_delete:
            db.drop(table_name(config.project, view))

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Drop the views' tables."""
        for view in tables:
            self._db(config).drop(table_name(config.project, view))


def table_name(project: str, view: FeatureView) -> str:
    """Return the name of a view's table in the online store."""
    return f"{project}_{view.name}"


def _rows_with_a_key(rows: Any) -> Any:
    """Give empty rows the key that Feast uses for views without an entity; it counts rows by their keys."""
    if isinstance(rows, list) and rows and not any(rows):
        return [{NO_ENTITY_COLUMN: ""} for _ in rows]
    return rows


def _key(config: RepoConfig, key: EntityKeyProto) -> bytes:
    raw: bytes = serialize_entity_key(key, config.entity_key_serialization_version)
    return raw


def naive_utc(time: datetime) -> datetime:
    """Return a time in UTC without its zone; a time without one is in UTC."""
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def to_cell(value: ValueProto | None) -> Cell:
    """Turn Feast's value into a cell (see ``online_db``)."""
    kind = value.WhichOneof("val") if value is not None else None
    if value is None or kind is None or kind == "null_val":
        return None
    return cell(getattr(value, kind)) if kind in _PLAIN else value.SerializeToString()


def to_proto(stored: Cell, dtype: FeastType) -> ValueProto:
    """Turn a cell back into Feast's value of a feature's type."""
    if stored is None:
        return ValueProto()
    if isinstance(stored, str):
        return ValueProto(string_val=stored)
    if stored == NAN:
        stored = float("nan")
    if isinstance(stored, float):
        return ValueProto(float_val=stored) if dtype == Float32 else ValueProto(double_val=stored)
    if isinstance(stored, bytes):
        other: ValueProto = ValueProto.FromString(stored)
        return other
    if dtype == Bool:
        return ValueProto(bool_val=bool(stored))
    if dtype == UnixTimestamp:
        return ValueProto(unix_timestamp_val=stored)
    return ValueProto(int32_val=stored) if dtype == Int32 else ValueProto(int64_val=stored)
