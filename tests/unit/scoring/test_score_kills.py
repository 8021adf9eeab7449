"""SIGKILL while a day is scored anew: readers see the old predictions or the new ones, and a rerun mends the rest."""

import random

import pytest

from examples import number_of
from kill import DieAt, Steps, snapshot
from training_world import AS_OF
from windsock.steps import run_step

pytestmark = pytest.mark.kill
KEY = str(AS_OF)
PLACES = [
    DieAt("windsock.tables:write_day"),
    *(DieAt("windsock.store:Store.write_bytes", call=n, after=True) for n in (1, 2, 3)),  # rows, history, record
    DieAt("windsock.store:Store.write_bytes", call=3),
]


def test_a_kill_at_any_point_leaves_old_or_new_predictions_and_a_rerun_the_new_ones(scored_world):
    settings, _ = scored_world
    steps = Steps(settings, "fraud")

    def state():
        return snapshot(settings, "fraud", ["score"])

    def score(version):
        run_step("score", model="fraud", key=KEY, settings=settings, options={"model_version": version})
        return state()

    states = {version: score(version) for version in ("2", "1")}
    usual = steps.run("score", KEY, options={"model_version": "2"}).seconds
    rng = random.Random(0)
    killed, version = 0, "1"
    for trial in [*PLACES, *(rng.uniform(0.02, 1.0) * usual for _ in range(number_of(10)))]:
        before, after = states["2" if version == "1" else "1"], states[version]
        assert state() == before
        how = {"die_at": trial} if isinstance(trial, DieAt) else {"kill_after": trial}
        killed += steps.run("score", KEY, options={"model_version": version}, **how).killed
        assert state() in (before, after)
        assert score(version) == after
        version = "2" if version == "1" else "1"
    assert killed >= len(PLACES)
