"""A study that several processes share, on SQLite; with real processes and PostgreSQL: test_shared_search."""

import itertools
import logging
import sqlite3
import threading
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradient_learner import GradientLearner, a_search, some_rows, spec_with
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.runs.run_folder import CheckpointFolder
from windsock.search import search as search_module
from windsock.search import study
from windsock.search.search import choose, take_part
from windsock.search.study import KeptStudy, SharedStudy

# Filters of warnings belong to the whole process, and threads stand for processes here.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

ROWS = some_rows(40)
OWN = GradientLearner().own
FOLDS_OF_A_TRIAL = 3
names = itertools.count()


class Killed(BaseException):
    """The process is gone, without a word."""


@dataclass
class ScriptedLearner(GradientLearner):
    """Does what the script says at each trial: ``ok``, ``refuse``, or an error that ends the process."""

    script: list = field(default_factory=list)
    trained: list = field(default_factory=list)
    """Parameters of each trial that was begun."""
    before_end: Callable[[], None] = lambda: None

    def train(self, params, rows, rounds, judged=None, *, checkpoint=None, report=None):
        if len(self.trained) * FOLDS_OF_A_TRIAL == self.rounds_trained:
            self.trained.append(dict(params))
            what = self.script.pop(0) if self.script else "ok"
            if what == "refuse":
                self.rounds_trained += FOLDS_OF_A_TRIAL
                raise SpecError("refused")
            if what != "ok":
                if isinstance(what, Killed):
                    self.before_end()
                raise what
        return super().train(params, rows, rounds, judged, checkpoint=checkpoint, report=report)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return tmp_path_factory.mktemp("studies") / "studies.db"


@pytest.fixture
def shared(database):
    return SharedStudy(f"sqlite:///{database}", f"fraud/run{next(names)}/lightgbm")


def a_shared_search(shared, script=(), trials=4, watch=None, **budget):
    spec, estimator = spec_with(trials=trials, budget={"parallel": 3, **budget})
    learner = ScriptedLearner(1, script=list(script))
    return a_search(learner, spec, estimator, ROWS, shared_study=shared, watch=watch)


def die(database, shared):
    """Let the processes of running trials have died: their last sign of life is long ago."""
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        connection.execute(
            "UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00' WHERE trial_id IN (SELECT trial_id FROM "
            "trials JOIN studies USING (study_id) WHERE study_name LIKE ?)",
            (f"{shared.name}/%",),
        )


@pytest.fixture
def kill(monkeypatch, database):
    """Run a search whose process is killed when its script says so."""

    def run(search):
        with monkeypatch.context() as dead:
            search.learner.before_end = lambda: dead.setattr(KeptStudy, "put_back", lambda *_, **__: None)
            with suppress(Killed):
                take_part(search)
        die(database, search.shared_study)

    return run


