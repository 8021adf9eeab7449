"""The loop of a search: what is tried, what is chosen, when it ends. Going on after a kill: test_search_resumed."""

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradient_learner import FOLDS, SEARCH, GradientLearner, a_search, some_rows, spec_with
from training_world import TRAINING, world_spec
from windsock.errors import SpecError
from windsock.learners.booster import BoosterLearner
from windsock.runs.run_folder import CheckpointFolder
from windsock.search import search as search_module
from windsock.search import trials as trials_module
from windsock.search.search import choose
from windsock.served.matrix import Feature
from windsock.served.metrics import better

ROWS = some_rows()


def search(learner=None, rows=ROWS, training=(), **estimator):
    spec, estimator = spec_with(training, **estimator)
    return choose(a_search(learner or GradientLearner(), spec, estimator, rows))


@dataclass
class Watch:
    trials: list = field(default_factory=list)
    rounds: list = field(default_factory=list)

    def trial(self, number, score, state):
        self.trials.append((number, score, state))

    def round(self, place, number, loss):
        self.rounds.append((place, number))


def test_the_specs_own_parameters_come_first_and_equal_searches_agree():
    first, second = search(), search()

    assert first == second
    assert first.trials[0].params == {}
    assert [t.number for t in first.trials] == list(range(6))
    assert first.params == {**GradientLearner().own, **first.trials[first.chosen].params}
    assert first.rounds == first.trials[first.chosen].rounds
    assert first.folds == tuple(FOLDS)
    assert first.note == ""


def test_another_seed_tries_other_parameters():
    assert search().trials[1].params != search(training={"seed": 8}).trials[1].params


def test_without_a_search_space_there_is_one_trial():
    chosen = search(search={})

    assert (len(chosen.trials), chosen.chosen, chosen.note) == (1, 0, "")


def test_without_folds_the_specs_own_parameters_are_used_as_they_are():
    spec, estimator = spec_with()

    chosen = choose(a_search(GradientLearner(), spec, estimator, ROWS, []))

    assert (chosen.params, chosen.rounds, chosen.trials) == (GradientLearner().own, 40, ())
    assert "no usable fold" in chosen.note


def test_rounds_are_where_the_mean_loss_is_lowest():
    chosen = search(search={}, learner=GradientLearner(own={"learning_rate": 6.0, "l2": 0.0, "intercept": True}))
    spec, _ = spec_with()
    curves = []
    for fold in FOLDS:
        part = trials_module.split(spec, ROWS, fold)
        learner = GradientLearner(own={"learning_rate": 6.0, "l2": 0.0, "intercept": True})
        curves.append(learner.train(learner.own, part.learn, 40, part.judge).curve)

    assert chosen.rounds == int(np.argmin(np.mean(curves, axis=0))) + 1


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(-5, 1000),
    trials=st.integers(1, 14),
    pruning=st.booleans(),
    metric=st.sampled_from(["average_precision", "log_loss"]),
)
def test_whatever_is_chosen_came_to_its_end_and_beats_the_specs_own_in_most_folds(seed, trials, pruning, metric):
    learner = GradientLearner(most_rounds=12)
    chosen = search(
        learner,
        training={"seed": seed, "metric": metric},
        trials=trials,
        budget={"pruning": pruning},
        search={**SEARCH, "l2": {"kind": "float", "low": -0.05, "high": 0.5}},  # below 0 is refused
    )
    one, own = chosen.trials[chosen.chosen], chosen.trials[0]

    assert one.state == "complete"
    assert sum(t.state != "failed" for t in chosen.trials) <= trials
    assert all(t.state != "pruned" for t in chosen.trials) or pruning
    assert all((t.score is None) == (t.state != "complete") for t in chosen.trials)
    if one is not own:
        assert better(metric, one.score, own.score)
        assert 2 * sum(better(metric, a, b) for a, b in zip(one.folds, own.folds, strict=True)) > len(own.folds)


def test_refused_parameters_of_the_spec_itself_are_the_users_error():
    with pytest.raises(SpecError, match="l2 must not be negative"):
        search(GradientLearner(own={"learning_rate": 0.3, "l2": -1.0, "intercept": True}))


def test_the_specs_own_parameters_that_diverge_are_the_users_error():
    learner = GradientLearner(most_rounds=400, binary=False, own={"learning_rate": 1e5, "l2": 0.0, "intercept": True})

    def never_finite(self, rows, weights):
        return float("nan")

    learner._loss = never_finite.__get__(learner)
    with pytest.raises(SpecError, match="does not converge"):
        search(learner, training={"metric": "average_precision"})


def test_a_later_trial_that_fails_is_recorded_with_its_reason_and_the_search_goes_on(caplog):
    caplog.set_level(logging.INFO)
    watch = Watch()
    spec, estimator = spec_with(trials=8, search_more={"l2": {"kind": "float", "low": -0.1, "high": 0.1}})

    chosen = choose(a_search(GradientLearner(), spec, estimator, ROWS, watch=watch))

    failed = [t for t in chosen.trials if t.state == "failed"]
    assert failed
    assert all("l2 must not be negative" in t.reason and t.score is None and t.folds == () for t in failed)
    assert sum(t.state != "failed" for t in chosen.trials) == 8
    assert chosen.trials[chosen.chosen].state == "complete"
    assert "failed: SpecError: l2 must not be negative" in caplog.text
    assert watch.trials == [(t.number, t.score, t.state) for t in chosen.trials]


