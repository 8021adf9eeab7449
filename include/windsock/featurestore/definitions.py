"""Registering what the model specs describe: ``windsock apply``.

Nothing is done while nothing has changed (a hash over specs, SQL and configuration), so
every step may call it; the check imports no Feast. Callers in parallel take turns.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from windsock import promotions
from windsock.errors import SpecError
from windsock.features.demand import NEXT_TRAINING, Demanded, demanded, usable
from windsock.features.feature_tables import feast_name, feature_tables
from windsock.featurestore.repo import embedded_online_path, feast_home, feature_store, import_feast, raw_config
from windsock.files import locked, replace_file
from windsock.ledger import Ledger
from windsock.living_versions import versions_needed
from windsock.settings import Settings
from windsock.spec import ModelSpec, load_specs
from windsock.spec.load import find_specs
from windsock.store import to_json

log = logging.getLogger(__name__)

_LAYOUT = 2
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
    """Register entities, views and services of all definitions that are needed; remove those that are not any more.

    A model has one service for each version that is, will be or was just in force, ``<model>__v<version>``, and one
    that is another name for the champion's (before the first: for the spec's views), ``<model>``.

    ``remove_gone`` takes along the objects (and online values) of models that are no longer there. Steps say no:
    a step that sees other model folders must not wipe what it does not know.

    Raises:
        SpecError: ``feature_store.yaml`` is missing or wrong. A broken model spec is reported in the
            result and in the log, and stops no other model.
    """
    home = feast_home(settings)
    if (done := _applied(settings, _fingerprint(settings), remove_gone)) is not None:
        return done
    with locked(home / "apply.lock"):
        state = _fingerprint(settings)
        if (done := _applied(settings, state, remove_gone)) is not None:
            return done
        wanted, broken = _usable(settings)
        left = _register(settings, [o for objects in wanted.values() for o in objects], broken, remove_gone)
        # Written last: a kill before this line only means that the work is done once more.
        content = {"state": state, "models": list(wanted), "broken": broken, "left": left}
        replace_file(home / "applied.json", to_json(content))
    return Applied(True, tuple(wanted), broken)


def _fingerprint(settings: Settings) -> str:
    """Return a hash over everything that the registered objects depend on."""
    parts = [_LAYOUT, version("feast"), settings.store, raw_config(settings)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for spec in load_specs(settings)[0].values():
        day = newest_day(settings, spec)
        champion = promotions.champion_on(settings, spec, day)
        in_force = [versions_needed(settings, spec, day), champion.version if champion is not None else None]
        digest.update(json.dumps([spec.name, *in_force]).encode())
    for spec_file in find_specs(settings.models).values():
        for file in (spec_file, *sorted(spec_file.parent.glob("**/*.sql"))):
            digest.update(str(file).encode())
            digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def _applied(settings: Settings, state: str, remove_gone: bool) -> Applied | None:
    """Return what was applied if it is still true."""
    try:
        done = json.loads((feast_home(settings) / "applied.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    registry = raw_config(settings).get("registry")
    file = Path(registry["path"]) if isinstance(registry, dict) and registry.get("registry_store_type") else None
    gone = any(p is not None and not p.exists() for p in (file, embedded_online_path(settings)))
    if gone or done.get("state") != state or (remove_gone and done.get("left")):
        return None
    return Applied(False, tuple(done["models"]), dict(done["broken"]))


def _register(settings: Settings, objects: list[Any], broken: dict[str, str], remove_gone: bool) -> int:
    """Write the registry; return how many objects of models that are gone were left in it."""
    from windsock.featurestore.source import MODEL_TAG, registered_objects

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
    log.info("feature store: %d objects registered, %d removed", len(objects), len(removed))
    return len(gone) - len(removed)


def _usable(settings: Settings) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Turn every model into Feast objects; return also the models of which that cannot be done, and why."""
    import_feast()
    from windsock.featurestore.source import model_objects

    specs, broken_specs = load_specs(settings)
    broken = {name: str(err) for name, err in broken_specs.items()}
    wanted: dict[str, list[Any]] = {}
    owner: dict[str, str] = {}
    for name, spec in specs.items():
        try:
            asked = demanded(settings, spec, newest_day(settings, spec))
            served = list(usable(asked))
            # Names in Feast may be another model's: ``a`` with view ``b__c``, ``a__b`` with view ``c``.
            views = [feast_name(name, each.view.name) for each in served]
            if (clash := next((view for view in views if owner.get(view, name) != name), None)) is not None:
                raise SpecError(f"its feature view {clash!r} is named like one of {owner[clash]!r}. Rename the view.")
            wanted[name] = model_objects(spec, served, _services(settings, spec, served))
            feature_tables(spec)  # what versions need is registered also if the spec has a fault
        except SpecError as err:
            broken[name] = str(err)
        else:
            owner.update(dict.fromkeys(views, name))
    for name, why in broken.items():
        log.error("%s: not registered in the feature store: %s", name, why)
    return wanted, broken


def _services(settings: Settings, spec: ModelSpec, served: Sequence[Demanded]) -> dict[str, list[str]]:
    """Return each service's name and its views: one for each version that is needed, and the model's own."""
    champion = promotions.champion_on(settings, spec, newest_day(settings, spec))
    own = NEXT_TRAINING if champion is None else f"version {champion.version}"
    names = dict.fromkeys(by for each in served for by in each.by)
    services = {f"{spec.name}__v{by.split()[-1]}": by for by in names if by != NEXT_TRAINING}
    return {
        service: [each.table.feast_name for each in served if by in each.by]
        for service, by in {spec.name: own, **services}.items()
    }


def newest_day(settings: Settings, spec: ModelSpec) -> date:
    """Return the newest day that was ingested: it decides which champion is in force, never the clock."""
    days = Ledger.of(settings, spec.name, "ingest").days()
    return days[-1] if days else spec.first_day


def repo_objects(settings: Settings) -> list[Any]:
    """Return the Feast objects of every usable model, for ``feature_repo/definitions.py``."""
    return [o for objects in _usable(settings)[0].values() for o in objects]
