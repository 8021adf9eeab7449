"""One line per model, from the store alone: no server is asked, so it works while all are down."""

from typing import Any

from windsock import promotions
from windsock.ledger import Ledger
from windsock.registry.versions import list_versions, version_info
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec, load_specs

STAGES = ("ingest", "features", "score", "monitor")
_OF_CHAMPION = ("version", "run", "in_force_from", "as_of", "kind", "reason", "by")


def overview(settings: Settings, model: str | None = None) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return what is known of each model, or of one, in order of names; and whose spec cannot be used, and why.

    Raises:
        SpecError: There is no model of that name, or its spec cannot be used.
    """
    specs, broken = load_specs(settings)
    if model is not None:
        specs = {model: get_spec(settings, model)}
    return [_row(settings, specs[name]) for name in sorted(specs)], {name: str(err) for name, err in broken.items()}


def _row(settings: Settings, spec: ModelSpec) -> dict[str, Any]:
    entries, versions = promotions.history(settings, spec), list_versions(settings, spec)
    newest = versions[-1] if versions else None
    champion = None
    if entries:
        content = entries[-1].to_json()
        metrics = dict(version_info(settings, spec, entries[-1].version).metrics)
        champion = {**{name: content[name] for name in _OF_CHAMPION}, "metrics": metrics}
    days = {stage: Ledger.of(settings, spec.name, stage).days() for stage in STAGES}
    return {
        "model": spec.name,
        "owner": spec.owner,
        "description": spec.description,
        "task": spec.label.task,
        "champion": champion,
        "challenger": newest if newest not in {p.version for p in entries} else None,
        "versions": len(versions),
        "promotions": len(entries),
        "last_days": {stage: found[-1].isoformat() if found else None for stage, found in days.items()},
    }
