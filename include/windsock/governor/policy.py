"""The rules by which a night may start a retraining: :func:`decide`, a pure function of what is on record.

A signal is a night on which the inputs drifted, the champion's performance fell, or a champion that was trained for a
drift has cured only half of it. It takes several to believe it (hysteresis), and time until labels of the new regime
are there to learn from and to judge by. From then on a training is asked for every ``recovery_days`` until the cure has
been measured, at most ``recovery_trainings`` times; what is left then is for people. Between episodes there is a
cool-down, and for all a budget.

Limits look at requests on other days *on both sides*, so that they hold whatever order days are processed in, and so
that deciding a day a second time gives the same answer: every other request has made room for its own.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any, Literal

from windsock.dataset.recovery import first_recovery
from windsock.governor.episode import Episode, Signal, episode, measured_by, speaks
from windsock.governor.request_names import episode_of, numbered, onset_of
from windsock.governor.restraint import restraint
from windsock.spec import ModelSpec
from windsock.spec.operations import RetrainingSpec

Trigger = Literal["drift", "loss", "labels"]
_QUIET = "neither drift nor a loss of performance"
_REQUESTS_PER_TRAINING = 3
"""So often may requests of an episode lead to no training at all, for instance while ``train`` is paused."""
Held = Literal["wait", "suppress", "escalate"]
"""What is done instead of asking."""


@dataclass(frozen=True)
class Answer:
    """What has become of a request for a training."""

    state: Literal["begun", "trained", "refused", "promoted", "unknown"]
    """``begun``: it has a run folder and no version; ``unknown``: of a replay, where nothing can become of it."""
    run: str = ""
    version: str | None = None
    in_force_from: date | None = None
    why: str = "refused by the gate"
    """Of a refused one: by whom, or by what."""


@dataclass(frozen=True)
class Decision:
    """What to do about one day, and why."""

    action: Literal["none", "wait", "suppress", "retrain", "escalate"]
    signal: bool
    reasons: list[str]
    onset: date | None = None
    """First day of the episode that goes on, whether or not the day speaks for it."""
    root: date | None = None
    """First day of what that episode has grown out of; its own, if of nothing."""
    useful_from: date | None = None
    """First day on which retraining pays."""
    recovery: date | None = None
    """Of a request: first day of the new regime, which the training is to recover from."""
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
        requests: Day to dedupe key of the retrainings asked for so far; one on the day itself is repeated.
        answers: Dedupe key to what has become of the request; one without has no training.
        live: False for a replay: it never asks for a retraining.
    """
    policy, delay_days = spec.retraining, spec.label.delay_days
    earlier = sorted((s for s in history if s.day < today.day), key=lambda s: s.day)
    found = episode(spec, [*earlier, today])
    if today.champion is None:
        return _within(found, _none("there is no champion to judge, so there is nothing to retrain"))
    others = {day: asked for day, asked in sorted(requests.items()) if day != today.day}
    known = answers or {}
    asked = _of_this(spec, found, today, others)
    unmeasured = today.value is None and _is_to_be_measured(spec, today, [known.get(key) for key in asked.values()])
    if found is None or not (speaks(spec, today, found.first) or unmeasured):
        return _within(found, _new_labels(policy, today, requests, live) or _none(today.why or _QUIET))
    first = found.first
    regime_from = first.day if first.drifted else first.day - timedelta(days=delay_days)
    useful_from = max(first.day, first_recovery(spec, regime_from))
    own = [s for s in (*earlier, today) if s.champion == today.champion and speaks(spec, s, first)]
    recent = sum(s.day > today.day - timedelta(days=policy.out_of) for s in own)
    before, word = sum(day < today.day for day in asked), "drift" if first.drifted else "loss"
    trained = sum(day < today.day and key in known for day, key in asked.items())
    # Named by its first request, so that an episode whose onset moves stays one.
    key = next(map(episode_of, asked.values()), f"{first.champion}@{first.day}")
    why = [today.why]
    if unmeasured:
        why.append(f"what version {today.champion} has cured is not measured yet")
    elif not today.on:
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
        name, recovery = key, None
        if action == "retrain":
            name, recovery = requests.get(today.day) or numbered(key, asked.values()), regime_from
        onset, root = first.day, found.root.day
        return Decision(action, True, reasons, onset, root, useful_from, recovery, name, trigger, numbers)

    if recent < policy.needed and not unmeasured:
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
            f"{word} since {regime_from}: waits for labels of its first days (those of {regime_from} are known on "
            f"{regime_from + timedelta(days=delay_days)}). The first training is on {useful_from}, when there are days "
            "of it to learn from and a later one to judge by; before, it would learn the old regime again",
        )
    # What this has grown out of is no reason to cool down: it is the same trouble. It is in the budget all the same.
    kin = {on for on in others if on >= found.root.day and first.day > found.root.day}
    held = _held(policy, today.day, others, asked, kin, known, unmeasured, word)
    if held is not None and today.day not in requests:
        return verdict(*held)
    return verdict(
        "retrain",
        f"training {1 + trained} of at most {policy.recovery_trainings} for this {word}, which goes on since "
        f"{regime_from}: a signal on {recent} of the last {policy.out_of} days",
    )


