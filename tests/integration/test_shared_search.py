"""Trainers that share one study in a real PostgreSQL: killed, racing for the last trial, cut off from it."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from fork_server import fork_context
from gradient_learner import FOLDS, GradientLearner, some_rows, spec_with
from windsock.errors import UpstreamUnavailable
from windsock.runs.checkpoints import CheckpointFolder
from windsock.search import shared_study, study_database
from windsock.search.budget import Budget
from windsock.search.sampling import Sampler
from windsock.search.search import choose, take_part
from windsock.search.shared_study import JoinedStudy
from windsock.search.study import SharedStudy, Turn
from windsock.search.trials import Trial
from windsock_local.stack.layout import Home
from windsock_local.stack.postgres import Postgres
from windsock_local.stack.processes import as_user

pytestmark = pytest.mark.integration

ROWS = some_rows(40)
CONTEXT = fork_context()


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


def joined(server, name, budget):
    sampler = Sampler(spec_with()[1], GradientLearner().own, seed=7, maximize=True)
    return JoinedStudy(study_of(server, name), "f" * 64, sampler, budget)


def search(role, study, folder, trials, pause_s):
    """Take part in a search of one name."""
    spec, estimator = spec_with(trials=trials, budget={"parallel": 3})
    learner, run = GradientLearner(20, pause_s=pause_s), {"fit": choose, "search": take_part}[role]
    checkpoints = CheckpointFolder(str(folder))
    return learner, run(learner, spec, estimator, ROWS, FOLDS, checkpoints=checkpoints, shared_study=study)


def _search(study, folder, trials, pause_s):
    done = search("search", study, folder, trials, pause_s)[1]
    (Path(folder) / f"done-{os.getpid()}.json").write_text(json.dumps(done))


@contextmanager
def children(number, *arguments):
    started = [CONTEXT.Process(target=_search, args=arguments) for _ in range(number)]
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
    with children(3, study, tmp_path, trials, 0.02) as started:
        # Each is in its second round of checkpoints of some trial: all three hold one.
        until(lambda: len(list(tmp_path.glob("study-*/trial-*/progress.json"))) >= 3)
        started[1].kill()
        for child in started:
            child.join(120)
        exits = [child.exitcode for child in started]
    before = in_optuna(server, "killed")
    learner, chosen = search("fit", study, tmp_path, trials, 0)
    after = in_optuna(server, "killed")
    retried = [t for t in after if t.system_attrs.get("retry_history")]

    assert exits == [0, -signal.SIGKILL, 0]
    assert count(after, "COMPLETE", "PRUNED") == trials
    assert count(after, "RUNNING", "WAITING") == 0
    assert len(retried) == 1
    assert retried[0].state.name in ("COMPLETE", "PRUNED")
    lost = next(t for t in after if t.number == retried[0].system_attrs["failed_trial"])
    assert (lost.state.name, lost.params) == ("FAIL", retried[0].params)
    assert lost.user_attrs["number"] == retried[0].user_attrs["number"]
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
        with children(4, study_of(server, name), folder, trials, 0) as started:
            for child in started:
                child.join(120)
            assert [child.exitcode for child in started] == [0] * 4
        found = in_optuna(server, name)

        assert count(found, "COMPLETE", "PRUNED") == len(found) == trials
        assert sum(json.loads(path.read_text()) for path in folder.glob("done-*.json")) == trials
        assert sum(t.user_attrs["number"] == 0 for t in found) == 1


def test_a_search_begun_again_goes_on_and_a_finished_one_is_not_done_again(server, tmp_path):
    study = study_of(server, "again")
    _, first = search("fit", study, tmp_path, 4, 0)
    _, second = search("fit", study, tmp_path, 7, 0)
    learner, third = search("fit", study, tmp_path, 7, 0)

    assert second.trials[:4] == first.trials
    assert third == second
    assert learner.rounds_trained == 0


def test_a_holder_of_the_lock_that_hangs_is_cut_off(server, monkeypatch):
    study, other = (joined(server, "hanging", Budget(3)) for _ in range(2))
    in_it, done, ends = threading.Event(), threading.Event(), []

    def hang():
        with study._database.locked():
            in_it.set()
            done.wait(120)

    def hanging():
        with pytest.raises(UpstreamUnavailable):
            hang()
        ends.append("cut off")

    holder = threading.Thread(target=hanging)
    with monkeypatch.context() as impatient:
        impatient.setattr(study_database, "_HANGING_S", 1)
        holder.start()
        assert in_it.wait(60)
    claim = other.claim()  # while the holder still holds on
    done.set()
    holder.join()

    assert claim.number == 0
    assert ends == ["cut off"]


def test_a_database_that_restarts_while_a_trial_runs_costs_nothing(server, monkeypatch, caplog):
    monkeypatch.setattr(shared_study, "_PAUSES_S", (0.5,) * 60)
    study = joined(server, "restart", Budget(1))
    claim = study.claim()
    with study.running(claim):
        server.stop()
        try:
            with pytest.raises(UpstreamUnavailable, match="database of shared studies"):
                joined(server, "restart", Budget(1))
        finally:
            starting = threading.Timer(2, server.start)
            starting.start()
        trial = Trial(0, {}, 3, 0.5, (0.5,))
        assert study.finish(claim, trial)
        starting.join()

    assert "cannot be kept yet" in caplog.text
    assert study.claim() is Turn.OVER
    assert study.finished() == [trial]
