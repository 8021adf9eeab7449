"""The rules of retraining: exact dates by example, limits as properties."""

import random
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from windsock.dataset.recovery import first_recovery, recovery_windows
from windsock.errors import SpecError
from windsock.governor.episode import Signal
from windsock.governor.policy import Answer, Decision, decide
from windsock.settings import REPO_ROOT
from windsock.spec import ModelSpec, load_spec
from windsock.spec.operations import RetrainingSpec

BASE = load_spec(REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")
D0 = date(2026, 3, 1)


class Lead(NamedTuple):
    """How many days it takes until new data can be learnt from."""

    delay_days: int
    gap_days: int
    holdout_days: int
    window_days: int


FRAUD = Lead(delay_days=7, gap_days=7, holdout_days=7, window_days=7)
AT_ONCE = Lead(delay_days=0, gap_days=0, holdout_days=1, window_days=7)


def model(policy: RetrainingSpec, lead: Lead) -> ModelSpec:
    """Return a model with these lead times."""
    label = BASE.label.model_copy(update={"delay_days": lead.delay_days})
    windows = {name: days for name, days in lead._asdict().items() if name != "delay_days"}
    training = BASE.training.model_copy(update=windows)
    return BASE.model_copy(update={"retraining": policy, "label": label, "training": training})


def decided(
    policy: RetrainingSpec,
    today: Signal,
    history: Iterable[Signal],
    requests: Mapping[date, str],
    *,
    lead: Lead,
    live: bool = True,
) -> Decision:
    return decide(model(policy, lead), today, history, requests, live=live)


def on(n: int, champion: str | None = "1", **kind: bool) -> Signal:
    return Signal(D0 + timedelta(days=n), champion, **(kind or {"drifted": True}))


def quiet(n: int, champion: str = "1", *, judged: bool = True) -> Signal:
    return Signal(D0 + timedelta(days=n), champion, judged=judged)


def eager(**changes: object) -> RetrainingSpec:
    base = {"needed": 1, "out_of": 1, "cool_down_days": 0, "budget": 99, "budget_days": 90, "fresh_days": 0}
    return RetrainingSpec.model_validate(base | changes)


def run_days(
    policy: RetrainingSpec, signals: list[Signal], order: list[int], lead: Lead = AT_ONCE, *, refused: bool = False
) -> dict[int, Decision]:
    """Decide the days in some order, as the step does: requests are remembered, each day may come again.

    ``refused``: each request led to a training whose challenger the gate refused; else there was none.
    """
    requests: dict[date, str] = {}
    decisions = {}
    for n in order:
        today = signals[n]
        answers = {key: Answer("refused", "r", "9") for key in requests.values()} if refused else {}
        decision = decide(model(policy, lead), today, signals, requests, answers)
        decisions[n] = decision
        if decision.action == "retrain":
            assert decision.dedupe_key is not None
            requests.setdefault(today.day, decision.dedupe_key)
    return decisions


def test_no_champion_and_no_signal_mean_nothing_to_do() -> None:
    assert decided(eager(), on(0, champion=None), [], {}, lead=FRAUD).action == "none"
    assert decided(eager(), quiet(0), [on(-1)], {}, lead=FRAUD).action == "none"


def test_one_day_is_not_believed_and_two_of_three_are() -> None:
    policy = eager(needed=2, out_of=3)

    assert decided(policy, on(0), [], {}, lead=AT_ONCE).action == "wait"
    assert decided(policy, on(2), [on(0), quiet(1)], {}, lead=AT_ONCE).action == "retrain"
    assert decided(policy, on(3), [on(0), quiet(1), quiet(2)], {}, lead=AT_ONCE).action == "wait"


def test_signals_about_another_champion_do_not_count() -> None:
    assert decided(eager(needed=2, out_of=3), on(1, "2"), [on(0, "1")], {}, lead=FRAUD).action == "wait"


def test_retraining_waits_until_there_are_fresh_days_and_one_that_judges_and_names_the_dates() -> None:
    policy = eager(fresh_days=3)
    # As of T the last matured day, T - 7, judges; the days before it are learnt from, the third fresh one is day 2.
    pays = D0 + timedelta(days=2 + 1 + 7)
    signals = [on(n) for n in range(40)]

    waiting = decided(policy, on(9), signals, {}, lead=FRAUD)

    assert waiting.action == "wait"
    assert waiting.useful_from == pays
    assert f"those of {D0} are known on {D0 + timedelta(days=7)}" in waiting.reasons[0]
    assert f"The first training is on {pays}" in waiting.reasons[0]
    asked = decided(policy, on(10), signals, {}, lead=FRAUD)
    assert (asked.action, asked.recovery) == ("retrain", D0)


@pytest.mark.parametrize("fresh_days", [1, 3, 5])
def test_the_date_agrees_with_the_windows_of_training(tmp_path, fresh_days: int) -> None:
    from small_model import small_fraud
    from windsock.dataset.step import with_overrides
    from windsock.dataset.time_split import windows_of

    _, spec = small_fraud(tmp_path, retraining={"fresh_days": fresh_days})
    onset = spec.first_warm_day + timedelta(days=30)
    pays = first_recovery(spec, onset)

    def fresh(as_of: date) -> int:
        windows = windows_of(with_overrides(spec, {"recovery": str(onset), "as_of": str(as_of)}), as_of)
        assert not windows.gap
        assert windows.holdout[-1] == as_of - timedelta(days=spec.label.delay_days)
        return sum(day >= onset for day in windows.train)

    assert fresh(pays) == fresh_days > fresh(pays - timedelta(days=1))


def test_the_more_days_of_the_new_regime_there_are_the_more_of_them_judge() -> None:
    spec = model(eager(), FRAUD)

    def held_out(new_days: int) -> int:
        return recovery_windows(spec, D0, D0 + timedelta(days=7 + new_days - 1))["holdout_days"]

    assert [held_out(n) for n in (1, 2, 7, 8, 12, 27, 28, 90)] == [1, 1, 1, 2, 3, 6, 7, 7]
    with pytest.raises(SpecError, match="as of 2026-03-07 no label is known of the regime that began on 2026-03-01"):
        held_out(0)


def test_a_loss_of_performance_dates_the_regime_back_by_the_label_delay() -> None:
    decision = decided(eager(fresh_days=3), on(20, degraded=True), [], {}, lead=FRAUD)

    assert decision.onset == D0 + timedelta(days=20)
    assert decision.useful_from == D0 + timedelta(days=20 - 7 + 10)


def test_more_fresh_days_than_the_window_holds_do_not_wait_for_ever() -> None:
    lead = Lead(0, 0, 1, window_days=5)

    assert first_recovery(model(eager(fresh_days=30), lead), D0) == first_recovery(model(eager(fresh_days=5), lead), D0)


def test_quiet_days_end_an_episode_and_unjudged_days_do_not() -> None:
    policy = eager(out_of=3)
    quiet_between = [on(0), quiet(1), quiet(2), quiet(3)]
    unjudged_between = [on(0), quiet(1, judged=False), quiet(2, judged=False), quiet(3, judged=False)]

    assert decided(policy, on(4), quiet_between, {}, lead=AT_ONCE).onset == D0 + timedelta(days=4)
    assert decided(policy, on(4), unjudged_between, {}, lead=AT_ONCE).onset == D0
    assert decided(policy, on(4), [on(0)], {}, lead=AT_ONCE).onset == D0


def test_one_drift_is_asked_about_every_so_many_days_and_then_left_to_people() -> None:
    policy = eager(recovery_days=6, recovery_trainings=3)
    decisions = run_days(policy, [on(n) for n in range(60)], list(range(60)), refused=True)

    assert [n for n, d in decisions.items() if d.action == "retrain"] == [0, 6, 12]
    assert [decisions[n].dedupe_key for n in (0, 6, 12)] == ["1@2026-03-01", "1@2026-03-01#2", "1@2026-03-01#3"]
    assert "refused by the gate; the next training is asked for on 2026-03-07" in decisions[5].reasons[0]
    assert "training 2 of at most 3 for this drift" in decisions[6].reasons[0]
    assert {d.action for n, d in decisions.items() if n > 17} == {"escalate"}
    assert "3 requests, which led to 3 trainings, have not ended this drift" in decisions[59].reasons[0]


def test_requests_that_lead_to_no_training_use_up_none_and_do_not_go_on_for_ever() -> None:
    """The DAG train was paused for a week: trainings begin when it is not, as many as without the pause."""
    spec = model(eager(recovery_trainings=3), AT_ONCE)
    requests, answers = dict[date, str](), dict[str, Answer]()
    for n in range(20):
        night = decide(spec, on(n), [on(m) for m in range(n)], requests, answers)
        if night.action == "retrain" and night.dedupe_key is not None:
            requests[D0 + timedelta(days=n)] = night.dedupe_key
            if n >= 7:
                answers[night.dedupe_key] = Answer("refused", "r", str(n))
    assert [key in answers for key in requests.values()] == [False] * 7 + [True] * 2
    assert "9 requests, which led to 2 trainings" in night.reasons[0]
    assert night.action == "escalate"


def test_a_model_that_is_never_measured_is_trained_for_until_it_should_have_been_and_then_its_drift_is_over() -> None:
    spec = model(eager(needed=2, out_of=3, recovery_trainings=99), FRAUD)
    cured, due = 14, 14 + FRAUD.delay_days + spec.monitoring.performance_days
    nights = [on(n) if 5 <= n < cured else quiet(n, "1" if n < cured else "2") for n in range(60)]
    nights += [quiet(n, "2") for n in range(60, 62)]
    for asked_for in (True, False):  # by the drift's own training, or by a weekly one
        requests, answers, found = dict[date, str](), dict[str, Answer](), list[Decision]()
        for n, night in enumerate(nights):
            found.append(decide(spec, night, nights[:n], requests, answers))
            key = found[-1].dedupe_key
            if found[-1].action == "retrain" and key is not None:
                requests[night.day] = key
                first = asked_for and len(requests) == 1
                answers[key] = Answer("promoted", "r", "2", D0 + timedelta(days=cured)) if first else Answer("refused")
        assert all((D0 + timedelta(days=due)) > day for day in requests)
        assert [d.onset is not None for d in found[5:]] == [True] * (due + 2 - 5) + [False] * (len(nights) - due - 2)


@pytest.mark.parametrize(
    ("answer", "then", "told"),
    [
        (None, "retrain", "no training exists for it"),
        (Answer("begun", "r"), "retrain", "its training r has not become a version"),
        (Answer("refused", "r", "2"), "retrain", "version 2 was trained and refused by the gate"),
        (Answer("refused", "r", "2", why="rejected by a person"), "retrain", "version 2 was trained and rejected by"),
        (Answer("trained", "r", "2"), "escalate", "version 2 was trained"),
        (Answer("promoted", "r", "2", D0 + timedelta(days=1)), "retrain", "version 2 went into force on 2026-03-02"),
        (Answer("unknown"), "suppress", "nothing is known of what became of it"),
    ],
)
def test_what_became_of_a_request_decides_whether_another_one_follows(
    answer: Answer | None, then: str, told: str
) -> None:
    answers = {"1@2026-03-01": answer} if answer else {}
    asked = {D0: "1@2026-03-01"}

    def night(n: int) -> Decision:
        return decide(model(eager(recovery_days=4), AT_ONCE), on(n), [on(m) for m in range(n)], asked, answers)

    paused = night(3)
    assert paused.action == "suppress"
    assert told in paused.reasons[0]
    assert night(5).action == then
    assert then == "retrain" or told in night(5).reasons[0]


def test_a_request_that_was_asked_for_is_of_the_same_drift_when_its_onset_moves() -> None:
    """A night before it is monitored after it: the day's own request is repeated, and later nights know it."""
    signals, asked = [on(n) for n in range(7, 16)], {D0 + timedelta(days=10): "1@2026-03-09"}
    policy = model(eager(recovery_days=4, cool_down_days=0), AT_ONCE)

    again = decide(policy, on(10), signals, asked)
    later = decide(policy, on(12), signals, asked)

    assert (again.action, again.onset, again.dedupe_key) == ("retrain", D0 + timedelta(days=7), "1@2026-03-09")
    assert "this drift was asked about on 2026-03-11" in later.reasons[0]


def test_a_new_champion_during_a_drift_does_not_begin_it_anew() -> None:
    policy = eager(needed=2, out_of=3, fresh_days=3)
    signals = [on(n, "1") for n in range(10)] + [on(n, "2") for n in range(10, 40)]

    decisions = run_days(policy, signals, list(range(40)), FRAUD)

    assert {d.onset for d in decisions.values()} == {D0}
    assert "on 1 of the last 3 days" in decisions[10].reasons[0], "it is believed of the new one by its own nights"
    assert decisions[11].action == "retrain", "but it began when it began"


def test_a_champion_that_is_only_half_as_good_as_what_was_promised_before_does_not_end_the_drift() -> None:
    policy = eager(needed=2, out_of=3, recovery_days=4)
    before = [Signal(D0 + timedelta(days=n), "1", drifted=True, promised=0.677) for n in range(4)]
    unmeasured = [Signal(D0 + timedelta(days=n), "2", promised=0.44) for n in range(4, 10)]

    def after(value: float) -> Decision:
        measured = [Signal(D0 + timedelta(days=n), "2", value=value, promised=0.44) for n in range(10, 14)]
        answer = Answer("promoted", "r", "2", D0 + timedelta(days=4))
        asked = {D0 + timedelta(days=1): "1@2026-03-01"}
        signals = [*before, *unmeasured, *measured]
        return decide(model(policy, AT_ONCE), signals[-1], signals, asked, {"1@2026-03-01": answer})

    half = after(0.435)
    assert (half.action, half.onset, half.dedupe_key) == ("retrain", D0, "1@2026-03-01#2")
    assert "measured 0.435 where 0.677 was promised before the drift: half a cure" in half.reasons
    assert after(0.65).action == "none"


def test_a_chronic_signal_does_not_hide_a_larger_one() -> None:
    def night(n: int, **size: float) -> Signal:
        return Signal(
            D0 + timedelta(days=n), "1", drifted=True, columns=int(size["columns"]), distance=size["distance"]
        )

    policy = eager(needed=2, out_of=3, recovery_trainings=1, recovery_days=4)
    # A window fills with the new days: that it grows so far is one drift.
    chronic = [night(n, columns=min(n + 1, 4), distance=1 + 0.3 * min(n, 6)) for n in range(30)]
    for larger in ({"columns": 8, "distance": 2.8}, {"columns": 4, "distance": 9.0}):
        signals = [*chronic, *(night(n, **larger) for n in range(30, 34))]
        decisions = run_days(policy, signals, list(range(34)), refused=True)
        assert [n for n, d in decisions.items() if d.action == "retrain"] == [1, 31]
        assert decisions[29].action == "escalate"
        assert (decisions[31].onset, decisions[31].dedupe_key) == (D0 + timedelta(days=30), "1@2026-03-31")


def test_a_loss_and_half_a_cure_do_not_hide_a_drift_that_comes_later() -> None:
    policy = eager(needed=2, out_of=3, recovery_trainings=1, recovery_days=4, cool_down_days=14)
    fresh = [on(n) for n in range(30, 34)]
    loss = [on(n, degraded=True) for n in range(30)]
    half = [
        *(on(n) for n in range(3)),
        *(Signal(D0 + timedelta(days=n), "2", value=0.44, promised=0.45) for n in range(3, 30)),
    ]
    half[0] = Signal(D0, "1", drifted=True, columns=4, distance=6.0, promised=0.6)
    anew = [Signal(s.day, "2", drifted=True, columns=1, distance=1.5) for s in fresh]
    for signals in ([*loss, *fresh], [*half, *anew]):
        decisions = run_days(policy, signals, list(range(34)))
        assert decisions[29].action == "escalate"
        assert (decisions[31].action, decisions[31].onset) == ("retrain", D0 + timedelta(days=30))


def test_a_drift_that_grows_while_trainings_for_it_go_on_is_asked_about_under_its_own_name() -> None:
    policy = eager(needed=2, out_of=3, recovery_trainings=20, recovery_days=1, cool_down_days=14, budget=2)
    nights = [
        Signal(D0 + timedelta(days=n), "1", drifted=True, columns=columns, distance=distance)
        for n, (columns, distance) in enumerate([(1, 1.2)] * 12 + [(8, 12.0)] * 20)
    ]
    decisions = run_days(policy, nights, list(range(32)), Lead(3, 0, 1, 7))
    grown = D0 + timedelta(days=12)
    assert {decisions[n].action for n in range(5, 12)} == {"retrain"}
    assert decisions[13].dedupe_key == f"1@{grown}"
    assert decisions[13].reasons[0].startswith(f"drift since {grown}: waits for labels")
    assert {decisions[n].action for n in range(17, 32)} == {"retrain"}
    strict = policy.model_copy(update={"budget": 1})
    decisions = run_days(strict, nights, list(range(32)), Lead(3, 0, 1, 7))
    assert "the budget of 1 retrainings" in decisions[17].reasons[0], "for all there is one"


def test_a_night_without_a_champion_or_a_first_window_without_data_begins_nothing_anew() -> None:
    policy = eager(needed=2, out_of=3, recovery_trainings=20, recovery_days=1)
    gone = [on(n) if n != 6 else Signal(D0 + timedelta(days=6), None) for n in range(12)]
    decisions = run_days(policy, gone, list(range(12)))
    assert [(decisions[n].action, decisions[n].onset) for n in (6, 7)] == [("none", D0), ("retrain", D0)]
    unseen = [
        *(Signal(D0 + timedelta(days=n), "1", drifted=True, columns=3, distance=4.0) for n in range(10)),
        *(Signal(D0 + timedelta(days=n), "2", judged=False) for n in range(10, 17)),
        *(Signal(D0 + timedelta(days=n), "2", drifted=True, columns=3, distance=4.0) for n in range(17, 25)),
    ]
    assert run_days(policy, unseen, list(range(25)))[24].onset == D0


def test_a_quiet_night_within_an_episode_says_that_it_goes_on() -> None:
    policy = eager(needed=2, out_of=3)
    signals = [on(0), on(1), *(quiet(n) for n in range(2, 5))]
    found = [decided(policy, signals[n], signals, {}, lead=FRAUD) for n in range(5)]
    assert [(d.action, d.onset) for d in found[2:]] == [("none", D0), ("none", D0), ("none", None)]


def test_each_trigger_can_be_switched_off_and_is_named() -> None:
    lost, drifted = on(5, degraded=True), on(5)
    for signal, trigger in ((drifted, "drift"), (lost, "loss")):
        assert decided(eager(), signal, [], {}, lead=AT_ONCE).trigger == trigger
        off = eager(**{f"on_{trigger}": False})
        assert decided(off, signal, [], {}, lead=AT_ONCE).action == "none"
    enough = Signal(D0, "1", new_labels=500)
    asked = decided(eager(on_new_labels=500), enough, [], {}, lead=AT_ONCE)
    assert (asked.action, asked.trigger, asked.dedupe_key) == ("retrain", "labels", "1@labels")
    assert asked.reasons == ["500 labels have become known since the training of version 1"]
    assert decided(eager(on_new_labels=501), enough, [], {}, lead=AT_ONCE).action == "none"
    assert decided(eager(), enough, [], {}, lead=AT_ONCE).action == "none"
    cooling = decided(
        eager(on_new_labels=500, cool_down_days=3), enough, [], {D0 + timedelta(days=2): "x"}, lead=AT_ONCE
    )
    assert cooling.action == "suppress"


def test_switched_off_and_replayed_are_suppressed_with_their_reason() -> None:
    off = decided(eager(enabled=False), on(0), [], {}, lead=AT_ONCE)
    replayed = decided(eager(), on(0), [], {}, lead=AT_ONCE, live=False)

    assert (off.action, replayed.action) == ("suppress", "suppress")
    assert "switched off" in off.reasons[0]
    assert replayed.reasons[0].startswith("replayed")


def test_cool_down_names_the_day_it_ends() -> None:
    asked = {D0: "0@x"}
    policy = eager(cool_down_days=14)

    cooling = decided(policy, on(14), [], asked, lead=AT_ONCE)

    assert cooling.action == "suppress"
    assert "cooling down until 2026-03-16" in cooling.reasons[0]
    assert decided(policy, on(15), [], asked, lead=AT_ONCE).action == "retrain"


def test_the_budget_counts_days_of_data() -> None:
    policy = eager(budget=2, budget_days=30)
    asked = {D0: "a", D0 + timedelta(days=10): "b"}

    assert decided(policy, on(29), [], asked, lead=AT_ONCE).action == "suppress"
    assert decided(policy, on(30), [], asked, lead=AT_ONCE).action == "retrain"


def test_the_monitors_finding_is_among_the_reasons() -> None:
    found = Signal(D0, "1", drifted=True, why="3 of 15 features drifted")

    assert "3 of 15 features drifted" in decided(eager(), found, [], {}, lead=AT_ONCE).reasons


histories = st.lists(
    st.tuples(st.sampled_from(["on", "off", "degraded", "unjudged"]), st.booleans()), min_size=1, max_size=45
)
policies = st.builds(
    lambda needed, extra, cool, budget, days, fresh, pause, most: RetrainingSpec(
        needed=needed,
        out_of=needed + extra,
        cool_down_days=cool,
        budget=budget,
        budget_days=days,
        fresh_days=fresh,
        recovery_days=pause,
        recovery_trainings=most,
    ),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 10),
    st.integers(1, 3),
    st.integers(1, 25),
    st.integers(0, 3),
    st.integers(1, 6),
    st.integers(1, 4),
)
leads = st.builds(Lead, st.integers(0, 4), st.integers(0, 4), st.integers(1, 4), st.integers(1, 7))


