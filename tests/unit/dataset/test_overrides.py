"""Values that a person changes for one training."""

import pytest

from training_world import TRAINING, world_spec
from windsock.dataset.requests import cause_of
from windsock.dataset.step import with_overrides
from windsock.errors import SpecError

SEARCH = {"num_leaves": {"kind": "int", "low": 7, "high": 31}}
TREES = {"kind": "lightgbm", "trials": 6, "search": SEARCH}
NETWORK = {"kind": "torch", "trials": 1, "epochs": 2}


@pytest.fixture
def spec_of(tmp_path):
    def make(*estimators):
        training = {name: value for name, value in TRAINING.items() if name != "estimator"}
        return world_spec(tmp_path, training={**training, "estimators": list(estimators)})[1]

    return make


def test_what_is_asked_for_counts_for_this_training_and_the_rest_stays(spec_of):
    spec = spec_of(TREES)
    asked = with_overrides(spec, {"window_days": 3, "trials": 2, "reason": "cheaper"})

    assert (asked.training.window_days, asked.training.estimators[0].trials) == (3, 2)
    assert asked.training.holdout_days == spec.training.holdout_days
    assert with_overrides(spec, {"window_days": None}) == spec


def test_trials_count_for_what_is_searched_and_for_nothing_else(spec_of):
    spec = spec_of(TREES, NETWORK)

    assert [e.trials for e in with_overrides(spec, {"trials": 4}).training.estimators] == [4, 1]


def test_trials_where_nothing_is_searched_are_refused_with_the_place_to_change(spec_of):
    with pytest.raises(SpecError, match=r"4 trials were asked for, .* training\.estimators\[\]\.search"):
        with_overrides(spec_of(NETWORK), {"trials": 4})


def test_a_value_outside_its_range_is_refused_with_field_and_value(spec_of):
    with pytest.raises(SpecError, match=r"cannot be run as asked: .*window_days: .* \(given: 0\)"):
        with_overrides(spec_of(TREES), {"window_days": 0})


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({}, {"trigger": "schedule", "reason": "schedule"}),
        ({"by": "ann"}, {"trigger": "on demand", "reason": "on demand"}),
        ({"by": "ann", "reason": "new terminals"}, {"trigger": "on demand", "reason": "new terminals"}),
        (
            {"trigger": "loss", "reasons": ["a", "b"], "dedupe_key": "1@2026-05-01"},
            {"trigger": "loss", "reason": "a; b", "request": "1@2026-05-01"},
        ),
    ],
)
def test_a_training_says_why_it_is_made(options, cause):
    assert cause_of(options) == cause
