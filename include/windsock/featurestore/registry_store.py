"""Feast's registry as one file that is replaced atomically.

Feast's own file registry writes in place: a reader in that moment, or a kill, sees half a
registry. This one finds its path from the settings if the configuration gives none.
"""

import uuid
from pathlib import Path

from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RegistryConfig
from feast.utils import _utc_now

from windsock.featurestore.repo import feast_home
from windsock.files import replace_file
from windsock.settings import Settings


class WindsockRegistryStore(FileRegistryStore):
    """A registry file at ``path``, by default ``$WINDSOCK_HOME/feast/registry.db``."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        given = registry_config.path
        self._filepath = repo_path / given if given else feast_home(Settings.from_env()) / "registry.db"

    def _write_registry(self, registry_proto: RegistryProto) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(_utc_now())
        replace_file(self._filepath, registry_proto.SerializeToString())
