"""Where Feast's configuration lies and what it says.

``feature_store.yaml`` is Feast's own file; it may name any stores that Feast knows. What
it leaves out (the paths of the embedded stores) follows from the settings, so that the
same file serves a laptop, a test and production.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from windsock.errors import SpecError
from windsock.featurestore.feast_import import import_feast
from windsock.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore, RepoConfig

OFFLINE_TYPE = "windsock.featurestore.offline.WindsockOfflineStore"
ONLINE_TYPE = "windsock.featurestore.online.WindsockOnlineStore"
REGISTRY_STORE_TYPE = "windsock.featurestore.registry_store.WindsockRegistryStore"
CONFIG_FILE = "feature_store.yaml"


@dataclass(frozen=True)
class FeastPaths:
    """Where the embedded feature store keeps its files."""

    home: Path

    @classmethod
    def of(cls, settings: Settings) -> FeastPaths:
        """Return the paths below ``WINDSOCK_HOME``."""
        return cls(settings.home / "feast")

    @property
    def registry(self) -> Path:
        """Feast's registry."""
        return self.home / "registry.db"

    @property
    def online(self) -> Path:
        """The embedded online store."""
        return self.home / "online.db"


def raw_config(settings: Settings) -> dict[str, Any]:
    """Read ``feature_store.yaml``, with environment variables filled in and paths from the settings.

    Raises:
        SpecError: The file is missing or no mapping.
    """
    path = settings.feature_repo / CONFIG_FILE
    try:
        raw = yaml.safe_load(os.path.expandvars(path.read_text(encoding="utf-8")))
    except OSError as err:
        raise SpecError(
            f"{path}: cannot be read: {err.strerror}. Set WINDSOCK_FEATURE_REPO to the folder that holds it."
        ) from err
    except yaml.YAMLError as err:
        raise SpecError(f"{path}: is not valid YAML: {' '.join(str(err).split())}") from err
    if not isinstance(raw, dict) or not isinstance(raw.get("project"), str):
        raise SpecError(f"{path}: names no project. Start it with 'project: windsock'.")
    paths = FeastPaths.of(settings)
    for part, kind, defaults in (
        ("registry", "registry_store_type", {REGISTRY_STORE_TYPE: {"path": str(paths.registry)}}),
        ("online_store", "type", {ONLINE_TYPE: {"path": str(paths.online)}}),
        ("offline_store", "type", {OFFLINE_TYPE: {"store": settings.store}}),
    ):
        section = raw.get(part)
        if isinstance(section, dict) and section.get(kind) in defaults:
            raw[part] = {**defaults[section[kind]], **{k: v for k, v in section.items() if v}}
    return raw


def embedded_online_path(settings: Settings) -> Path | None:
    """Return the file of the embedded online store, or None if another store is configured."""
    section = raw_config(settings).get("online_store")
    if not isinstance(section, dict) or section.get("type") != ONLINE_TYPE:
        return None
    return settings.feature_repo / Path(section["path"])


def repo_config(settings: Settings) -> RepoConfig:
    """Return Feast's configuration for this installation."""
    import_feast()
    from feast import RepoConfig

    config = RepoConfig(**raw_config(settings))
    config.repo_path = settings.feature_repo
    return config


def feature_store(settings: Settings) -> FeatureStore:
    """Return Feast's entry point; one per process until the registry or the configuration changes."""
    raw = raw_config(settings)
    registry = Path(raw["registry"]["path"]) if isinstance(raw.get("registry"), dict) else None
    changed = (registry, registry.stat().st_mtime_ns) if registry is not None and registry.is_file() else None
    return _feature_store(settings, os.getpid(), yaml.safe_dump(raw), changed)


@lru_cache(maxsize=2)
def _feature_store(settings: Settings, pid: int, config: str, changed: object) -> FeatureStore:
    # pid, config and changed only tell whether the kept object is still true.
    configured = repo_config(settings)
    from feast import FeatureStore

    return FeatureStore(config=configured)
