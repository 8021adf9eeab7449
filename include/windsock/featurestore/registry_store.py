"""Feast's registry as one file that is replaced atomically.

Feast's own file registry writes in place: a reader in that moment, or a kill, sees half a
registry. This one writes aside and renames; it finds its path from the settings if the
configuration gives none.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RegistryConfig
from feast.utils import _utc_now

from windsock.settings import Settings
from windsock.store import Store


class WindsockRegistryStore(RegistryStore):  # type: ignore[misc]
    """A registry file at ``path``, by default ``$WINDSOCK_HOME/feast/registry.db``."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        from windsock.featurestore.repo import FeastPaths

        given = registry_config.path
        self._path = repo_path / given if given else FeastPaths.of(Settings.from_env()).registry

    def get_registry_proto(self) -> RegistryProto:
        """Return the registry.

        Raises:
            FileNotFoundError: Nothing has been applied yet; Feast then starts an empty one.
        """
        if not self._path.is_file():
            raise FileNotFoundError(f'There is no registry at "{self._path}". Run "windsock apply".')
        proto = RegistryProto()
        proto.ParseFromString(self._path.read_bytes())
        return proto

    def update_registry_proto(self, registry_proto: RegistryProto) -> None:
        """Replace the registry in one step."""
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(_utc_now())
        Store(str(self._path.parent)).write_bytes(registry_proto.SerializeToString(), self._path.name)

    def teardown(self) -> None:
        """Remove the registry."""
        self._path.unlink(missing_ok=True)
