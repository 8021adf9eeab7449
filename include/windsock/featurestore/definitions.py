"""Registering what the model specs describe: ``windsock apply``.

Nothing is done while nothing has changed (a hash over specs, SQL and configuration), so
every step may call it; the check imports no Feast. Callers in parallel take turns.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windsock.errors import SpecError
from windsock.featurestore.feast_import import import_feast
from windsock.featurestore.repo import CONFIG_FILE, FeastPaths, embedded_online_path, feature_store, raw_config
from windsock.files import locked, replace_file
from windsock.settings import Settings
from windsock.spec import load_specs
from windsock.spec.load import find_specs
from windsock.store import to_json

if TYPE_CHECKING:
    from windsock.featurestore.objects import FeastObjects

log = logging.getLogger(__name__)

_LAYOUT = 1
"""Counts up when specs are turned into Feast objects in another way."""


@dataclass(frozen=True)
class Applied:
    """What :func:`apply` did."""

    changed: bool
    """Whether the registry was written."""
    models: tuple[str, ...] = ()
    """Models that are registered."""
    broken: dict[str, str] = field(default_factory=dict)
    """Models that could not be registered, and why; what was registered of them before stays."""


def apply(settings: Settings, *, remove_gone: bool = True) -> Applied:
    """Register entities, views and one service per model; remove those of models that are gone.

    ``remove_gone`` takes along the objects (and online values) of models that are no longer there. Steps say no:
    a step that sees other model folders must not wipe what it does not know.

    Raises:
        SpecError: ``feature_store.yaml`` is missing or wrong. A broken model spec is reported in the
            result and in the log, and stops no other model.
    """
    paths = FeastPaths.of(settings)
    if (done := _read_applied(settings, paths, fingerprint(settings), remove_gone)) is not None:
        return done
    with locked(paths.home / "apply.lock"):
        state = fingerprint(settings)
        if (done := _read_applied(settings, paths, state, remove_gone)) is not None:
            return done
        result, left = _apply(settings, remove_gone)
        # Written last: a kill before this line only means that the work is done once more.
        content = {"state": state, "models": result.models, "broken": result.broken, "left": left}
        replace_file(paths.home / "applied.json", to_json(content))
    return result


def fingerprint(settings: Settings) -> str:
    """Return a hash over everything that the registered objects depend on."""
    digest = hashlib.sha256(f"{_LAYOUT} {version('feast')} {settings.store}".encode())
    files = [settings.feature_repo / CONFIG_FILE]
    for spec_file in find_specs(settings.models).values():
        files += [spec_file, *sorted(spec_file.parent.glob("**/*.sql"))]
    for file in files:
        digest.update(str(file).encode())
        digest.update(file.read_bytes() if file.is_file() else b"")
    digest.update(json.dumps(raw_config(settings), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _read_applied(settings: Settings, paths: FeastPaths, state: str, remove_gone: bool) -> Applied | None:
    """Return what was applied if it is still true."""
    try:
        done = json.loads((paths.home / "applied.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if remove_gone and done.get("left"):
        return None
    registry = raw_config(settings).get("registry")
    file = Path(registry["path"]) if isinstance(registry, dict) and registry.get("registry_store_type") else None
    online = embedded_online_path(settings)
    if done.get("state") != state or any(p is not None and not p.exists() for p in (file, online)):
        return None
    return Applied(False, tuple(done["models"]), dict(done["broken"]))


def _apply(settings: Settings, remove_gone: bool) -> tuple[Applied, int]:
    """Register everything; return also how many objects of models that are gone were left."""
    wanted, broken = _usable(settings)
    from windsock.featurestore.objects import MODEL_TAG, registered_objects

    objects = [o for parts in wanted.values() for o in parts.all()]
    names = {(type(o).__name__, o.name) for o in objects}
    store = feature_store(settings)
    gone = [
        o
        for o in registered_objects(store)
        # Whoever breaks a spec for a moment must not lose the model's online values.
        if (type(o).__name__, o.name) not in names and o.tags.get(MODEL_TAG) not in broken
    ]
    removed = gone if remove_gone else []
    store.apply(objects, objects_to_delete=removed, partial=False)
    log.info("feature store: %d objects of %d models registered, %d removed", len(objects), len(wanted), len(removed))
    return Applied(True, tuple(wanted), broken), len(gone) - len(removed)


def _usable(settings: Settings) -> tuple[dict[str, FeastObjects], dict[str, str]]:
    """Turn every model into Feast objects; return also the models of which that cannot be done, and why."""
    import_feast()
    from windsock.featurestore.objects import model_objects

    specs, broken_specs = load_specs(settings)
    broken = {b.name: str(b.error) for b in broken_specs}
    wanted: dict[str, FeastObjects] = {}
    owner: dict[str, str] = {}
    for name, spec in specs.items():
        try:
            parts = model_objects(spec)
        except SpecError as err:
            broken[name] = str(err)
            continue
        # Names in Feast may be another model's: ``a`` with view ``b__c``, ``a__b`` with view ``c``.
        clash = next((v.name for v in parts.views if v.name in owner), None)
        if clash is not None:
            broken[name] = f"its feature view {clash!r} is named like one of {owner[clash]!r}. Rename the view."
            continue
        wanted[name] = parts
        owner.update({v.name: name for v in parts.views})
    for name, why in broken.items():
        log.error("%s: not registered in the feature store: %s", name, why)
    return wanted, broken


def repo_objects(settings: Settings) -> list[Any]:
    """Return the Feast objects of every usable model, for ``feature_repo/definitions.py``."""
    return [o for parts in _usable(settings)[0].values() for o in parts.all()]