def all_at_once(*searches):
    done = []
    threads = [threading.Thread(target=lambda s=s: done.append(take_part(s))) for s in searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def test_several_that_begin_at_once_try_the_specs_own_parameters_once_and_no_trial_too_many(tmp_path):
    shared = SharedStudy(f"sqlite:///{tmp_path / 'new.db'}", "fraud/run/lightgbm")
    searches = [a_shared_search(shared, trials=5) for _ in range(4)]

    done = all_at_once(*searches)

    trained = [params for search in searches for params in search.learner.trained]
    assert len(done) == 4
    assert sum(done) == len(trained) == 5
    assert sum(params == OWN for params in trained) == 1
    chosen = choose(a_shared_search(shared, trials=5))
    assert sum(t.state != "failed" for t in chosen.trials) == len(chosen.trials) == 5
    assert chosen.trials[0].params == {}


def test_a_search_shared_by_several_is_finished_by_the_last_and_not_done_twice(shared, tmp_path):
    folder = CheckpointFolder(str(tmp_path / "checkpoints"))
    searches = [replace(a_shared_search(shared, trials=6), checkpoints=folder) for _ in range(3)]
    done = all_at_once(*searches[:2])

    chosen = choose(searches[2])

    assert sum(done) == 6
    assert searches[2].learner.rounds_trained == 0
    assert [t.number for t in chosen.trials] == list(range(6))
    assert chosen.trials[chosen.chosen].state == "complete"
    assert not list((tmp_path / "checkpoints").glob("*/*"))


def test_a_dead_processs_trial_is_run_again_with_its_number_and_parameters(shared, kill):
    dead = a_shared_search(shared, ["ok", "ok", Killed()])
    kill(dead)
    other = a_shared_search(shared)
    chosen = choose(other)

    assert other.learner.trained[0] == dead.learner.trained[2]
    assert {**OWN, **chosen.trials[2].params} == dead.learner.trained[2]
    assert chosen == choose(replace(a_shared_search(shared), shared_study=None))


def test_a_trial_that_was_given_to_another_process_before_it_began_is_left_to_it(shared, database, caplog):
    look = KeptStudy.latest_tries

    def after_standing_still(kept):
        running = [t.number for t in kept.study.get_trials() if t.state is optuna.trial.TrialState.RUNNING]
        if running and "given" not in caplog.text:
            kept.put_back(running[0], counts=True)  # as another process does that hears nothing of this one
        return look(kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeptStudy, "latest_tries", after_standing_still)
        chosen = choose(a_shared_search(shared))

    assert "was given to another process" in caplog.text
    assert chosen == choose(replace(a_shared_search(shared), shared_study=None))


def test_a_late_result_of_a_trial_that_another_has_run_does_not_count_twice(shared, database, caplog):
    one, begun, go_on = a_shared_search(shared), threading.Event(), threading.Event()

    def slow(params, *arguments, **more):
        if len(one.learner.trained) == 2:
            begun.set()
            go_on.wait(60)
        return ScriptedLearner.train(one.learner, params, *arguments, **more)

    one.learner.train = slow
    done = []
    thread = threading.Thread(target=lambda: done.append(take_part(one)))
    thread.start()
    assert begun.wait(60)
    die(database, shared)  # as far as the database knows
    chosen = choose(a_shared_search(shared))
    go_on.set()
    thread.join()

    assert "was given to another process" in caplog.text
    assert done == [1]
    assert [t.number for t in chosen.trials] == [0, 1, 2, 3]
    assert choose(a_shared_search(shared)) == chosen


def test_a_trial_that_takes_every_process_with_it_is_given_up_but_never_the_specs_own(shared, kill):
    for _ in range(7):
        kill(a_shared_search(shared, [Killed()]))
    kill(a_shared_search(shared, ["ok", Killed()]))
    for _ in range(4):
        kill(a_shared_search(shared, [Killed()]))

    chosen = choose(a_shared_search(shared))

    assert [t.state for t in chosen.trials] == ["complete", "failed", "complete", "complete", "complete"]
    assert "ended before it did, 5 times" in chosen.trials[1].reason


@pytest.mark.parametrize("ends", [SystemExit(143), UpstreamUnavailable("the store is away")])
def test_a_process_that_ends_in_order_gives_its_trial_back_at_once(shared, ends):
    for script in [["ok", ends], *[[ends]] * 5]:  # more often than a trial may take its process with it
        with pytest.raises(type(ends)):
            take_part(a_shared_search(shared, script))
    chosen = choose(a_shared_search(shared))

    assert [t.state for t in chosen.trials] == ["complete"] * 4


def test_a_running_trial_gives_signs_of_life_also_after_its_database_was_away(database, monkeypatch, caplog):
    shared = SharedStudy(f"sqlite:///{database}", f"fraud/run{next(names)}/x", heartbeat_s=1)
    one, beats, away = a_shared_search(shared, trials=1), [], [True]
    beat = optuna.storages.RDBStorage.record_heartbeat

    def record_heartbeat(self, trial_id):
        beats.append(trial_id)
        if away.pop() if away else False:
            raise optuna.exceptions.StorageInternalError("away")
        beat(self, trial_id)

    def slow(*arguments, **more):
        while len(beats) < 3:
            threading.Event().wait(0.05)
        return ScriptedLearner.train(one.learner, *arguments, **more)

    monkeypatch.setattr(optuna.storages.RDBStorage, "record_heartbeat", record_heartbeat)
    one.learner.train = slow

    assert take_part(one) == 1
    assert "gives no sign of life" in caplog.text


def test_a_process_that_died_before_its_first_sign_of_life_is_missed_all_the_same(shared, kill, monkeypatch):
    with monkeypatch.context() as early:
        early.setattr(optuna.storages.RDBStorage, "record_heartbeat", lambda *_: None)
        early.setattr(optuna.storages.RDBStorage, "set_trial_user_attr", _but_for_seconds)
        kill(a_shared_search(shared, ["ok", "ok", Killed()]))
    monkeypatch.setattr(search_module, "_SILENT_S", 0.2)
    monkeypatch.setattr(search_module, "_POLL_S", 0.1)

    assert [t.state for t in choose(a_shared_search(shared)).trials] == ["complete"] * 4


def _but_for_seconds(self, trial_id, key, value, original=optuna.storages.RDBStorage.set_trial_user_attr):
    if not key.startswith("seconds"):
        original(self, trial_id, key, value)


def test_gpu_hours_are_counted_over_all_processes(shared, monkeypatch):
    def a_search_by_gpus():
        spec, estimator = spec_with(trials=50, budget={"parallel": 2, "gpu_hours": 1}, compute={"gpu": 2})
        return a_search(ScriptedLearner(1), spec, estimator, ROWS, shared_study=shared)

    monkeypatch.setattr("windsock.search.trials.time", SimpleNamespace(monotonic=itertools.count(0, 600).__next__))
    take_part(a_search_by_gpus())
    other = a_search_by_gpus()
    chosen = choose(other)

    assert other.learner.trained == []
    assert len(chosen.trials) == 3  # ten minutes on two GPUs each
    assert "used up its 1 GPU-hours" in chosen.note


def test_what_waits_when_the_time_is_over_counts_as_failed_but_the_specs_own_is_tried(shared, kill, monkeypatch):
    kill(a_shared_search(shared, [Killed()], minutes=1))
    now = SimpleNamespace(time=lambda: 2e9, monotonic=search_module.time.monotonic, sleep=search_module.time.sleep)
    with monkeypatch.context() as later:
        later.setattr(search_module, "time", now)
        chosen = choose(a_shared_search(shared, minutes=1))
    assert [t.state for t in chosen.trials] == ["complete"]
    assert "used up its 1 minutes" in chosen.note

    with pytest.raises(SystemExit):
        take_part(a_shared_search(shared, [SystemExit(143)], minutes=1e9))
    monkeypatch.setattr(search_module, "time", now)
    chosen = choose(a_shared_search(shared, minutes=1))
    assert [t.state for t in chosen.trials] == ["complete", "failed"]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    trials=st.integers(1, 3),
    scripts=st.lists(
        st.lists(st.sampled_from(["ok", "refuse", "killed", "ended", "away"]), min_size=1, max_size=4), max_size=3
    ),
)
def test_no_order_of_events_brings_more_trials_than_the_budget(kill, database, trials, scripts):
    shared = SharedStudy(f"sqlite:///{database}", f"fraud/run{next(names)}/x")
    ends = {"killed": Killed(), "ended": SystemExit(143), "away": UpstreamUnavailable("away")}
    for script in scripts:
        search = a_shared_search(shared, [ends.get(what, what) for what in script], trials)
        with suppress(SpecError, SystemExit, UpstreamUnavailable):
            kill(search)
    chosen = choose(a_shared_search(shared, (), trials))

    failed = sum(t.state == "failed" for t in chosen.trials)
    done = len(chosen.trials) - failed
    assert done == trials or (done < trials <= failed), "as many failures as trials end a search, too"
    assert [t.number for t in chosen.trials] == list(range(len(chosen.trials)))
    assert chosen.trials[0].state == "complete"