def signals_of(history: list[tuple[str, bool]]) -> list[Signal]:
    """Make signals; the champion's version rises where the flag says so."""
    made, version = [], 1
    for n, (kind, promoted) in enumerate(history):
        version += promoted and n % 7 == 0
        made.append(
            Signal(
                D0 + timedelta(days=n),
                str(version),
                drifted=kind == "on",
                degraded=kind == "degraded",
                judged=kind != "unjudged",
            )
        )
    return made


@examples(150)
@given(histories, policies, leads, st.booleans(), st.randoms(use_true_random=False))
def test_limits_hold_in_any_order_and_days_can_be_decided_again(
    history: list[tuple[str, bool]], policy: RetrainingSpec, lead: Lead, refused: bool, chance: random.Random
) -> None:
    signals = signals_of(history)
    order = list(range(len(signals)))
    chance.shuffle(order)
    again = list(order)
    chance.shuffle(again)

    first = run_days(policy, signals, order, lead, refused=refused)
    both = run_days(policy, signals, order + again, lead, refused=refused)
    in_order = run_days(policy, signals, sorted(order), lead, refused=refused)

    asked = sorted((signals[n].day, d) for n, d in both.items() if d.action == "retrain")
    days = [day for day, _ in asked]
    keys = [d.dedupe_key for _, d in asked]
    pause = min(policy.cool_down_days + 1, policy.recovery_days)
    assert all((b - a).days >= pause for a, b in pairwise(days)), "at most one in any pause"
    of_episodes: dict[date, list[date]] = {}
    for day, decision in asked:
        assert decision.onset is not None
        of_episodes.setdefault(decision.onset, []).append(day)
    for a, b in combinations(of_episodes, 2):
        assert all(abs((x - y).days) > policy.cool_down_days for x in of_episodes[a] for y in of_episodes[b])
    for of_one in of_episodes.values():
        assert len(of_one) <= policy.recovery_trainings * (1 if refused else 3)  # none of them led to a training
        assert all((b - a).days >= policy.recovery_days for a, b in pairwise(of_one))
    for a in days:
        within = {d.onset for day, d in asked if 0 <= (day - a).days < policy.budget_days}
        assert len(within) <= policy.budget, "a drift counts once, however often it is asked about"
    assert len(set(keys)) == len(keys)
    assert {n: d.action for n, d in first.items()} == {n: d.action for n, d in both.items()}
    assert run_days(policy, signals, sorted(order) + again, lead, refused=refused) == in_order, (
        "a second time, the very same reasons"
    )


