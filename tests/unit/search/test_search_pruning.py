"""What is pruned and what is not."""

import json
import pickle
from dataclasses import asdict, replace

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradient_learner import GradientLearner, a_search, some_rows, spec_with
from windsock.search.study import Trial
from windsock.search.trials import Pruning, best_so_far, looks

ROUNDS = 40
GOOD = best_so_far([0.5] * ROUNDS, ROUNDS), (0.6, 0.6)
"""Losses and mean metrics of a finished trial."""


def pruning(finished=7, searched=("l2",), direction="maximize"):
    losses, means = GOOD
    trials = [Trial(n, {}, losses=losses, means=means) for n in range(finished)]
    return Pruning(trials, searched, ROUNDS, direction)


def rounds_until_pruned(one, loss=0.9):
    for n in range(1, ROUNDS + 1):
        try:
            one.after_round(n, loss)
        except optuna.TrialPruned as stop:
            return stop.args[1]
    return None


def test_a_trial_worse_than_most_is_pruned_after_the_warm_up():
    assert rounds_until_pruned(pruning()) == 14  # the first look after three tenths of the way
    assert rounds_until_pruned(pruning(), loss=0.4) is None


def test_few_finished_trials_prune_nothing():
    assert rounds_until_pruned(pruning(6)) is None


@pytest.mark.parametrize(("state", "pruned"), [("complete", True), ("pruned", False), ("failed", False)])
def test_only_complete_trials_are_compared_with(state, pruned):
    spec, estimator = spec_with()
    search = a_search(GradientLearner(ROUNDS), spec, estimator, some_rows(40))
    finished = [Trial(n, {}, losses=(0.01,) * 20, means=(0.99, 0.99)) for n in range(6)]
    one = search.run(7, {"learning_rate": 0.02}, [*finished, replace(finished[0], state=state)])

    assert one.state == ("pruned" if pruned else "complete")
    assert one.rounds == (14 if pruned else ROUNDS)
    own = search.run(0, {}, finished * 2)
    switched_off = estimator.model_copy(update={"budget": estimator.budget.model_copy(update={"pruning": False})})
    assert own.state == "complete"
    assert replace(search, estimator=switched_off).run(7, {"learning_rate": 0.02}, finished * 2).state == "complete"


@pytest.mark.parametrize("moves", ["scale_pos_weight", "positive_weight", "objective"])
def test_a_loss_that_other_parameters_move_prunes_nothing_but_a_bad_metric_does(moves):
    one = pruning(searched=["learning_rate", moves])

    assert rounds_until_pruned(one) is None
    with pytest.raises(optuna.TrialPruned, match="after 1 of the folds"):
        one.after_fold(0.5, may_stop=True, rounds=9)


def test_a_metric_where_less_is_better_is_compared_the_other_way_round():
    pruning(direction="minimize").after_fold(0.5, may_stop=True, rounds=9)
    with pytest.raises(optuna.TrialPruned):
        pruning(direction="minimize").after_fold(0.7, may_stop=True, rounds=9)


def test_a_fold_without_a_value_and_a_trial_that_must_not_stop_go_on():
    pruning().after_fold(None, may_stop=True, rounds=9)
    one = pruning()
    one.after_fold(0.1, may_stop=False, rounds=9)

    assert one.means == [0.1]


def test_a_training_that_stopped_early_keeps_its_lowest_loss():
    assert best_so_far([3.0, 1.0, 2.0], 6) == (3.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert best_so_far([float("nan"), 1.0], 2) == (1e30, 1.0)


@given(most=st.integers(1, 5000))
def test_pruning_looks_at_twenty_rounds_at_most_and_at_the_last_one(most):
    at = looks(most)

    assert len(at) == len(set(at)) == min(most, 20)
    assert at == sorted(at)
    assert at[0] >= 1
    assert at[-1] == most


def test_a_pruned_trial_can_be_told_to_other_processes():
    stop = pickle.loads(pickle.dumps(optuna.TrialPruned("most did better", 9)))

    assert stop.args == ("most did better", 9)


def test_a_trial_survives_its_record():
    trial = Trial(3, {"a": 1}, 0, None, (), "pruned", "why", (0.5, 0.25), (0.1,), 1.5, 2)

    again = Trial.from_record(json.loads(json.dumps(asdict(trial))))
    assert (again, again.seconds, again.gpus) == (trial, 1.5, 2)
    assert "seconds" not in trial.to_json()
