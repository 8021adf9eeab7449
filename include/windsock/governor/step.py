"""The ``govern`` step: decide about one day and record the decision.

The record is the commit. A request for a retraining, once recorded, stays on record
whatever a later run of the same day decides, so that no limit forgets it.
"""

import logging
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

from windsock.errors import NotReady
from windsock.governor.policy import Signal, decide
from windsock.ledger import DayRecord, Ledger
from windsock.steps import StepContext

log = logging.getLogger(__name__)


def run(ctx: StepContext) -> dict[str, Any]:
    """Decide whether ``ctx.day`` starts a retraining.

    Returns:
        ``action``, ``retrain``, ``dedupe_key``, ``as_of`` (the day), ``reasons``, ``onset``, ``useful_from`` and
        ``repeated``: whether this very request had been recorded before, by an earlier run of this day.

    Raises:
        NotReady: The day has not been monitored yet.
    """
    day, spec = ctx.day, ctx.spec
    monitor = Ledger.of(ctx.settings, spec.name, "monitor")
    found = monitor.get(day)
    if found is None:
        raise NotReady(f"{spec.name}: {day} has not been monitored yet, so nothing can be decided. Run monitor first.")
    ledger = Ledger.of(ctx.settings, spec.name, "decisions")
    before = ledger.get(day)
    if before is not None and before.detail.get("live") and not ctx.live:
        log.info("%s: %s was decided live; the replay leaves that as it is", spec.name, day)
        return _result(before, retrain=False, repeated=False)
    today = _signal(found)
    since = date.fromisoformat(found.detail["champion_since"]) if found.detail.get("champion_since") else day
    history = [_signal(r) for d in monitor.days() if since <= d < day and (r := monitor.get(d)) is not None]
    decision = decide(spec, today, history, _requests(ctx, ledger, since), live=ctx.live)
    retrain = decision.action == "retrain"
    requested = before.detail.get("requested") if before is not None else None
    detail = {
        **asdict(decision),
        "onset": decision.onset and str(decision.onset),
        "useful_from": decision.useful_from and str(decision.useful_from),
        "champion": today.champion,
        "live": ctx.live,
        "requested": decision.dedupe_key if retrain and requested is None else requested,
    }
    record = DayRecord(
        str(day),
        "no_champion" if today.champion is None else "published",
        inputs={f"monitor/{day}": found.content_hash},
        detail=detail,
    )
    log.info("%s %s: %s (%s)", spec.name, day, decision.action, "; ".join(decision.reasons))
    record = ledger.publish(record, origin=ctx.origin)
    return _result(record, retrain=retrain, repeated=retrain and requested is not None)


def _signal(record: DayRecord) -> Signal:
    """Read a monitor record as a signal."""
    detail = record.detail
    return Signal(
        record.day,
        detail.get("champion"),
        drifted=bool(detail.get("drifted")),
        degraded=bool(detail.get("degraded")),
        judged=bool(detail.get("judged", True)),
        why=str(detail.get("summary", "")),
    )


def _requests(ctx: StepContext, ledger: Ledger, since: date) -> dict[date, str]:
    """Return the requests on record that can matter: this champion's, and those near enough for the limits."""
    policy, day = ctx.spec.retraining, ctx.day
    first = min(since, day - timedelta(days=max(policy.cool_down_days, policy.budget_days)))
    records = (ledger.get(d) for d in ledger.days() if first <= d)
    return {r.day: r.detail["requested"] for r in records if r is not None and r.detail.get("requested")}


def _result(record: DayRecord, *, retrain: bool, repeated: bool) -> dict[str, Any]:
    detail = {name: record.detail[name] for name in ("action", "dedupe_key", "reasons", "onset", "useful_from")}
    return {**detail, "retrain": retrain, "repeated": repeated, "as_of": record.ds}
