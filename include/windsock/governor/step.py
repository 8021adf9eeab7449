"""The ``govern`` step: decide about one day and record the decision.

The record is the commit. A request for a retraining, once recorded, stays on record
whatever a later run of the same day decides, so that no limit forgets it.
"""

import logging
from datetime import date, timedelta
from typing import Any

from windsock.errors import NotReady
from windsock.governor.policy import Decision, Lead, Request, Signal, decide
from windsock.ledger import DayRecord, Ledger, Status
from windsock.steps import StepContext

log = logging.getLogger(__name__)

STAGE = "decisions"


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
    ledger = Ledger.of(ctx.settings, spec.name, STAGE)
    before = ledger.get(day)
    if before is not None and before.detail.get("live") and not ctx.live:
        log.info("%s: %s was decided live; the replay leaves that as it is", spec.name, day)
        return _result(before, retrain=False, repeated=False)
    today = signal_of(found)
    since = date.fromisoformat(found.detail["champion_since"]) if found.detail.get("champion_since") else day
    history = [signal_of(r) for d in monitor.days() if since <= d < day and (r := monitor.get(d)) is not None]
    decision = decide(spec.retraining, today, history, _requests(ctx, ledger, since), lead=Lead.of(spec), live=ctx.live)
    requested = before.detail.get("requested") if before is not None else None
    repeated = decision.action == "retrain" and requested is not None
    if decision.action == "retrain" and requested is None:
        requested = decision.dedupe_key
    status: Status = "no_champion" if today.champion is None else "published"
    record = DayRecord(
        day.isoformat(),
        status,
        inputs={f"monitor/{day}": found.content_hash},
        detail=_detail(decision, today, requested, live=ctx.live),
    )
    record = ledger.publish(record, origin=ctx.origin)
    log.info("%s %s: %s (%s)", spec.name, day, decision.action, "; ".join(decision.reasons))
    return _result(record, retrain=decision.action == "retrain", repeated=repeated)


def signal_of(record: DayRecord) -> Signal:
    """Read a monitor record as a signal."""
    detail = record.detail
    return Signal(
        day=record.day,
        champion=detail.get("champion"),
        drifted=bool(detail.get("drifted")),
        degraded=bool(detail.get("degraded")),
        judged=bool(detail.get("judged", True)),
        why=str(detail.get("summary", "")),
    )


def _requests(ctx: StepContext, ledger: Ledger, since: date) -> list[Request]:
    """Return the requests on record that can matter: this champion's, and those near enough for the limits."""
    policy, day = ctx.spec.retraining, ctx.day
    reach = timedelta(days=max(policy.cool_down_days, policy.budget_days))
    records = (ledger.get(d) for d in ledger.days() if min(since, day - reach) <= d)
    return [Request(r.day, r.detail["requested"]) for r in records if r is not None and r.detail.get("requested")]


def _detail(decision: Decision, today: Signal, requested: str | None, *, live: bool) -> dict[str, Any]:
    return {
        "action": decision.action,
        "signal": decision.signal,
        "reasons": list(decision.reasons),
        "onset": decision.onset.isoformat() if decision.onset else None,
        "useful_from": decision.useful_from.isoformat() if decision.useful_from else None,
        "dedupe_key": decision.dedupe_key,
        "champion": today.champion,
        "live": live,
        "requested": requested,
    }


def _result(record: DayRecord, *, retrain: bool, repeated: bool) -> dict[str, Any]:
    detail = {name: record.detail[name] for name in ("action", "dedupe_key", "reasons", "onset", "useful_from")}
    return {**detail, "retrain": retrain, "repeated": repeated, "as_of": record.ds}