NIGHTS = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.sampled_from([None, 0.4, 0.6]), st.integers(0, 150)),
    min_size=25,
    max_size=60,
)
"""How far a night drifted, whether a new champion is in force from then on, what was measured, new labels."""
ANSWERS = st.sampled_from([None, "begun", "trained", "refused", "promoted"])


@examples(150)
@given(NIGHTS, policies, st.sampled_from([None, 100]), st.lists(ANSWERS, min_size=60, max_size=60))
def test_a_night_decided_again_repeats_its_request_whatever_is_known_since(
    nights: list[tuple[int, bool, float | None, int]],
    policy: RetrainingSpec,
    on_new_labels: int | None,
    fates: list[Any],
) -> None:
    version, signals = 1, list[Signal]()
    for n, (far, promoted, value, labels) in enumerate(nights):
        version += promoted and n % 5 == 0
        size = {"drifted": far > 0, "columns": 3 * far, "distance": 2.5 * far}
        day = D0 + timedelta(days=n)
        signals.append(Signal(day, str(version), value=value, promised=0.6, new_labels=labels, **size))  # type: ignore[arg-type]
    spec = model(policy.model_copy(update={"on_new_labels": on_new_labels}), AT_ONCE)
    requests, answers, first = dict[date, str](), dict[str, Answer](), dict[date, Decision]()
    for signal, fate in zip(signals, fates, strict=False):
        decision = first[signal.day] = decide(spec, signal, signals, requests, answers)
        if decision.action == "retrain" and decision.dedupe_key is not None:
            assert decision.dedupe_key not in requests.values()
            requests[signal.day] = decision.dedupe_key
            if fate is not None:
                answers[decision.dedupe_key] = Answer(fate, "r", str(version + 1), signal.day + timedelta(days=2))

    for signal in signals:
        again = decide(spec, signal, signals, requests, answers)
        asked = first[signal.day].action == "retrain"
        assert (again.action == "retrain") == asked
        assert not asked or again.dedupe_key == requests[signal.day]


