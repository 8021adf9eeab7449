"""One line per model, from the store alone: no server is asked, so it works while all are down."""

from typing import Any

from windsock import promotions
from windsock.errors import SpecError
from windsock.ledger import Ledger
from windsock.registry.versions import list_versions, version_info
from windsock.settings import Settings
from windsock.spec import ModelSpec, load_specs

STAGES = ("ingest", "features", "score", "monitor")


def overview(settings: Settings, model: str | None = None) -> list[dict[str, Any]]:
    """Return what is known of each model, or of one, in order of names.

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
    entries, versions = promotions.history(settings, spec), list_versions(settings, spec)
    newest = versions[-1] if versions else None
    days = {stage: Ledger.of(settings, spec.name, stage).days() for stage in STAGES}
    return {
        "model": spec.name,
        "owner": spec.owner,
        "description": spec.description,
        "task": spec.label.task,
        "champion": _champion(settings, spec, entries[-1]) if entries else None,
        "challenger": newest if newest not in {p.version for p in entries} else None,
        "versions": len(versions),
        "promotions": len(entries),
        "last_days": {stage: found[-1].isoformat() if found else None for stage, found in days.items()},
    }


def _champion(settings: Settings, spec: ModelSpec, entry: promotions.Promotion) -> dict[str, Any]:
    wanted = ("version", "run", "in_force_from", "as_of", "kind", "reason", "by")
    content = entry.to_json()
    metrics = dict(version_info(settings, spec, entry.version).metrics)
    return {**{name: content[name] for name in wanted}, "metrics": metrics}
