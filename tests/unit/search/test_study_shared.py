"""A study that several processes share, on SQLite; with real processes and PostgreSQL: test_shared_search."""

import itertools
import logging
import sqlite3
import threading
import time
import traceback
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradient_learner import FOLDS, GradientLearner, some_rows, spec_with
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.runs.checkpoints import CheckpointFolder
from windsock.search.budget import Budget
from windsock.search.sampling import Sampler
from windsock.search.search import choose, take_part
from windsock.search.shared_study import JoinedStudy
from windsock.search.study import SharedStudy, Turn
from windsock.search.trials import Trial

ROWS = some_rows(40)
SPEC, ESTIMATOR = spec_with(trials=6, budget={"parallel": 3})
OWN = GradientLearner().own
names = itertools.count()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return tmp_path_factory.mktemp("studies") / "studies.db"


@pytest.fixture
def shared(database):
    return SharedStudy(f"sqlite:///{database}", f"fraud/run{next(names)}/lightgbm")


def joined(shared, budget=None, **more):
    sampler = Sampler(ESTIMATOR, OWN, seed=7, maximize=True)
    return JoinedStudy(shared, "f" * 64, sampler, budget or Budget(6), **more)


def result(claim, state="complete", score=0.5, **more):
    folds = (score,) * 3 if state == "complete" else ()
    return Trial(claim.number, claim.params, 9, score if state == "complete" else None, folds, state, **more)


def die(database, claim):
    """Let a trial's process have died: its last sign of life is long ago."""
    with sqlite3.connect(database, timeout=60) as connection:
        connection.execute(
            "UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00' WHERE trial_id = ?", (claim.key,)
        )
    connection.close()


def last_sign(database, claim):
    with sqlite3.connect(database, timeout=60) as connection:
        query = "SELECT heartbeat FROM trial_heartbeats WHERE trial_id = ?"
        (sign,) = connection.execute(query, (claim.key,)).fetchone()
    connection.close()
    return sign


def test_several_processes_that_begin_at_once_try_the_specs_own_parameters_once(tmp_path):
    shared = SharedStudy(f"sqlite:///{tmp_path / 'new.db'}", "fraud/run/lightgbm")
    claims, errors = [], []

    def begin():
        try:
            claims.append(joined(shared).claim())
        except Exception as err:
            errors.append(err)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert sorted(c.number for c in claims) == [0, 1, 2, 3]
    assert [c.params for c in claims if c.number == 0] == [{}]
    assert len({str(c.params) for c in claims}) == 4


def test_trials_end_with_the_budget_over_all_processes(shared):
    one, other = joined(shared), joined(shared)
    for study in (one, other) * 3:
        claim = study.claim()
        assert study.finish(claim, result(claim))

    assert one.claim() is Turn.OVER
    assert other.claim() is Turn.OVER
    assert [t.number for t in other.finished()] == list(range(6))


def test_whoever_finds_all_trials_taken_is_told_to_wait(shared):
    one, other = joined(shared, Budget(2)), joined(shared, Budget(2))
    first, second = one.claim(), one.claim()

    assert other.claim() is Turn.WAIT
    one.finish(second, result(second))
    assert other.claim() is Turn.WAIT
    one.finish(first, result(first))
    assert other.claim() is Turn.OVER


def test_a_dead_processs_trial_is_put_back_with_its_number_and_parameters(shared, database):
    one, other = joined(shared), joined(shared, gpus=1)
    zero, lost = one.claim(), one.claim()
    die(database, lost)

    again = other.claim()
    assert (again.number, again.params) == (lost.number, lost.params)
    assert again.key != lost.key
    assert other.claim().number == 2
    # The one that was only cut off comes back late.
    assert not one.finish(lost, result(lost, score=0.1))
    assert other.finish(again, result(again, score=0.7))
    assert one.finish(zero, result(zero))
    assert [t.score for t in one.finished()] == [0.5, 0.7]


