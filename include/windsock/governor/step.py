"""The ``govern`` step: decide by the rules of ``policy`` whether a day starts a retraining, and record it.

The record is the commit. A request, once recorded, stays on record whatever a later run of the same day decides, so
that no limit forgets it; and if that day is decided again, it is this request that is repeated, under its own name.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

from windsock.days import ONE_DAY, day_range, spans
from windsock.errors import NotReady
from windsock.governor.answers import answers_to, requests_since
from windsock.governor.episode import Episode, Signal, episode, measured_by
from windsock.governor.policy import decide
from windsock.ledger import DECISIONS, DayRecord, Ledger
from windsock.promotions import champion_on
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import StepContext
from windsock.store import to_json

log = logging.getLogger(__name__)

_READ_AT_ONCE = 60
"""Nights read at a time on the way back to where an episode began."""


def run(ctx: StepContext) -> dict[str, Any]:
    """Decide whether ``ctx.day`` starts a retraining.

    Returns:
        ``action``, ``retrain``, ``dedupe_key``, ``as_of`` (the day), ``reasons``, ``onset``, ``useful_from``,
        ``recovery``, ``trigger`` and ``repeated``: whether this very request had been recorded before, by an earlier
        run of this day.

    Raises:
        NotReady: The day has not been monitored yet.
    """
    day, spec = ctx.day, ctx.spec
    monitor = Ledger.of(ctx.settings, spec.name, "monitor")
    found = monitor.get(day)
    if found is None:
        raise NotReady(f"{spec.name}: {day} has not been monitored yet, so nothing can be decided. Run monitor first.")
    ledger = Ledger.of(ctx.settings, spec.name, DECISIONS)
    before = ledger.get_if_whole(day)
    if before is not None and before.detail.get("live") and not ctx.live:
        log.info("%s: %s was decided live; the replay leaves that as it is", spec.name, day)
        return _result(before, retrain=False, repeated=False)
    history = history_of(ctx.settings, spec, day)
    today = signal_of(found, new_labels(ctx.settings, spec, day))
    goes_on = episode(spec, [*history, today])
    requests = requests_since(ctx.settings, spec.name, _oldest_that_matters(spec, day, goes_on))
    decision = decide(spec, today, history, requests, answers_to(ctx.settings, spec, requests), live=ctx.live)
    retrain = decision.action == "retrain"
    requested = before.detail.get("requested") if before is not None else None
    missing = missing_nights(ctx.settings, spec, day)
    said = [f"not monitored, and so not counted: {spans(missing)}"] if missing and decision.signal else []
    detail = {
        **asdict(decision),
        "reasons": [*decision.reasons, *said],
        "onset": decision.onset and str(decision.onset),
        "root": decision.root and str(decision.root),
        "useful_from": decision.useful_from and str(decision.useful_from),
        "recovery": decision.recovery and str(decision.recovery),
        "champion": today.champion,
        "live": ctx.live,
        "requested": decision.dedupe_key if retrain else requested,
        "missing_nights": [str(d) for d in missing],
        "settings": settings_hash(spec),
    }
    record = DayRecord(
        str(day),
        "no_champion" if today.champion is None else "published",
        inputs={f"monitor/{day}": found.content_hash},
        detail=detail,
    )
    log.info("%s %s: %s (%s)", spec.name, day, decision.action, "; ".join(detail["reasons"]))
    record = ledger.publish(record, origin=ctx.origin)
    return _result(record, retrain=retrain, repeated=retrain and requested is not None)


def history_of(settings: Settings, spec: ModelSpec, day: date) -> list[Signal]:
    """Return the signals before a day, as far back as its episode may reach; none before it change its beginning.

    Nights of half a cure look quiet without those of the champion before: the newest decision before says since when it
    goes on.
    """
    ledger, found, last = Ledger.of(settings, spec.name, "monitor"), list[Signal](), day - ONE_DAY
    decisions = Ledger.of(settings, spec.name, DECISIONS)
    newest = max((d for d in decisions.days() if d < day), default=last)  # the night before may not be decided yet
    decided = decisions.get_if_whole(newest)
    begun = (decided.detail.get("root") or decided.detail.get("onset")) if decided is not None else None
    reaches = date.fromisoformat(str(begun)) if begun else day
    while last >= spec.first_day:
        first = max(last - timedelta(days=_READ_AT_ONCE - 1), spec.first_day)
        part = [signal_of(record) for record in ledger.between(first, last).values()]
        found = [*part, *found]
        quiet, champion, since = 0, None, first
        for signal in part:  # what ends an episode of any champion
            if signal.champion != champion:
                champion, since = signal.champion, signal.day
            says_so = signal.value is not None or signal.day >= measured_by(spec, since)
            quiet = quiet + 1 if signal.judged and not signal.on and says_so else 0
            if quiet >= spec.retraining.out_of and first <= reaches:
                return found
        if not part:
            break
        last = first - ONE_DAY
    return found


def signal_of(record: DayRecord, labels: int = 0) -> Signal:
    """Read a monitor record as a signal; those of version 0.1 say less."""
    detail = record.detail
    columns: Mapping[str, Any] = detail.get("drift") or {}
    drifted = [c for c in columns.values() if c.get("drifted")]
    # Where a second look was taken, by that: the steadier one.
    far = [c.get("times") or (c.get("value") or 0.0) / (c.get("threshold") or float("inf")) for c in drifted]
    times = [float(each) for each in far if each]
    performance: Mapping[str, Any] = detail.get("performance") or {}
    value, promised = performance.get("value"), detail.get("promised", performance.get("holdout"))
    return Signal(
        record.day,
        detail.get("champion"),
        drifted=bool(detail.get("drifted")),
        degraded=bool(detail.get("degraded")),
        judged=bool(detail.get("judged", True)),
        why=str(detail.get("summary", "")),
        columns=len(drifted),
        distance=max(times, default=0.0),
        # Measured of this champion, and on enough rows to say something.
        value=value if performance.get("loss") is not None and _of_its_own(detail, performance) else None,
        promised=promised,
        new_labels=labels,
    )


def _of_its_own(detail: Mapping[str, Any], performance: Mapping[str, Any]) -> bool:
    versions = performance.get("versions")
    return versions is None or performance.get("basis") == "re-scored" or list(versions) == [detail.get("champion")]


def new_labels(settings: Settings, spec: ModelSpec, day: date) -> int:
    """Count the labels that have become known since the champion's training; 0 if nobody asks."""
    if spec.retraining.on_new_labels is None or (champion := champion_on(settings, spec, day)) is None:
        return 0
    files, back = spec.label.files is not None, timedelta(days=spec.label.delay_days)
    days = day_range(champion.as_of + ONE_DAY, day) if files else day_range(champion.as_of + ONE_DAY - back, day - back)
    ledger = Ledger.of(settings, spec.name, "labels" if files else "ingest")
    return sum(record.rows("labels") for record in ledger.records(days).values())


