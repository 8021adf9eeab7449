"""One line per model, from the store alone: no server is asked, so it works while all are down."""

from __future__ import annotations

from typing import Any

from windsock import promotions
from windsock.errors import SpecError
from windsock.ledger import Ledger
from windsock.registry.versions import list_versions, version_info
from windsock.settings import Settings
from windsock.spec import ModelSpec, load_specs

STAGES = ("ingest", "features", "score", "monitor")


def overview(settings: Settings, model: str | None = None) -> list[dict[str, Any]]:
    """Return what is known of each model, in order of names.

    Args:
        settings: This installation.
        model: Only this one.

    Raises:
        SpecError: There is no model of that name.
    """
    specs, broken = load_specs(settings)
    if model is not None and model not in specs:
        for other in broken:
            if other.name == model:
                raise other.error
        raise SpecError.unknown("model", model, specs)
    return [_row(settings, specs[name]) for name in sorted(specs) if model in (None, name)]


def broken_models(settings: Settings) -> dict[str, str]:
    """Return the models whose spec cannot be used, and why."""
    return {b.name: str(b.error) for b in load_specs(settings)[1]}


def _row(settings: Settings, spec: ModelSpec) -> dict[str, Any]:
    entry = promotions.current(settings, spec)
    versions = list_versions(settings, spec)
    newest = versions[-1] if versions else None
    waiting = newest if newest is not None and newest not in _ever_champion(settings, spec) else None
    last_days = {}
    for stage in STAGES:
        days = Ledger.of(settings, spec.name, stage).days()
        last_days[stage] = days[-1].isoformat() if days else None
    champion: dict[str, Any] | None = None
    if entry is not None:
        info = version_info(settings, spec, entry.version)
        champion = {
            "version": entry.version,
            "run": entry.run,
            "in_force_from": entry.in_force_from.isoformat(),
            "as_of": entry.as_of.isoformat(),
            "kind": entry.kind,
            "reason": entry.reason,
            "by": entry.by,
            "metrics": dict(info.metrics),
        }
    return {
        "model": spec.name,
        "owner": spec.owner,
        "description": spec.description,
        "task": spec.label.task,
        "champion": champion,
        "challenger": waiting,
        "versions": len(versions),
        "promotions": len(promotions.history(settings, spec)),
        "last_days": last_days,
    }


def _ever_champion(settings: Settings, spec: ModelSpec) -> set[str]:
    return {p.version for p in promotions.history(settings, spec)}