def test_a_trial_that_takes_every_process_with_it_is_given_up_but_never_the_specs_own(shared, database):
    study = joined(shared, Budget(2))
    for _ in range(8):
        own = study.claim()
        assert own.number == 0
        die(database, own)
    own = study.claim()
    study.finish(own, result(own))
    for _ in range(5):
        bad = study.claim()
        assert bad.number == 1
        die(database, bad)

    other = study.claim()
    assert other.number == 2
    assert [(t.number, t.state) for t in study.finished()] == [(0, "complete"), (1, "failed")]
    assert "ended before it did, 5 times" in study.finished()[1].reason


def test_a_process_that_ends_in_order_gives_its_trial_back_at_once(shared):
    study = joined(shared)
    own = study.claim()
    for _ in range(7):  # more often than a trial may take its process with it
        with pytest.raises(SystemExit), study.running(own):
            raise SystemExit(143)
        own = study.claim()
        assert own.number == 0
    study.finish(own, result(own))
    second = study.claim()
    for _ in range(7):
        with pytest.raises(UpstreamUnavailable), study.running(second):
            raise UpstreamUnavailable("the store is away")
        second = study.claim()
        assert second.number == 1


def test_a_running_trial_gives_signs_of_life(database):
    shared = SharedStudy(f"sqlite:///{database}", f"fraud/run{next(names)}/x", heartbeat_s=1)
    one, other = joined(shared, Budget(1)), joined(shared, Budget(1))
    claim = one.claim()
    began = time.monotonic()
    with one.running(claim):
        die(database, claim)  # as far as the database knows, until the next sign
        limit = time.monotonic() + 60
        while last_sign(database, claim) < "2021" and time.monotonic() < limit:
            time.sleep(0.1)
        assert other.claim() is Turn.WAIT
    die(database, claim)
    again = other.claim()

    assert (again.number, again.key != claim.key) == (0, True)
    assert 1 <= again.seconds <= time.monotonic() - began  # what the first one spent counts on


def test_minutes_and_gpu_hours_are_counted_over_all_processes(shared, monkeypatch):
    budget = Budget(50, minutes=1, gpu_hours=1)
    one, other = joined(shared, budget, gpus=2), joined(shared, budget, gpus=2)
    claim = one.claim()
    one.finish(claim, result(claim, seconds=1500.0, gpus=2))
    claim = other.claim()
    assert other.elapsed_s() >= 0
    other.finish(claim, result(claim, seconds=301.0, gpus=2))
    assert one.claim() is Turn.OVER
    assert one.why_over == "its 1 GPU-hours"

    ahead = time.time() + 61
    monkeypatch.setattr("windsock.search.study_database.time.time", lambda: ahead)
    later = joined(shared, Budget(50, minutes=1))
    assert later.claim() is Turn.OVER
    assert later.why_over == "its 1 minutes"


def test_what_waits_when_the_time_is_over_counts_as_failed(shared, database, monkeypatch):
    study = joined(shared, Budget(9, minutes=1))
    own = study.claim()
    study.finish(own, result(own))
    die(database, study.claim())
    ahead = time.time() + 61
    monkeypatch.setattr("windsock.search.study_database.time.time", lambda: ahead)

    assert study.claim() is Turn.OVER
    assert [t.state for t in study.finished()] == ["complete", "failed"]


def test_the_specs_own_parameters_are_tried_though_the_time_is_over(shared, database, monkeypatch):
    study = joined(shared, Budget(9, minutes=1))
    die(database, study.claim())
    ahead = time.time() + 61
    monkeypatch.setattr("windsock.search.study_database.time.time", lambda: ahead)

    assert study.claim().number == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    trials=st.integers(1, 4),
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["claim", "done", "pruned", "failed", "die", "late"]))),
)
def test_no_order_of_events_brings_more_trials_than_the_budget(database, trials, steps):
    shared = SharedStudy(f"sqlite:///{database}", f"fraud/run{next(names)}/x")
    workers = [joined(shared, Budget(trials)) for _ in range(3)]
    held, lost, accepted = [[], [], []], [[], [], []], []
    for who, what in steps:
        if what == "claim":
            claim = workers[who].claim()
            if not isinstance(claim, Turn):
                held[who].append(claim)
        elif what == "late" and lost[who]:
            claim = lost[who].pop()
            accepted += [claim.number] * workers[who].finish(claim, result(claim))
        elif what == "die" and held[who]:
            claim = held[who].pop()
            die(database, claim)
            lost[who].append(claim)
        elif what in ("done", "pruned", "failed") and held[who]:
            claim = held[who].pop()
            if what == "failed" and claim.number == 0:
                continue  # a search raises that one
            did = result(claim, {"done": "complete"}.get(what, what), losses=(0.3,))
            accepted += [claim.number] * workers[who].finish(claim, did)
        finished = workers[who].finished()
        assert sum(t.state != "failed" for t in finished) <= trials
        assert len(accepted) == len(set(accepted))
        assert {t.number for t in finished} >= set(accepted)


