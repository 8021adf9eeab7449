"""The rules by which a night may start a retraining: :func:`decide`, a pure function of what is on record.

A signal is a night on which the inputs drifted, the champion's performance fell, or a champion that was trained for a
drift has cured only half of it. It takes several to believe it (hysteresis), time until a training window holds enough
of the new regime for retraining to pay, and restraint: a pause between the requests of one episode and a most of them,
a cool-down between episodes, and a budget. What is left then is for people.

Limits look at requests on other days *on both sides*, so that they hold whatever order days are processed in, and so
that deciding a day a second time gives the same answer: its own earlier request is ignored, and every other one has
already made room for it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal

from windsock.governor.episode import Signal, onset, speaks
from windsock.spec import ModelSpec
from windsock.spec.operations import RetrainingSpec

Trigger = Literal["drift", "loss", "labels"]


@dataclass(frozen=True)
class Answer:
    """What has become of a request for a training."""

    state: Literal["begun", "trained", "refused", "promoted", "unknown"]
    """``begun``: it has a run folder and no version; ``unknown``: of a replay, where nothing can become of it."""
    run: str = ""
    version: str | None = None
    in_force_from: date | None = None


@dataclass(frozen=True)
class Decision:
    """What to do about one day, and why."""

    action: Literal["none", "wait", "suppress", "retrain", "escalate"]
    signal: bool
    reasons: list[str]
    onset: date | None = None
    """First day of the episode that the day belongs to."""
    useful_from: date | None = None
    """First day on which retraining pays."""
    dedupe_key: str | None = None
    """Names the request: champion and onset of its episode, and from the second on its number."""
    trigger: Trigger | None = None
    numbers: dict[str, Any] = field(default_factory=dict)
    """What was counted and measured."""


def decide(
    spec: ModelSpec,
    today: Signal,
    history: Iterable[Signal],
    requests: Mapping[date, str],
    answers: Mapping[str, Answer] | None = None,
    *,
    live: bool = True,
) -> Decision:
    """Decide about one day.

    Args:
        spec: The model: its policy for retraining, and how long it takes until new data can be learnt from.
        today: The day's signal.
        history: Signals, any order; later ones are ignored, and those of other champions say only since when it is so.
        requests: Day to dedupe key of the retrainings asked for so far; one on the day itself only gives its name.
        answers: Dedupe key to what has become of the request; one without has no training.
        live: False for a replay: it never asks for a retraining.
    """
    policy, delay_days = spec.retraining, spec.label.delay_days
    if today.champion is None:
        return Decision("none", False, ["there is no champion to judge, so there is nothing to retrain"])
    earlier = sorted((s for s in history if s.day < today.day), key=lambda s: s.day)
    first = onset(spec, [*earlier, today])
    others = {day: asked for day, asked in sorted(requests.items()) if day != today.day}
    if first is None or not speaks(spec, today, first):
        return _new_labels(policy, today, requests, answers or {}, live) or Decision(
            "none", False, [today.why or "neither drift nor a loss of performance"]
        )
    fresh_days = min(policy.fresh_days, spec.training.window_days)
    regime_from = first.day if first.drifted else first.day - timedelta(days=delay_days)
    useful_from = max(first.day, first_useful(spec, regime_from))
    own = [s for s in (*earlier, today) if s.champion == today.champion and speaks(spec, s, first)]
    recent = sum(s.day > today.day - timedelta(days=policy.out_of) for s in own)
    asked = {day: key for day, key in others.items() if day >= first.day and onset_of(key) <= today.day}
    before = sum(day < today.day for day in asked)
    key = f"{first.champion}@{first.day}"
    why = [today.why]
    if not today.on:
        why = [f"measured {today.value:.3g} where {first.promised:.3g} was promised before the drift: half a cure"]
    numbers: dict[str, Any] = {
        "signals": recent,
        "asked": before,
        "columns": today.columns,
        "distance": round(today.distance, 4),
    }
    numbers |= {"value": today.value, "promised": today.promised}

    def verdict(action: Literal["wait", "suppress", "retrain", "escalate"], reason: str) -> Decision:
        trigger: Trigger = "drift" if today.drifted and policy.on_drift else "loss"
        reasons = [r for r in (reason, *why) if r]
        name = requests.get(today.day) or _numbered(key, asked.values()) if action == "retrain" else key
        return Decision(action, True, reasons, first.day, useful_from, name, trigger, numbers)

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
    # Earlier requests first: they alone decide if days come in order, and so give the reason.
    for known in ({day: k for day, k in others.items() if day < today.day}, others):
        in_episode = {day: k for day, k in asked.items() if day in known}
        if (held := _of_episode(policy, today.day, in_episode, answers or {})) is not None:
            return verdict(*held)
        if (restraint := _restraint(policy, today.day, known, in_episode)) is not None:
            return verdict("suppress", restraint)
    again = f"request {1 + before} of at most {1 + policy.retries} for this drift: " if before else ""
    return verdict(
        "retrain",
        f"{again}a signal on {recent} of the last {policy.out_of} days, drift since {regime_from}, and the training "
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


def onset_of(key: str) -> date:
    """Return the onset that a dedupe key names; a key that names none is of no episode."""
    try:
        return date.fromisoformat(key.partition("@")[2].partition("#")[0])
    except ValueError:
        return date.max


def attempt_of(key: str) -> int:
    """Return which request of its episode a dedupe key is of, from 1."""
    number = key.partition("#")[2]
    return int(number) if number.isdecimal() else 1


def _numbered(key: str, asked: Iterable[str]) -> str:
    """Return a name for a further request of an episode: the key, and from the second on its number."""
    number = 1 + max(map(attempt_of, asked), default=0)
    return f"{key}#{number}" if number > 1 else key


def _of_episode(
    policy: RetrainingSpec,
    day: date,
    asked: Mapping[date, str],
    answers: Mapping[str, Answer],
    about: str = "this drift was",
) -> tuple[Literal["suppress", "escalate"], str] | None:
    """Return what the requests of the same episode leave to be done on a day but to ask; None: ask."""
    if not asked:
        return None
    before = [on for on in asked if on < day]
    last = max(before) if before else min(asked)
    answer = answers.get(asked[last])
    told = f"{about} asked about on {last}, and {_became(answer)}"
    since = max(last, (answer and answer.in_force_from) or last)
    if answer is not None and answer.state == "unknown":
        return "suppress", told
    near = [on for on in {*asked, since} if abs((on - day).days) <= policy.retry_days]
    if near:
        again = max(near) + timedelta(days=policy.retry_days + 1)
        return "suppress", f"{told}; if the signal is still there on {again}, that is not enough"
    if answer is not None and answer.state == "trained":
        return "escalate", f"{told}: it has been neither promoted nor refused since. Look at the DAG promote"
    if len(asked) > policy.retries:
        return "escalate", (
            f"{told}. {len(asked)} requests have not ended this drift, and no further one is made: somebody has to look"
        )
    return None


def _became(answer: Answer | None) -> str:
    if answer is None:
        return "no training exists for it"
    version = f"version {answer.version}"
    return {
        "begun": f"its training {answer.run} has not become a version",
        "trained": f"{version} was trained",
        "refused": f"{version} was trained and refused by the gate",
        "promoted": f"{version} is in force from {answer.in_force_from} on",
        "unknown": "nothing is known of what became of it",
    }[answer.state]


def _restraint(policy: RetrainingSpec, day: date, others: Mapping[date, str], asked: Mapping[date, str]) -> str | None:
    """Return why requests on other days, but for those of the same episode, rule out one on this day, or None."""
    near = next((on for on in others if on not in asked and abs((on - day).days) <= policy.cool_down_days), None)
    if near is not None:
        free = near + timedelta(days=policy.cool_down_days + 1)
        return f"cooling down until {free}: a retraining was asked for on {near}"
    # The most requests that any ``budget_days`` consecutive days with this one among them hold.
    windows = range(policy.budget_days)
    if max(sum(0 <= (on - day).days + back < policy.budget_days for on in others) for back in windows) >= policy.budget:
        return f"the budget of {policy.budget} retrainings in {_days(policy.budget_days)} is spent"
    return None


def _new_labels(
    policy: RetrainingSpec, today: Signal, requests: Mapping[date, str], answers: Mapping[str, Answer], live: bool
) -> Decision | None:
    """Decide whether enough new labels ask for a training although nothing is wrong; None: they do not."""
    if policy.on_new_labels is None or today.new_labels < policy.on_new_labels:
        return None
    key = f"{today.champion}@labels"
    reason = f"{today.new_labels} labels have become known since the training of version {today.champion}"
    others = {day: k for day, k in sorted(requests.items()) if day != today.day}
    asked = {day: k for day, k in others.items() if k.partition("#")[0] == key}
    held: str | None = None
    if not (policy.enabled and live):
        held = "replayed, or retraining is switched off"
    elif (told := _of_episode(policy, today.day, asked, answers, "these labels were")) is not None:
        held = told[1].removesuffix(": somebody has to look")
    else:
        held = _restraint(policy, today.day, others, asked)
    numbers = {"new_labels": today.new_labels, "asked": sum(day < today.day for day in asked)}
    action: Literal["suppress", "retrain"] = "suppress" if held else "retrain"
    if action == "retrain":
        key = requests.get(today.day) or _numbered(key, asked.values())
    reasons = [r for r in (held, reason) if r]
    return Decision(action, False, reasons, None, None, key, "labels", numbers)


def _days(n: int) -> str:
    return f"{n} day{'' if n == 1 else 's'}"