def test_a_loss_that_is_no_number_fails_the_trial_at_once():
    wild = {"learning_rate": {"kind": "float", "low": 1e150, "high": 1e160, "log": True}}
    learner = GradientLearner(most_rounds=60, binary=True)

    chosen = search(learner, search=wild, trials=2)

    assert [t.state for t in chosen.trials[1:]] == ["failed", "failed"]
    assert "not a finite number" in chosen.trials[1].reason
    assert "2 trials failed" in chosen.note
    assert chosen.chosen == 0


def test_a_search_whose_every_trial_fails_comes_to_an_end():
    refused = {"l2": {"kind": "float", "low": -2, "high": -1}}

    chosen = search(search=refused, trials=5)

    assert [t.state for t in chosen.trials] == ["complete"] + ["failed"] * 5
    assert "the failures it bears" in chosen.note


def test_minutes_end_a_search_and_the_note_says_so(monkeypatch):
    ticks = iter(range(0, 100_000, 30))
    monkeypatch.setattr(search_module, "time", SimpleNamespace(time=lambda: float(next(ticks))))

    chosen = search(trials=50, budget={"minutes": 5})

    assert 2 < len(chosen.trials) < 12
    assert chosen.note == f"the search ended with {len(chosen.trials)} of 50 trials done: it has used up its 5 minutes"


def test_gpu_hours_count_what_the_trials_took(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(trials_module, "time", SimpleNamespace(monotonic=iter(range(0, 100_000, 900)).__next__))

    chosen = search(trials=50, budget={"gpu_hours": 1}, compute={"gpu": 2})

    assert len(chosen.trials) == 2  # a quarter of an hour on two GPUs each
    assert "1 GPU-hours" in chosen.note
    assert "0.50 GPU-hours left" in caplog.text


def test_gpus_that_a_spec_asks_for_are_held_even_where_none_is_used(monkeypatch):
    monkeypatch.setenv("WINDSOCK_DEVICE", "cpu")
    kinds = ({"kind": "lightgbm", "search": {}}, {"kind": "torch", "search": {}})

    def held(**estimator):
        return a_search(GradientLearner(), *spec_with(**estimator), ROWS).gpus

    assert [held(**kind, compute={"gpu": 2}) for kind in kinds] == [2, 2]
    assert [held(**kind) for kind in kinds] == [0, 0]


def test_each_trial_is_one_line_in_the_log_with_what_is_left(caplog):
    caplog.set_level(logging.INFO)
    search(trials=3, budget={"minutes": 60})
    lines = [r.getMessage() for r in caplog.records if ": trial " in r.getMessage()]

    assert len(lines) == 3
    assert "the spec's own parameters; 1 of 3 done, 60.0 min left" in lines[0]
    assert "average_precision 0." in lines[1]


def test_progress_inside_a_trial_is_kept_until_the_trial_is_done(tmp_path):
    folder, seen = CheckpointFolder(str(tmp_path / "checkpoints")), []
    spec, estimator = spec_with(trials=2)

    class Looking(GradientLearner):
        def train(self, params, rows, rounds, judged=None, *, checkpoint=None, report=None):
            seen.append(Path(checkpoint.root).name)
            return super().train(params, rows, rounds, judged, checkpoint=checkpoint, report=report)

    choose(a_search(Looking(), spec, estimator, ROWS, checkpoints=folder))

    assert seen == [f"trial-{n}-fold-{k}" for n in range(2) for k in range(3)]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["trials.json"]


def test_live_numbers_come_at_the_rounds_looked_at():
    watch = Watch()
    spec, estimator = spec_with(trials=1)

    choose(a_search(GradientLearner(), spec, estimator, ROWS, watch=watch))

    assert [n for place, n in watch.rounds if place == "trial-0-fold-1"] == list(range(2, 41, 2))


def test_lightgbm_is_searched_and_its_refusals_are_borne():
    ranges = {
        "num_leaves": {"kind": "int", "low": 2, "high": 15},
        "bagging_fraction": {"kind": "choice", "values": [0.5, 1.5]},  # above 1 is refused
    }
    own = {"params": {"min_child_samples": 5, "bagging_freq": 1}, "rounds": 15}
    spec, estimator = spec_with(trials=6, search=ranges, **own)
    learner = BoosterLearner(spec, estimator, [Feature(n) for n in "abcd"])

    chosen = choose(a_search(learner, spec, estimator, ROWS))

    states = {t.params.get("bagging_fraction"): t.state for t in chosen.trials[1:]}
    assert states[1.5] == "failed"
    assert states[0.5] in ("complete", "pruned")
    assert chosen == choose(a_search(learner, spec, estimator, ROWS))


def test_a_regression_is_searched_the_same_way():
    spec, estimator = _regression(search={"learning_rate": {"kind": "float", "low": 0.001, "high": 0.1}})

    chosen = choose(a_search(GradientLearner(binary=False), spec, estimator, some_rows(binary=False)))

    assert chosen.trials[chosen.chosen].score == min(t.score for t in chosen.trials if t.score is not None)


def _regression(**estimator):
    own = {"kind": "lightgbm", "search": SEARCH, "trials": 6, **estimator}
    training = {**TRAINING, "metric": "mean_absolute_error", "evaluation": {}, "estimator": own}
    with tempfile.TemporaryDirectory() as home:
        _, spec = world_spec(
            Path(home),
            label={"column": "TX_FRAUD", "task": "regression", "delay_days": 2},
            training=training,
            gate={"floors": {"mean_absolute_error": 1}},
        )
    return spec, spec.training.estimator()
