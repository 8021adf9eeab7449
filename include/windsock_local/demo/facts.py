"""What happened in the demo, read from ledgers, promotions and gate reports: nothing is made up."""

from typing import Any

from windsock import promotions as promotion_log
from windsock.ledger import Ledger
from windsock.promotions import Promotion
from windsock.settings import Settings
from windsock.store import Store
from windsock_local.demo.plan import DemoPlan


def collect(settings: Settings, plan: DemoPlan) -> dict[str, Any]:
    """Gather the facts of a finished demo as plain JSON types."""
    spec = plan.spec
    ingest = Ledger.of(settings, spec.name, "ingest").all()
    features = Ledger.of(settings, spec.name, "features").all()
    scores = Ledger.of(settings, spec.name, "score").all()
    monitored = Ledger.of(settings, spec.name, "monitor").all()
    decisions = Ledger.of(settings, spec.name, "decisions").all()
    rejected = {r.ds: list(r.detail.get("reasons", [])) for r in ingest.values() if r.status == "rejected"}
    quarantined = {
        r.ds: {"rows": r.rows("quarantine"), "rules": dict(r.detail.get("quarantined", {}))}
        for r in ingest.values()
        if r.rows("quarantine")
    }
    return {
        "model": spec.name,
        "source": spec.source.kind,
        "metric": spec.training.metric,
        "days": {
            "first": str(plan.first_day),
            "last": max((r.ds for r in ingest.values()), default=None),
            "ingested": sum(r.status in ("published", "empty") for r in ingest.values()),
            "rejected": len(rejected),
            "with_features": sum(r.status == "published" for r in features.values()),
            "scored": sum(r.status == "published" for r in scores.values()),
            "monitored": len(monitored),
        },
        "rows": {
            "ingested": sum(r.rows("events") for r in ingest.values()),
            "quarantined": sum(r.rows("quarantine") for r in ingest.values()),
            "scored": sum(r.rows("predictions") for r in scores.values()),
        },
        "planted": {str(day): kind for day, kind in plan.planted.items()},
        "rejected_days": rejected,
        "quarantined_days": quarantined,
        "warnings": {r.ds: list(r.detail["warnings"]) for r in ingest.values() if r.detail.get("warnings")},
        "drift": {
            "injected_from": str(plan.drift_from) if plan.drift_from else None,
            "first_seen": min((r.ds for r in monitored.values() if r.detail.get("drifted")), default=None),
            "quiet_days": sum(not r.detail.get("drifted") and r.status == "published" for r in monitored.values()),
            "decisions": [
                {"ds": r.ds, "action": r.detail.get("action"), "reasons": list(r.detail.get("reasons", []))}
                for r in decisions.values()
            ],
        },
        "versions": [_version(settings, spec.name, p) for p in promotion_log.history(settings, spec)],
    }


def _version(settings: Settings, model: str, promotion: Promotion) -> dict[str, Any]:
    store = Store.of(settings)
    run = ("runs", model, promotion.run)
    gate = store.read_json(*run, "gate.json") if store.exists(*run, "gate.json") else None
    return {
        "version": promotion.version,
        "kind": promotion.kind,
        "previous": promotion.previous,
        "as_of": str(promotion.as_of),
        "in_force_from": str(promotion.in_force_from),
        "reason": promotion.reason,
        "metrics": store.read_json(*run, "metrics.json")["holdout"],
        "gate": gate,
    }