def test_one_process_alone_gets_the_same_from_a_shared_study_as_from_its_own(shared):
    search = a_shared_search(shared, trials=6)

    assert choose(search) == choose(replace(search, shared_study=None))


def test_another_training_under_the_same_name_is_another_study(shared):
    choose(a_shared_search(shared, trials=2))
    other = replace(a_shared_search(shared, trials=2), rows=replace(ROWS, y=ROWS.y[::-1].copy()))
    choose(other)

    assert other.learner.rounds_trained > 0


def test_the_specs_own_parameters_that_are_refused_are_raised_and_stay_to_be_tried(shared):
    search = a_shared_search(shared)
    search.learner.own["l2"] = -1.0
    for _ in range(2):
        with pytest.raises(SpecError, match="l2 must not be negative"):
            choose(search)


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("postgresql+psycopg2://ada:s3cr%2Ft@127.0.0.1:1/studies", UpstreamUnavailable, "127.0.0.1:1/studies"),
        ("postgresql://ada@127.0.0.1:1/studies?password=s3cr/t", UpstreamUnavailable, "127.0.0.1:1/studies"),
        ("ada:s3cr/t@db", SpecError, "no URL of a PostgreSQL"),
        ("mysql://ada:s3cr%2Ft@127.0.0.1/studies", SpecError, "PostgreSQL"),
        ("postgres://ada:s3cr%2Ft@127.0.0.1/studies", SpecError, "PostgreSQL"),
        ("postgresql+nodriver://ada:s3cr%2Ft@127.0.0.1/studies", SpecError, "postgresql\\+psycopg2"),
        ("sqlite://", SpecError, "PostgreSQL"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(url, error, says, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(study, "PAUSES_S", ())
    shared = SharedStudy(url, "fraud/run/lightgbm")
    with pytest.raises(error, match=says) as raised:
        take_part(a_shared_search(shared))

    trace = "".join(traceback.format_exception(raised.value))
    assert "s3cr" not in f"{trace} {raised.value!r} {caplog.text} {shared!r}"


def test_a_trainer_that_searches_alone_has_no_shared_study():
    request = {"model": "fraud", "run": "r1"}
    _, together = spec_with(budget={"parallel": 3})
    _, alone = spec_with()

    assert SharedStudy.of("postgresql://db/studies", request, alone) is None
    assert SharedStudy.of("", request, together) is None
    assert SharedStudy.of("postgresql://db/studies", request, together).name == "fraud/r1/lightgbm"
