"""The ``govern`` step: decide by pure rules (:func:`decide`) whether a day starts a retraining, and record it.

A signal is a day on which the inputs drifted or the champion's performance fell. It takes several of them to believe it
(hysteresis), time until a training window holds enough of the new regime for retraining to pay, and restraint: one
request per drift, a cool-down and a budget.

Limits look at requests on other days *on both sides*, so that they hold whatever order days are processed in, and so
that deciding a day a second time gives the same answer: its own earlier request is ignored, and every other one has
already made room for it. The record is the commit. A request, once recorded, stays on record whatever a later run of
the same day decides, so that no limit forgets it.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, Literal

from windsock.days import ONE_DAY
from windsock.errors import NotReady
from windsock.ledger import DayRecord, Ledger
from windsock.spec import ModelSpec
from windsock.spec.operations import RetrainingSpec
from windsock.steps import StepContext

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Signal:
    """What the monitor found for one day."""

    day: date
    champion: str | None
    """Model version that was judged; None: there was no champion."""
    drifted: bool = False
    degraded: bool = False
    judged: bool = True
    """False if there was too little data to find anything; such a day neither starts nor ends an episode."""
    why: str = ""
    """The finding in a few words, for reasons."""

    @property
    def on(self) -> bool:
        """Whether the day speaks for retraining."""
        return self.drifted or self.degraded


@dataclass(frozen=True)
class Decision:
    """What to do about one day, and why."""

    action: Literal["none", "wait", "suppress", "retrain"]
    signal: bool
    reasons: list[str]
    onset: date | None = None
    """First day of the episode that the day belongs to."""
    useful_from: date | None = None
    """First day on which retraining pays."""
    dedupe_key: str | None = None
    """Names the drift: champion and onset."""


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
    before = ledger.get_if_whole(day)
    if before is not None and before.detail.get("live") and not ctx.live:
        log.info("%s: %s was decided live; the replay leaves that as it is", spec.name, day)
        return _result(before, retrain=False, repeated=False)
    today = _signal(found)
    since = date.fromisoformat(found.detail["champion_since"]) if found.detail.get("champion_since") else day
    history = [_signal(record) for record in monitor.between(since, day - ONE_DAY).values()]
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
    records = ledger.records(d for d in ledger.days() if first <= d)
    return {d: record.detail["requested"] for d, record in records.items() if record.detail.get("requested")}


def _result(record: DayRecord, *, retrain: bool, repeated: bool) -> dict[str, Any]:
    detail = {name: record.detail[name] for name in ("action", "dedupe_key", "reasons", "onset", "useful_from")}
    return {**detail, "retrain": retrain, "repeated": repeated, "as_of": record.ds}


def decide(
    spec: ModelSpec, today: Signal, history: Iterable[Signal], requests: Mapping[date, str], *, live: bool = True
) -> Decision:
    """Decide about one day.

    Args:
        spec: The model: its policy for retraining, and how long it takes until new data can be learnt from.
        today: The day's signal.
        history: Signals, any order; later ones and other champions' are ignored.
        requests: Day to dedupe key of the retrainings asked for so far; one on the day itself is ignored.
        live: False for a replay: it never asks for a retraining.
    """
    policy, delay_days = spec.retraining, spec.label.delay_days
    if today.champion is None:
        return Decision("none", False, ["there is no champion to judge, so there is nothing to retrain"])
    if not today.on:
        return Decision("none", False, [today.why or "neither drift nor a loss of performance"])
    earlier = sorted((s for s in history if s.day < today.day and s.champion == today.champion), key=lambda s: s.day)
    first = _onset(earlier, today, policy.out_of)
    fresh_days = min(policy.fresh_days, spec.training.window_days)
    regime_from = first.day if first.drifted else first.day - timedelta(days=delay_days)
    useful_from = max(first.day, first_useful(spec, regime_from))
    key = f"{today.champion}@{first.day}"

    def verdict(action: Literal["wait", "suppress", "retrain"], reason: str) -> Decision:
        return Decision(action, True, [r for r in (reason, today.why) if r], first.day, useful_from, key)

    recent = sum(s.on and s.day > today.day - timedelta(days=policy.out_of) for s in (*earlier, today))
    if recent < policy.needed:
        return verdict(
            "wait", f"a signal on {recent} of the last {policy.out_of} days; {policy.needed} are needed to believe it"
        )
    if not policy.enabled:
        return verdict("suppress", "retraining is switched off (retraining.enabled in model.yaml)")
    if not live:
        return verdict("suppress", "replayed: backfills and what they cause never retrain")
    if today.day < useful_from:
        return verdict(
            "wait",
            f"drift since {regime_from}, but only from {useful_from} on does a training window hold "
            f"{_days(fresh_days)} of it (labels arrive after {_days(delay_days)}, {_days(spec.training.holdout_days)} "
            f"are held out, the gap is {_days(spec.gap_days)}); retraining before would learn the old regime again",
        )
    others = {day: asked for day, asked in sorted(requests.items()) if day != today.day}
    # Earlier requests first: they alone decide if days come in order, and so give the reason.
    for known in ({day: asked for day, asked in others.items() if day < today.day}, others):
        if (restraint := _restraint(policy, today.day, key, known)) is not None:
            return verdict("suppress", restraint)
    return verdict(
        "retrain",
        f"a signal on {recent} of the last {policy.out_of} days, drift since {regime_from}, and the training "
        f"window now holds at least {_days(fresh_days)} of it",
    )


def first_useful(spec: ModelSpec, regime_from: date) -> date:
    """Return the first day T whose training window holds ``retraining.fresh_days`` days of a regime.

    Training as of T holds out the days up to the last matured one, ``T - delay``, leaves the
    gap before them, and learns from days up to ``T - delay - holdout - gap``. The regime's
    ``fresh_days``-th day is ``regime_from + fresh_days - 1``.
    """
    fresh_days = min(spec.retraining.fresh_days, spec.training.window_days)
    if fresh_days == 0:
        return regime_from
    lead = spec.label.delay_days + spec.training.holdout_days + spec.gap_days
    return regime_from + timedelta(days=lead + fresh_days - 1)


def _restraint(policy: RetrainingSpec, day: date, key: str, others: Mapping[date, str]) -> str | None:
    """Return why requests on other days rule out one on this day, or None."""
    same = next((on for on, asked in others.items() if asked == key), None)
    if same is not None:
        return f"this drift was already answered by the retraining asked for on {same}: one drift, one retraining"
    near = next((on for on in others if abs((on - day).days) <= policy.cool_down_days), None)
    if near is not None:
        free = near + timedelta(days=policy.cool_down_days + 1)
        return f"cooling down until {free}: a retraining was asked for on {near}"
    # The most requests that any ``budget_days`` consecutive days with this one among them hold.
    windows = range(policy.budget_days)
    if max(sum(0 <= (on - day).days + back < policy.budget_days for on in others) for back in windows) >= policy.budget:
        return f"the budget of {policy.budget} retrainings in {_days(policy.budget_days)} is spent"
    return None


def _onset(earlier: Sequence[Signal], today: Signal, out_of: int) -> Signal:
    """Return the first signal of today's episode; ``out_of`` judged quiet days in a row end an episode."""
    first, quiet = today, 0
    for signal in reversed(earlier):
        if signal.on:
            first, quiet = signal, 0
        elif signal.judged:
            quiet += 1
            if quiet >= out_of:
                break
    return first


def _days(n: int) -> str:
    return f"{n} day{'' if n == 1 else 's'}"
