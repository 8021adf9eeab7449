"""The ``monitor`` step: one night's findings about the champion, recorded for one day."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from windsock.days import spans
from windsock.errors import NotReady
from windsock.ledger import DayRecord, Ledger
from windsock.monitoring.drift import Drift, find_drift
from windsock.monitoring.page import Page, draw_page, drift_sentence
from windsock.monitoring.performance import Judgement, measure_performance
from windsock.monitoring.window import draw_samples
from windsock.promotions import Promotion, champion_on
from windsock.steps import StepContext

log = logging.getLogger(__name__)

_NOT_JUDGED: Mapping[str, Any] = {
    **dict.fromkeys(("champion", "champion_since", "promised", "prediction", "performance", "estimate")),
    **dict.fromkeys(("cause", "report")),
    **dict.fromkeys(("drifted", "degraded", "judged"), False),
    "drift": {},
    "labels": {},
    "scored_days": [],
    "broken": [],
    "examined": False,
    "drifted_share": 0.0,
    "notes": [],
    "summary": "there was no champion on this day, so nothing was judged",
}
"""Detail of a day without a champion."""


def run(ctx: StepContext) -> dict[str, Any]:
    """Compare the recent days with the champion's reference and judge its matured predictions.

    Returns:
        ``status``, ``drifted``, ``degraded``, ``drifted_share``, ``champion``, ``summary`` (a sentence) and
        ``report`` (path of the HTML page in the store, or None).

    Raises:
        NotReady: The day is neither scored nor recorded as rejected.
    """
    _must_be_settled(ctx)
    champion = champion_on(ctx.settings, ctx.spec, ctx.day)
    if champion is None:
        record = DayRecord(str(ctx.day), "no_champion", detail=_NOT_JUDGED)
    else:
        record = _findings(ctx, champion)
    record = Ledger.of(ctx.settings, ctx.spec.name, "monitor").publish(record, origin=ctx.origin)
    detail = record.detail
    alarm = detail["drifted"] or detail["degraded"] or detail["broken"] or detail["labels"].get("alarm")
    level = logging.WARNING if alarm else logging.INFO
    log.log(level, "%s %s: %s", ctx.spec.name, ctx.day, detail["summary"])
    names = ("drifted", "degraded", "drifted_share", "champion", "summary", "report", "performance")
    return {"status": record.status, **{name: detail[name] for name in names}}


def _must_be_settled(ctx: StepContext) -> None:
    day, model = ctx.day, ctx.spec.name
    found = {stage: Ledger.of(ctx.settings, model, stage).get(day) for stage in ("ingest", "score")}
    if (ingested := found["ingest"]) is not None and ingested.status == "rejected":
        return
    if missing := [stage for stage, record in found.items() if record is None]:
        raise NotReady(
            f"{model}: {' and '.join(missing)} of {day} is not done yet, so there is nothing to monitor. "
            f"Run {model}_{missing[0]} for {day}; the rest of the chain follows by itself."
        )


def _findings(ctx: StepContext, champion: Promotion) -> DayRecord:
    day, spec = ctx.day, ctx.spec
    rows = draw_samples(ctx.settings, spec, day, champion)
    drift = find_drift(spec, rows, np.random.default_rng([day.toordinal(), 1]))
    found = drift_sentence(champion.version, drift, rows.weights)
    luck = np.random.default_rng([day.toordinal(), 2])
    judgement = measure_performance(ctx.settings, spec, day, champion, luck)
    return DayRecord(
        str(day),
        "published",
        inputs={**rows.inputs, "champion": f"{champion.version}/{champion.run}"},
        detail={
            "champion": champion.version,
            "champion_since": str(champion.in_force_from),
            "drift": drift.columns,
            "prediction": drift.prediction,
            "drifted_share": drift.share,
            "drifted": drift.drifted,
            "performance": judgement.performance,
            "promised": judgement.promised,
            "scored_days": judgement.scored_days,
            "estimate": judgement.estimate,
            "degraded": judgement.degraded and not drift.broken,  # a training would learn what is broken
            "labels": judgement.labels,
            "cause": _cause(drift, judgement),
            "judged": drift.judged or (judgement.judged and not drift.broken),
            "days": spans(rows.days),
            "rows": {"current": len(rows.current), "reference": len(rows.reference)},
            "notes": [*rows.notes, *judgement.remarks],
            "broken": [each.as_json() for each in drift.broken],
            "examined": drift.examined,
            "drifted_weight": drift.weight,
            "summary": _summary(found, drift, judgement),
            "report": _save(ctx, draw_page(spec, rows, drift, found)),
        },
    )


def _save(ctx: StepContext, page: Page | None) -> str | None:
    """Keep the report's page and numbers; return the page's path in the store."""
    if page is None:
        return None
    folder = ("reports", ctx.spec.name, str(ctx.day))
    ctx.store.write_bytes(page.json, *folder, "drift.json")
    ctx.store.write_bytes(page.html, *folder, "drift.html")
    return "/".join((*folder, "drift.html"))


def _cause(drift: Drift, judgement: Judgement) -> str | None:
    """Name what a loss comes with: inputs that moved, or a relation between them and the label that is another now."""
    if not judgement.degraded:
        return None
    return "inputs" if drift.drifted else "concept" if drift.judged else None


def _summary(found: str, drift: Drift, judgement: Judgement) -> str:
    """Say in a sentence or two what was found."""
    told = [found, *judgement.remarks[:1]] if judgement.degraded else [found]
    if _cause(drift, judgement) == "concept":
        moved = any(column["drifted"] for column in drift.columns.values())
        inputs = "no input that matters has moved" if moved else "inputs look as before"
        told.append(f"{inputs}, so what they mean for the label has changed (concept drift)")
    return "; ".join([*told, *filter(None, [judgement.labels["why"]])])