@examples(100)
@given(histories, policies, leads)
def test_no_request_without_hysteresis_or_before_it_pays(
    history: list[tuple[str, bool]], policy: RetrainingSpec, lead: Lead
) -> None:
    signals = signals_of(history)

    for n, decision in run_days(policy, signals, list(range(len(signals))), lead).items():
        if decision.action != "retrain":
            continue
        recent = signals[max(0, n - policy.out_of + 1) : n + 1]
        assert signals[n].on
        assert sum(s.on and s.champion == signals[n].champion for s in recent) >= policy.needed
        assert decision.useful_from is not None
        assert signals[n].day >= decision.useful_from


@examples(100)
@given(histories, policies, leads, st.integers(0, 44))
def test_later_days_change_no_decision(
    history: list[tuple[str, bool]], policy: RetrainingSpec, lead: Lead, cut: int
) -> None:
    signals = signals_of(history)
    n = cut % len(signals)

    assert decided(policy, signals[n], signals[: n + 1], {}, lead=lead) == decided(
        policy, signals[n], signals, {}, lead=lead
    )


@pytest.mark.parametrize("live", [True, False])
def test_every_decision_gives_a_reason(live: bool) -> None:
    for today in (on(5), quiet(5), on(5, champion=None)):
        assert decided(RetrainingSpec(), today, [on(4)], {}, lead=FRAUD, live=live).reasons


