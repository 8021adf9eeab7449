"""Trainers that share one study in a real PostgreSQL: killed, racing for the last trial, cut off from it."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from fork_server import fork_context
from gradient_learner import EVERY, GradientLearner, a_search, some_rows, spec_with
from windsock.errors import UpstreamUnavailable
from windsock.runs.run_folder import CheckpointFolder
from windsock.search import study as study_module
from windsock.search.search import choose, take_part
from windsock.search.study import SharedStudy
from windsock_local.stack.home import Home
from windsock_local.stack.postgres import Postgres
from windsock_local.stack.processes import as_user

pytestmark = pytest.mark.integration

ROWS = some_rows(40)


class Server:
    """A PostgreSQL of our own, on a socket."""

    def __init__(self, home: Path) -> None:
        self._database, self._process = Postgres(Home(home)), None
        self._database.prepare()
        self.url = self._database.url("studies")

    def start(self) -> None:
        user = as_user(self._database.user)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._database.command, cwd="/", **user, **quiet)
        until = time.monotonic() + 60
        while not self._database.answers():
            assert time.monotonic() < until, "PostgreSQL did not start"
            time.sleep(0.1)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # at once, but in order
        self._process.wait(60)

    def create(self) -> None:
        engine = sqlalchemy.create_engine(self._database.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("CREATE DATABASE studies"))
        engine.dispose()


@pytest.fixture(scope="module")
def server():
    home = Path(tempfile.mkdtemp(prefix="ws-pg-"))
    running = Server(home)
    running.start()
    running.create()
    yield running
    running.stop()
    shutil.rmtree(home, ignore_errors=True)


def study_of(server, name):
    return SharedStudy(server.url, f"fraud/{name}/lightgbm", heartbeat_s=1, grace_s=10)


@dataclass
class StandingLearner(GradientLearner):
    """Stands still for good at the first checkpoint of a trial whose parameters were drawn."""

    def train(self, params, *arguments, report, **more):
        def report_or_stand(done, loss):
            if done == EVERY and params != self.own_params():
                threading.Event().wait()
            report(done, loss)

        return super().train(params, *arguments, report=report_or_stand, **more)


def search(role, study, folder, trials, learner=None):
    """Take part in a search of one name."""
    spec, estimator = spec_with(trials=trials, budget={"parallel": 3})
    learner, run = learner or GradientLearner(20), {"fit": choose, "search": take_part}[role]
    checkpoints = CheckpointFolder(str(folder))
    return learner, run(a_search(learner, spec, estimator, ROWS, checkpoints=checkpoints, shared_study=study))


def _search(study, folder, trials, learner=None):
    done = search("search", study, folder, trials, learner)[1]
    (Path(folder) / f"done-{os.getpid()}.json").write_text(json.dumps(done))


@contextmanager
def children(number, *arguments):
    started = [fork_context().Process(target=_search, args=arguments) for _ in range(number)]
    for child in started:
        child.start()
    try:
        yield started
    finally:
        for child in started:
            if child.is_alive():
                child.kill()
            child.join()


def in_optuna(server, name):
    """Return the study's trials as Optuna tells them."""
    storage = optuna.storages.RDBStorage(server.url)
    (full,) = [n for n in optuna.get_all_study_names(storage) if n.startswith(f"fraud/{name}/lightgbm/")]
    trials = optuna.load_study(study_name=full, storage=storage).trials
    storage.engine.dispose()
    return trials


def count(trials, *states):
    return sum(t.state.name in states for t in trials)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.kill