def _is_to_be_measured(spec: ModelSpec, today: Signal, answers: Iterable[Answer | None]) -> bool:
    """Say whether the champion is one that the episode has asked for, and its labels may still come."""
    cures = {a.version: a.in_force_from for a in answers if a is not None and a.state == "promoted"}
    if today.champion not in cures:
        return False
    in_force = cures[today.champion]
    return in_force is None or today.day < measured_by(spec, in_force)


def _none(why: str) -> Decision:
    return Decision("none", False, [why])


def _within(found: Episode | None, decision: Decision) -> Decision:
    """Say of a decision which episode goes on, though the day does not speak for it."""
    return replace(decision, onset=found.first.day, root=found.root.day) if found is not None else decision


def _of_this(spec: ModelSpec, found: Episode | None, today: Signal, requests: Mapping[date, str]) -> dict[date, str]:
    """Return those of all requests that are of the episode of a day.

    An onset moves by a few nights at most, as nights are monitored late: a name from long before it is of what this has
    grown out of, and one from a window after it of what will have grown out of this.
    """
    if found is None:
        return {}
    first, root = found.first.day, found.root.day
    oldest = first - timedelta(days=spec.retraining.out_of) if first > root else date.min
    newest = min(today.day, first + timedelta(days=spec.monitoring.window_days - 1))
    return {
        day: key
        for day, key in requests.items()
        if day >= first and oldest <= onset_of(key) <= newest and (first == root or onset_of(key) > root)
    }


def _held(
    policy: RetrainingSpec,
    day: date,
    others: Mapping[date, str],
    asked: Mapping[date, str],
    kin: Collection[date],
    answers: Mapping[str, Answer],
    unmeasured: bool,
    word: str,
) -> tuple[Held, str] | None:
    """Return what requests on other days (``asked``: of the same episode) leave to be done but to ask; None: ask."""
    # Earlier requests first: they alone decide if days come in order, and so give the reason.
    for made in ({on: k for on, k in others.items() if on < day}, others):
        in_episode = {on: k for on, k in asked.items() if on in made}
        if (held := _of_episode(policy, day, in_episode, answers, unmeasured, word)) is not None:
            return held
        if (why := restraint(policy, day, made, in_episode, kin)) is not None:
            return "suppress", why
    return None


def _of_episode(
    policy: RetrainingSpec,
    day: date,
    asked: Mapping[date, str],
    answers: Mapping[str, Answer],
    unmeasured: bool,
    word: str,
) -> tuple[Held, str] | None:
    """Return what the requests of the same episode leave to be done on a day but to ask; None: ask."""
    if not asked:
        return None
    before = [on for on in asked if on < day]
    last = max(before) if before else min(asked)
    # What became of a later request was not known on this day: decided again, it says the same.
    answer = answers.get(asked[last]) if before else None
    told = f"this {word} was asked about on {last}" + (f", and {_became(answer)}" if before else "")
    if answer is not None and answer.state == "unknown":
        return "suppress", told
    near = [on for on in asked if abs((on - day).days) < policy.recovery_days]
    if near:
        again = max(near) + timedelta(days=policy.recovery_days)
        return "suppress", f"{told}; the next training is asked for on {again}, unless the drift is over by then"
    if answer is not None and answer.state == "trained":
        return "escalate", f"{told}: it has been neither promoted nor refused since. Look at the DAG promote"
    trained = sum(key in answers for key in asked.values())
    most = policy.recovery_trainings
    if trained >= most or len(asked) >= _REQUESTS_PER_TRAINING * most:
        if unmeasured:
            return "wait", f"{told}. No further training is asked for before its cure has been measured"
        return "escalate", (
            f"{told}. {len(asked)} requests, which led to {trained} trainings, have not ended this {word}, and no "
            "further one is made: somebody has to look"
        )
    return None


def _became(answer: Answer | None) -> str:
    if answer is None:
        return "no training exists for it"
    version = f"version {answer.version}"
    return {
        "begun": f"its training {answer.run} has not become a version",
        "trained": f"{version} was trained",
        "refused": f"{version} was trained and {answer.why}",
        "promoted": f"{version} went into force on {answer.in_force_from}",
        "unknown": "nothing is known of what became of it",
    }[answer.state]


def _new_labels(policy: RetrainingSpec, today: Signal, requests: Mapping[date, str], live: bool) -> Decision | None:
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
    elif today.day not in requests:
        held = restraint(policy, today.day, others, {})
    numbers = {"new_labels": today.new_labels, "asked": sum(day < today.day for day in asked)}
    action: Literal["suppress", "retrain"] = "suppress" if held else "retrain"
    if action == "retrain":
        key = requests.get(today.day) or numbered(key, asked.values())
    reasons = [r for r in (held, reason) if r]
    return Decision(action, False, reasons, dedupe_key=key, trigger="labels", numbers=numbers)