def missing_nights(settings: Settings, spec: ModelSpec, day: date) -> list[date]:
    """List the nights just before a day that were scored and not monitored: they may have had a signal."""
    before = day_range(max(day - timedelta(days=spec.retraining.out_of - 1), spec.first_day), day - ONE_DAY)
    monitored, scored = (Ledger.of(settings, spec.name, stage).records(before) for stage in ("monitor", "score"))
    return [d for d in scored if d not in monitored]


def settings_hash(spec: ModelSpec) -> str:
    """Return a SHA-256 of what decisions follow from beside signals: the policy, and how long it is until it pays."""
    training, monitoring = spec.training, spec.monitoring
    rules = [spec.retraining.model_dump(mode="json"), spec.label.delay_days, spec.gap_days, training.metric]
    rules += [training.holdout_days, training.window_days, monitoring.window_days, monitoring.max_performance_drop]
    rules += [monitoring.performance_days]
    return hashlib.sha256(to_json(rules)).hexdigest()


def _oldest_that_matters(spec: ModelSpec, day: date, found: Episode | None) -> date:
    """Return from which day on requests can matter: those of this episode, and those near enough for the limits."""
    limits = day - timedelta(days=max(spec.retraining.cool_down_days, spec.retraining.budget_days))
    return min(limits, found.root.day) if found is not None else limits


def _result(record: DayRecord, *, retrain: bool, repeated: bool) -> dict[str, Any]:
    names = ("action", "dedupe_key", "reasons", "onset", "useful_from", "recovery", "trigger")
    detail = {name: record.detail.get(name) for name in names}
    return {**detail, "retrain": retrain, "repeated": repeated, "as_of": record.ds}
