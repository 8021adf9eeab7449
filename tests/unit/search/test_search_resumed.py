"""A search that is cut off anywhere and begun again gives exactly what an uninterrupted one gives."""

import json
import logging
import multiprocessing
import os
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradient_learner import GradientLearner, a_search, some_rows, spec_with
from windsock.runs import run_folder
from windsock.runs.run_folder import CheckpointFolder
from windsock.search import search as search_module
from windsock.search.search import choose
from windsock.search.study import TRIALS

ROWS = some_rows(40)
TRIALS_WANTED = 11
ROUNDS = 20


class Cut(BaseException):
    """The process ends here."""


@cache
def the_spec(**changes):
    return spec_with(trials=TRIALS_WANTED, **changes)


def search(folder=None, rows=ROWS, **changes):
    spec, estimator = the_spec(**changes)
    return choose(a_search(GradientLearner(ROUNDS), spec, estimator, rows, checkpoints=folder))


@cache
def uninterrupted():
    chosen = search()
    assert {t.state for t in chosen.trials} == {"complete", "pruned"}  # or nothing of pruning would be shown
    return chosen


@cache
def all_writes():
    """Return how often an uninterrupted search writes."""
    counts = []
    with _memory(lambda *_: counts.append(1)) as folder:
        search(folder)
    return len(counts)


class _memory:
    """A folder of checkpoints in memory, with something that happens around each write."""

    def __init__(self, before=lambda *_: None, after=lambda *_: None):
        self._before, self._after, self.files = before, after, {}

    def __enter__(self):
        return _Folder(self, "")

    def __exit__(self, *_):
        return None


class _Folder:
    def __init__(self, kept, url):
        self._kept, self.url = kept, url

    def sub(self, name):
        return _Folder(self._kept, f"{self.url}/{name}")

    def read(self, name):
        return self._kept.files.get(f"{self.url}/{name}")

    def write(self, name, data):
        self._kept._before(name)
        self._kept.files[f"{self.url}/{name}"] = data
        self._kept._after(name)

    def clear(self):
        for name in [n for n in self._kept.files if n.startswith(f"{self.url}/")]:
            del self._kept.files[name]


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_search_cut_off_at_any_write_gives_the_same_as_an_uninterrupted_one(data):
    cuts = sorted(data.draw(st.lists(st.integers(1, all_writes()), min_size=1, max_size=3), label="cut after writes"))
    before = data.draw(st.booleans(), label="before the write takes effect")
    written = []

    def cut(_):
        written.append(1)
        if len(written) in cuts:
            raise Cut

    memory = _memory(before=cut) if before else _memory(after=cut)
    with memory as folder:
        for _ in range(len(cuts) + 1):
            try:
                chosen = search(folder)
                break
            except Cut:
                continue

    assert chosen == uninterrupted()


def test_a_finished_search_is_not_done_again():
    with _memory() as folder:
        first = search(folder)
        spec, estimator = the_spec()
        learner = GradientLearner(ROUNDS)
        second = choose(a_search(learner, spec, estimator, ROWS, checkpoints=folder))

    assert first == second
    assert learner.rounds_trained == 0


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(caplog):
    caplog.set_level(logging.INFO)
    spec, estimator = the_spec()
    small = estimator.model_copy(update={"trials": 5})
    with _memory() as folder:
        first = choose(a_search(GradientLearner(ROUNDS), spec, small, ROWS, checkpoints=folder))
        second = choose(a_search(GradientLearner(ROUNDS), spec, estimator, ROWS, checkpoints=folder))

    assert "goes on after" not in caplog.text.partition("5 of 5 done")[0]
    assert "The search goes on after 5 trials that are done already" in caplog.text
    assert second.trials[:5] == first.trials
    assert len(second.trials) == TRIALS_WANTED


@pytest.mark.parametrize("other", ["rows", "seed", "search", "params"])
def test_trials_of_another_training_are_not_taken_for_this_ones(other):
    with _memory() as folder:
        search(folder)
        rows = replace(ROWS, y=ROWS.y[::-1].copy()) if other == "rows" else ROWS
        spec, estimator = the_spec()
        learner = GradientLearner(ROUNDS)
        if other == "seed":
            spec = spec.model_copy(update={"training": spec.training.model_copy(update={"seed": 99})})
        if other == "search":
            space = {name: r for name, r in estimator.search.items() if name != "l2"}
            estimator = estimator.model_copy(update={"search": space})
        if other == "params":
            learner.own["learning_rate"] = 0.1
        resumed = choose(a_search(learner, spec, estimator, rows, checkpoints=folder))
        fresh = choose(a_search(GradientLearner(ROUNDS, own=learner.own), spec, estimator, rows))

    assert resumed == fresh


def test_what_a_place_costs_does_not_change_the_fingerprint():
    spec, estimator = the_spec()
    cheaper = estimator.model_copy(update={"trials": 3, "compute": estimator.compute.model_copy(update={"cpu": 9})})

    one, other = (a_search(GradientLearner(), spec, e, ROWS).fingerprint() for e in (estimator, cheaper))
    assert one == other


@pytest.mark.parametrize("data", [b'{"format": ', b'{"format": "windsock-trials/1", "trials": []}', b"[{}]", b"\xff"])
def test_a_file_of_trials_that_is_damaged_or_of_an_older_version_is_ignored(tmp_path, caplog, data):
    folder = CheckpointFolder(str(tmp_path))
    folder.write(TRIALS, data)

    assert search(folder) == uninterrupted()
    assert "begins anew" in caplog.text


def test_the_clock_goes_on_over_a_restart(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(search_module, "time", SimpleNamespace(time=lambda: now[0]))
    spec, estimator = the_spec()
    estimator = estimator.model_copy(update={"budget": estimator.budget.model_copy(update={"minutes": 5})})

    written = []

    def cut(name):
        if name == TRIALS:
            written.append(name)
            now[0] += 240
            if len(written) == 2:
                raise Cut

    with _memory(after=cut) as folder:
        with pytest.raises(Cut):
            choose(a_search(GradientLearner(ROUNDS), spec, estimator, ROWS, checkpoints=folder))
        chosen = choose(a_search(GradientLearner(ROUNDS), spec, estimator, ROWS, checkpoints=folder))

    assert "used up its 5 minutes" in chosen.note
    assert len(chosen.trials) == 1


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["gradient_learner", "windsock.search.search", "optuna"])


def _child(folder, kill_at):
    """Search with a real folder, and be killed at the n-th file put in place."""
    original, counted = run_folder.CheckpointFolder.write, []

    def write(self, name, data):
        counted.append(1)
        if len(counted) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, name, data)

    run_folder.CheckpointFolder.write = write
    chosen = search(CheckpointFolder(str(folder)))
    (Path(folder) / "result.json").write_text(json.dumps([chosen.chosen, chosen.rounds, chosen.params]))


@pytest.mark.kill
def test_a_killed_trainer_goes_on_where_it_stopped(tmp_path):
    kills = []
    for kill_at in (2, 30, None):
        child = CONTEXT.Process(target=_child, args=(tmp_path, kill_at))
        child.start()
        child.join(120)
        kills.append(child.exitcode)
    expected = uninterrupted()

    assert kills == [-signal.SIGKILL] * 2 + [0]
    assert json.loads((tmp_path / "result.json").read_text()) == [expected.chosen, expected.rounds, expected.params]
    learner = GradientLearner(ROUNDS)
    spec, estimator = the_spec()
    kept = choose(a_search(learner, spec, estimator, ROWS, checkpoints=CheckpointFolder(str(tmp_path))))
    assert (kept, learner.rounds_trained) == (expected, 0)