def test_a_believed_drift_is_trained_for_every_day_until_the_cure_has_been_measured() -> None:
    """Amounts double on day 0: what each night says and asks, with a gate that promotes on nights 9 and 12."""
    spec, requests, answers, signals = model(RetrainingSpec(), FRAUD), dict[date, str](), dict[str, Answer](), []
    actions: list[str] = []
    versions = {10: "2", 13: "3"}
    for n in range(26):
        champion = versions[max(first for first in versions if first <= n)] if n >= 10 else "1"
        value = 0.62 if n >= 20 else None  # the first day that version 3 scored has matured
        signals.append(Signal(D0 + timedelta(days=n), champion, drifted=n < 10, value=value, promised=0.64))
        night = decide(spec, signals[-1], signals, requests, answers)
        actions.append(night.action)
        if n == 1:
            assert "a signal on 1 of" not in night.reasons[0], "believed on the second night, and people are told"
            assert f"The first training is on {D0 + timedelta(days=8)}" in night.reasons[0]
        if night.action == "retrain":
            assert (night.recovery, night.onset) == (D0, D0)
            assert night.dedupe_key is not None
            requests[signals[-1].day] = night.dedupe_key
            force = signals[-1].day + timedelta(days=1)
            promoted = Answer("promoted", "r", versions.get(n + 1), force)
            answers[night.dedupe_key] = promoted if n + 1 in versions else Answer("refused", "r", "x")

    assert actions[:8] == ["wait"] * 8
    assert actions[8:18] == ["retrain"] * 10
    assert actions[18:20] == ["wait"] * 2, "all trainings are asked for, and version 3 is not measured yet"
    assert actions[20:] == ["none"] * 6, "a cure that is measured ends it"
