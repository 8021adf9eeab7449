"""The daily digest of a model: one message that says how it stands, once its night is over, at noon at the latest."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from windsock import promotions
from windsock.alerts import Alert, report
from windsock.days import ONE_DAY, spans
from windsock.ledger import Ledger
from windsock.outbox import Outbox
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.upkeep.stage_days import STAGES, StageDays
from windsock.upkeep.told import Told

_AT_THE_LATEST = 12
"""Hour (UTC) at which a night that is not over is waited for no longer."""
_DAGS = (*STAGES, "retrain", "train", "promote", "rollback", "maintenance")
"""What a thread's name has after the model's, if it is of a DAG: another model's name may begin like this one's."""
_ASLEEP = timedelta(days=7)
"""A model of which nothing came for so long has nothing to say."""


def tell_digest(
    settings: Settings, spec: ModelSpec, told: Told, stages: Mapping[str, StageDays], now: datetime
) -> None:
    """Report the digest of yesterday, once; nothing of a model that is switched off, or asleep."""
    day, last = now.date() - ONE_DAY, stages["ingest"].last
    known = not (new := told.untold("digest", [str(day)]))
    if not spec.alerts.digest or known or last is None or day - last > _ASLEEP:
        return
    if stages["monitor"].last != day and now.hour < _AT_THE_LATEST:
        return
    told.mark("digest", new)
    dag_id = f"{spec.name}_monitor"
    facts = tuple(facts_of(settings, spec, stages, day).items())
    sentence = f"How {spec.name} stands after {day}."
    url, cause = f"{settings.ui_url}/dags/{dag_id}", f"digest {spec.name} {day}"
    alert = Alert(dag_id, sentence, None, str(day), url, f"{spec.name}: daily digest", cause, "digest", facts=facts)
    report(settings, alert, spec)


def facts_of(settings: Settings, spec: ModelSpec, stages: Mapping[str, StageDays], day: date) -> dict[str, str]:
    """Return what a digest shows, by name.

    Raises:
        DamagedRecord: A record of the day cannot be read.
    """
    records = {stage: Ledger.of(settings, spec.name, stage).get(day) for stage in ("ingest", "score", "monitor")}
    details: dict[str, dict[str, Any]] = {stage: dict(r.detail) for stage, r in records.items() if r is not None}
    ingest, score, night = records["ingest"], records["score"], details.get("monitor", {})
    if ingest is None:
        rows = "not there yet"
    elif ingest.status == "published":
        aside = sum(dict(ingest.detail.get("quarantined") or {}).values())
        rows = f"{ingest.detail.get('published', 0):,}" + (f", {aside:,} set aside" if aside else "")
    else:
        rows = ingest.status
    facts = {"Rows": rows, "Scored": f"{score.rows('predictions'):,}" if score is not None else "not yet"}
    if night.get("champion") is not None:
        drift = f"{night.get('drifted_share', 0):.0%} of features" if night.get("drifted") else "none"
        facts["Drift"] = "not judged: the data is broken" if night.get("broken") else drift
        found = night.get("performance") or {}
        if isinstance(found.get("value"), float):
            promised = f", promised {found['holdout']:.3g}" if isinstance(found.get("holdout"), float) else ""
            worse = " (worse)" if night.get("degraded") else ""
            facts[str(found.get("metric"))] = f"{found['value']:.3g}{promised}{worse}"
    champion = promotions.current(settings, spec)
    facts["Champion"] = (
        f"version {champion.version}, trained up to {champion.as_of}, {(day - champion.as_of).days} days ago"
        if champion is not None
        else "none"
    )
    lacking = {stage: [*days.beyond, *days.lacking] for stage, days in stages.items()}
    if late := "; ".join(f"{stage}: {spans(days)}" for stage, days in lacking.items() if days):
        facts["Days lacking"] = late if len(late) <= 200 else f"{late[:200]}…"
    about = {spec.name, *(f"{spec.name}_{dag}" for dag in _DAGS)}
    threads = [name for name in Outbox(Store.of(settings)).open_threads() if about & {*name.split(" ")[1:2]}]
    facts["Not over"] = ", ".join(sorted(threads)[:5]) or "nothing"
    return facts