def test_a_search_shared_by_several_is_finished_by_the_last_and_not_done_twice(shared, tmp_path):
    folder = CheckpointFolder(str(tmp_path / "checkpoints"))
    done = []

    def work():
        done.append(take_part(GradientLearner(), SPEC, ESTIMATOR, ROWS, FOLDS, checkpoints=folder, shared_study=shared))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    learner = GradientLearner()
    chosen = choose(learner, SPEC, ESTIMATOR, ROWS, FOLDS, checkpoints=folder, shared_study=shared)

    assert sum(done) == 6
    assert learner.rounds_trained == 0
    assert [t.number for t in chosen.trials] == list(range(6))
    assert chosen.trials[0].params == {}
    assert chosen.trials[chosen.chosen].state == "complete"
    assert not list((tmp_path / "checkpoints").glob("*/*"))


def test_one_process_alone_gets_the_same_from_a_shared_study_as_from_its_own(shared):
    alone = choose(GradientLearner(), SPEC, ESTIMATOR, ROWS, FOLDS)

    assert choose(GradientLearner(), SPEC, ESTIMATOR, ROWS, FOLDS, shared_study=shared) == alone


def test_another_training_under_the_same_name_is_another_study(shared):
    choose(GradientLearner(), SPEC, ESTIMATOR, ROWS, FOLDS, shared_study=shared)
    learner = GradientLearner()

    choose(learner, SPEC, ESTIMATOR, replace(ROWS, y=ROWS.y[::-1].copy()), FOLDS, shared_study=shared)

    assert learner.rounds_trained > 0


def test_the_specs_own_parameters_that_are_refused_are_raised_and_stay_to_be_tried(shared):
    wrong = GradientLearner(own={**OWN, "l2": -1.0})
    for _ in range(2):
        with pytest.raises(SpecError, match="l2 must not be negative"):
            choose(wrong, SPEC, ESTIMATOR, ROWS, FOLDS, shared_study=shared)


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("postgresql+psycopg2://ada:s3cr%2Ft@127.0.0.1:1/studies", UpstreamUnavailable, "127.0.0.1:1/studies"),
        ("postgresql://ada@127.0.0.1:1/studies?password=s3cr/t", UpstreamUnavailable, "127.0.0.1:1/studies"),
        ("ada:s3cr/t@db", SpecError, "no database URL"),
        ("mysql://ada:s3cr%2Ft@127.0.0.1/studies", SpecError, "PostgreSQL"),
        ("postgres://ada:s3cr%2Ft@127.0.0.1/studies", SpecError, "PostgreSQL"),
        ("postgresql+nodriver://ada:s3cr%2Ft@127.0.0.1/studies", SpecError, "postgresql\\+psycopg2"),
        ("sqlite://", SpecError, "PostgreSQL"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(url, error, says, caplog):
    caplog.set_level(logging.DEBUG)
    shared = SharedStudy(url, "fraud/run/lightgbm")
    with pytest.raises(error, match=says) as raised:
        joined(shared)

    trace = "".join(traceback.format_exception(raised.value))
    assert "s3cr" not in f"{trace} {raised.value!r} {caplog.text} {shared!r}"


def test_a_trainer_that_searches_alone_has_no_shared_study():
    request = {"model": "fraud", "run": "r1"}
    alone = ESTIMATOR.model_copy(update={"budget": ESTIMATOR.budget.model_copy(update={"parallel": 1})})

    assert SharedStudy.of("postgresql://db/studies", request, alone) is None
    assert SharedStudy.of("", request, ESTIMATOR) is None
    assert SharedStudy.of("postgresql://db/studies", request, ESTIMATOR).name == "fraud/r1/lightgbm"
