"""Feast and its configuration: where ``feature_store.yaml`` lies and what it says.

It is Feast's own file and may name any stores that Feast knows. What it leaves out (the paths of the embedded stores)
follows from the settings, so that the same file serves a laptop, a test and production.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from windsock.errors import SpecError
from windsock.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore

OFFLINE_TYPE = "windsock.featurestore.offline.WindsockOfflineStore"
ONLINE_TYPE = "windsock.featurestore.online.WindsockOnlineStore"
REGISTRY_STORE_TYPE = "windsock.featurestore.registry_store.WindsockRegistryStore"


def import_feast() -> None:
    """Import Feast without torch and without the checks of typeguard, which take three quarters of the time.

    Feast imports torch, wherever it is installed, for a helper that Windsock does not use: over two seconds and 170 MB
    in every process. It finds none here; torch stays importable for everybody else. And typeguard would rewrite each of
    Feast's functions to check the types of its arguments: five seconds in every process.
    """
    if "feast" in sys.modules:
        return
    import typeguard

    names, hides_torch = vars(typeguard), "torch" not in sys.modules
    checked, names["typechecked"] = names["typechecked"], _unchecked
    if hides_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("feast")
    finally:
        names["typechecked"] = checked
        if hides_torch:
            del sys.modules["torch"]


def _unchecked(target: Any = None, **_options: Any) -> Any:
    """Decorate as ``typeguard.typechecked`` does, with nothing."""
    return (lambda function: function) if target is None else target


def feast_home(settings: Settings) -> Path:
    """Return the folder in which the embedded feature store keeps ``registry.db`` and ``online.db``."""
    return settings.home / "feast"


def raw_config(settings: Settings) -> dict[str, Any]:
    """Read ``feature_store.yaml``, with environment variables filled in and paths from the settings.

    Raises:
        SpecError: The file is missing or no mapping.
    """
    path = settings.feature_repo / "feature_store.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise SpecError(
            f"{path}: cannot be read: {err.strerror}. Set WINDSOCK_FEATURE_REPO to the folder that holds it."
        ) from err
    except yaml.YAMLError as err:
        raise SpecError(f"{path}: is not valid YAML: {' '.join(str(err).split())}") from err
    raw = _filled_in(raw, path)
    if not isinstance(raw, dict) or not isinstance(raw.get("project"), str):
        raise SpecError(f"{path}: names no project. Start it with 'project: windsock'.")
    home = feast_home(settings)
    for part, kind, ours, key, value in (
        ("registry", "registry_store_type", REGISTRY_STORE_TYPE, "path", str(home / "registry.db")),
        ("online_store", "type", ONLINE_TYPE, "path", str(home / "online.db")),
        ("offline_store", "type", OFFLINE_TYPE, "store", settings.store),
    ):
        section = raw.get(part)
        if isinstance(section, dict) and section.get(kind) == ours:
            raw[part] = {key: value, **{k: v for k, v in section.items() if v}}
    return raw


def _filled_in(value: Any, path: Path) -> Any:
    """Fill in environment variables, in what was read: a secret may hold any character, and no message quotes it.

    Raises:
        SpecError: A variable is not set.
    """
    if isinstance(value, dict):
        return {key: _filled_in(each, path) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled_in(each, path) for each in value]
    if not isinstance(value, str):
        return value
    for name in re.findall(r"\$\{(\w+)\}", value):
        if name not in os.environ:
            raise SpecError(f"{path}: needs the environment variable {name}, which is not set (docs/settings.md).")
    return os.path.expandvars(value)


def embedded_online_path(settings: Settings) -> Path | None:
    """Return the file of the embedded online store, or None if another store is configured."""
    section = raw_config(settings).get("online_store")
    if not isinstance(section, dict) or section.get("type") != ONLINE_TYPE:
        return None
    return settings.feature_repo / Path(section["path"])


def feature_store(settings: Settings) -> FeatureStore:
    """Return Feast's entry point; one per process until the registry or the configuration changes."""
    raw = raw_config(settings)
    registry = Path(raw["registry"]["path"]) if isinstance(raw.get("registry"), dict) else None
    changed = (registry, registry.stat().st_mtime_ns) if registry is not None and registry.is_file() else None
    return _feature_store(settings.feature_repo, os.getpid(), yaml.safe_dump(raw), changed)


@lru_cache(maxsize=2)
def _feature_store(folder: Path, pid: int, config: str, changed: object) -> FeatureStore:
    # pid and changed only tell whether the kept object is still true.
    import_feast()
    from feast import FeatureStore, RepoConfig

    configured = RepoConfig(**yaml.safe_load(config))
    configured.repo_path = folder
    return FeatureStore(config=configured)
