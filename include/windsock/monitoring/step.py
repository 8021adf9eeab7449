"""The ``monitor`` step: one night's findings about the champion, recorded for one day."""

import logging
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np

from windsock.days import spans
from windsock.errors import NotReady
from windsock.ledger import DayRecord, Ledger
from windsock.monitoring.drift import Drift, find_drift
from windsock.monitoring.performance import measure_performance
from windsock.monitoring.window import draw_samples
from windsock.promotions import Promotion, champion_on
from windsock.steps import StepContext

log = logging.getLogger(__name__)

REPORTS = "reports"


def run(ctx: StepContext) -> dict[str, Any]:
    """Compare the recent days with the champion's reference and judge its matured predictions.

    Returns:
        ``status``, ``drifted``, ``degraded``, ``drifted_share``, ``champion``, ``summary`` (a sentence) and
        ``report`` (path of the HTML page in the store, or None).

    Raises:
        NotReady: The day is neither scored nor recorded as rejected.
    """
    day, spec = ctx.day, ctx.spec
    _must_be_settled(ctx, day)
    champion = champion_on(ctx.settings, spec, day)
    ledger = Ledger.of(ctx.settings, spec.name, "monitor")
    if champion is None:
        record = ledger.publish(_no_champion(day), origin=ctx.origin)
        return _result(record)
    rows = draw_samples(ctx.settings, spec, day, champion)
    drift = find_drift(spec, rows, _seeded(day, 1))
    performance, remark = measure_performance(ctx.settings, spec, day, champion, _seeded(day, 2))
    degraded = bool(performance and performance["degraded"])
    report = _save(ctx, day, drift)
    record = DayRecord(
        day.isoformat(),
        "published",
        inputs={**rows.inputs, "champion": f"{champion.version}/{champion.run}"},
        detail={
            "champion": champion.version,
            "champion_since": champion.in_force_from.isoformat(),
            "drift": {name: dict(found) for name, found in drift.columns.items()},
            "prediction": dict(drift.prediction),
            "drifted_share": drift.share,
            "drifted": drift.drifted,
            "performance": performance,
            "degraded": degraded,
            "judged": drift.judged or bool(performance and performance["loss"] is not None),
            "days": spans(rows.days),
            "rows": {"current": len(rows.current), "reference": len(rows.reference)},
            "notes": [*rows.notes, *([remark] if remark else [])],
            "summary": _summary(champion, drift, degraded, remark),
            "report": report,
        },
    )
    record = ledger.publish(record, origin=ctx.origin)
    log.log(
        logging.WARNING if drift.drifted or degraded else logging.INFO,
        "%s %s: %s",
        spec.name,
        day,
        record.detail["summary"],
    )
    return _result(record)


def _must_be_settled(ctx: StepContext, day: date) -> None:
    settings, model = ctx.settings, ctx.spec.name
    ingested = Ledger.of(settings, model, "ingest").get(day)
    if ingested is not None and ingested.status == "rejected":
        return
    missing = [s for s in ("ingest", "features", "score") if Ledger.of(settings, model, s).get(day) is None]
    if missing:
        raise NotReady(
            f"{model}: {' and '.join(missing)} of {day} is not done yet, so there is nothing to monitor. "
            f"Run {model}_{missing[0]} for {day}; the rest of the chain follows by itself."
        )


def _seeded(day: date, stream: int) -> np.random.Generator:
    return np.random.default_rng([day.toordinal(), stream])


def _save(ctx: StepContext, day: date, drift: Drift) -> str | None:
    """Keep the report's page and numbers; return the page's path in the store."""
    if drift.html is None or drift.json is None:
        return None
    folder = (REPORTS, ctx.spec.name, day.isoformat())
    ctx.store.write_bytes(drift.json, *folder, "drift.json")
    ctx.store.write_bytes(drift.html, *folder, "drift.html")
    return "/".join((*folder, "drift.html"))


def _summary(champion: Promotion, drift: Drift, degraded: bool, remark: str | None) -> str:
    """Say in a sentence or two what was found."""
    parts = []
    if drift.drifted:
        worst = sorted(((n, f) for n, f in drift.columns.items() if f["drifted"]), key=lambda nf: -_excess(nf[1]))
        judged = sum(f["value"] is not None or f["drifted"] for f in drift.columns.values())
        named = ", ".join(_described(n, f) for n, f in worst[:3])
        moved = ", and its predictions moved" if drift.prediction["drifted"] else ""
        parts.append(
            f"{len(worst)} of {judged} features drifted from version {champion.version}'s reference{moved}: {named}"
        )
    elif not drift.judged:
        why = next((str(f["why"]) for f in drift.columns.values() if "why" in f), "no reference")
        parts.append(f"drift was not judged ({why})")
    else:
        parts.append(f"no drift (share of drifted features {drift.share:.0%})")
    if degraded and remark:
        parts.append(remark)
    return "; ".join(parts)


def _excess(found: Mapping[str, Any]) -> float:
    return float(found["value"] / found["threshold"]) if found["value"] is not None else float("inf")


def _described(name: str, found: Mapping[str, Any]) -> str:
    if found["value"] is None or found["value"] < found["threshold"]:
        return f"{name} ({found.get('why', 'missing values')})"
    return f"{name} ({found['method']} {found['value']:.2f}, threshold {found['threshold']:.2g})"


def _no_champion(day: date) -> DayRecord:
    detail: dict[str, Any] = {
        "champion": None,
        "champion_since": None,
        "drift": {},
        "prediction": None,
        "drifted_share": 0.0,
        "drifted": False,
        "performance": None,
        "degraded": False,
        "judged": False,
        "notes": [],
        "summary": "there was no champion on this day, so nothing was judged",
        "report": None,
    }
    return DayRecord(day.isoformat(), "no_champion", detail=detail)


def _result(record: DayRecord) -> dict[str, Any]:
    names = ("drifted", "degraded", "drifted_share", "champion", "summary", "report", "performance")
    return {"status": record.status, **{name: record.detail[name] for name in names}}