def test_a_process_killed_in_its_trial_costs_no_trial_and_adds_none(server, tmp_path):
    trials, study = 10, study_of(server, "killed")
    inputs = (study, tmp_path, trials)
    with children(1, *inputs, StandingLearner(20)) as (killed,):
        until(lambda: any(tmp_path.glob("study-*/trial-1-*/progress.json")))  # it holds this trial from now on
        with children(2, *inputs, GradientLearner(20, pause_s=0.02)) as others:
            until(lambda: any(tmp_path.glob("study-*/trial-[2-9]-*/progress.json")))
            killed.kill()
            started = (killed, *others)
            for child in started:
                child.join(120)
            exits = [child.exitcode for child in started]
    before = in_optuna(server, "killed")
    learner, chosen = search("fit", study, tmp_path, trials)
    after = in_optuna(server, "killed")
    retried = [t for t in after if t.system_attrs.get("retry_history")]

    assert exits == [-signal.SIGKILL, 0, 0]
    assert count(after, "COMPLETE", "PRUNED") == trials
    assert count(after, "RUNNING", "WAITING") == 0
    assert len(retried) == 1
    assert retried[0].state.name in ("COMPLETE", "PRUNED")
    lost = next(t for t in after if t.number == retried[0].system_attrs["failed_trial"])
    assert (lost.state.name, lost.params) == ("FAIL", retried[0].params)
    assert retried[0].user_attrs["record"]["number"] == lost.number
    assert [t.number for t in chosen.trials] == list(range(trials))
    assert chosen.trials[0].params == {}
    assert chosen.trials[chosen.chosen].state == "complete"
    done = [json.loads(path.read_text()) for path in tmp_path.glob("done-*.json")]
    assert sum(done) + count(after, "COMPLETE", "PRUNED") - count(before, "COMPLETE", "PRUNED") <= trials
    assert learner.rounds_trained < 3 * 20 * (trials - sum(done) + 1)
    assert not list(tmp_path.glob("study-*/*"))


def test_processes_that_race_for_the_last_trials_never_run_one_too_many(server, tmp_path):
    for attempt, trials in enumerate((1, 2, 5)):
        name, folder = f"race{attempt}", tmp_path / str(attempt)
        folder.mkdir()
        with children(4, study_of(server, name), folder, trials) as started:
            for child in started:
                child.join(120)
            assert [child.exitcode for child in started] == [0] * 4
        found = in_optuna(server, name)

        assert count(found, "COMPLETE", "PRUNED") == trials
        assert count(found, "RUNNING", "WAITING") == 0
        assert sum(json.loads(path.read_text()) for path in folder.glob("done-*.json")) == trials
        assert sorted(t.user_attrs["record"]["number"] for t in found if "record" in t.user_attrs) == list(
            range(trials)
        )


def test_a_search_begun_again_goes_on_and_a_finished_one_is_not_done_again(server, tmp_path):
    study = study_of(server, "again")
    _, first = search("fit", study, tmp_path, 4)
    _, second = search("fit", study, tmp_path, 7)
    learner, third = search("fit", study, tmp_path, 7)

    assert second.trials[:4] == first.trials
    assert third == second
    assert learner.rounds_trained == 0


@dataclass
class StoppingLearner(GradientLearner):
    """Takes the database away in the middle of its first trial, and lets it come back later."""

    stop: Callable[[], None] = lambda: None

    def train(self, *arguments, **more):
        if self.rounds_trained == self.most_rounds:
            self.stop()
        return super().train(*arguments, **more)


def test_a_database_that_restarts_while_a_trial_runs_costs_nothing(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(study_module, "PAUSES_S", (0.5,) * 60)
    spec, estimator = spec_with(trials=2, budget={"parallel": 3})
    starting = threading.Timer(2, server.start)

    def stop():
        server.stop()
        starting.start()
        time.sleep(1.5)  # longer than between two signs of life

    learner = StoppingLearner(20, stop=stop)
    chosen = choose(a_search(learner, spec, estimator, ROWS, shared_study=study_of(server, "restart")))
    starting.join()

    assert "database of shared studies does not answer as it should" in caplog.text
    assert "gives no sign of life" in caplog.text
    assert len(chosen.trials) == 2
    assert learner.rounds_trained == 2 * 3 * 20
    assert count(in_optuna(server, "restart"), "COMPLETE") == 2


def test_a_database_that_stays_away_ends_the_search_which_goes_on_from_its_checkpoints(server, tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "PAUSES_S", (0.1,))
    spec, estimator = spec_with(trials=2, budget={"parallel": 3})
    inputs = {"shared_study": study_of(server, "away"), "checkpoints": CheckpointFolder(str(tmp_path))}
    with pytest.raises(UpstreamUnavailable, match="does not answer"):
        choose(a_search(StoppingLearner(20, stop=server.stop), spec, estimator, ROWS, **inputs))
    server.start()
    monkeypatch.setattr(study_module, "PAUSES_S", ())
    learner = GradientLearner(20)
    chosen = choose(a_search(learner, spec, estimator, ROWS, **inputs))

    assert [t.state for t in chosen.trials] == ["complete"] * 2
    assert learner.rounds_trained <= 3 * 20 + 3  # of the first trial, what had been done was not done again
