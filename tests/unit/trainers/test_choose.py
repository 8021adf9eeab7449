"""Several candidates, one model: chosen by the folds, judged on the holdout."""

import json
from pathlib import Path

import pytest

from churn_model import files_below
from training_world import TRAINING, copy_world
from windsock.errors import DataContractError
from windsock.runs.run_folder import RunFolder
from windsock.steps import run_step
from windsock.store import Store
from windsock.trainers.choose_step import best_of

TREES = TRAINING["estimator"]
NETWORK = {"kind": "torch", "epochs": 2, "trials": 1, "params": {"hidden": [8]}}


def told(score, metric="average_precision"):
    return {"selection": None if score is None else {"metric": metric, "score": score, "folds": [score]}}


@pytest.mark.parametrize(
    ("metric", "candidates", "chosen"),
    [
        ("average_precision", {"a": told(0.5), "b": told(0.6)}, "b"),
        ("average_precision", {"a": told(0.6), "b": told(0.6)}, "a"),
        ("log_loss", {"a": told(0.6, "log_loss"), "b": told(0.5, "log_loss")}, "b"),
        ("average_precision", {"a": told(None), "b": told(0.1)}, "b"),
        ("average_precision", {"a": told(0.2), "b": told(0.9, "roc_auc")}, "a"),
        ("average_precision", {"a": told(None), "b": told(None)}, "a"),
        ("average_precision", {"only": told(None)}, "only"),
    ],
)
def test_the_folds_decide_and_the_specs_order_breaks_ties(metric, candidates, chosen):
    assert best_of(metric, candidates)[0] == chosen


def test_a_candidate_that_cannot_be_compared_is_named():
    _, why = best_of("average_precision", {"a": told(0.2), "own": {}})
    assert "own reported no average_precision on folds and could not be compared" in why


@pytest.fixture(scope="module")
def compared(world, tmp_path_factory):
    training = {**{k: v for k, v in TRAINING.items() if k != "estimator"}, "estimators": [TREES, NETWORK]}
    settings, _ = copy_world(world[0], tmp_path_factory.mktemp("compared"), training=training)
    run = run_step("assemble", model="fraud", settings=settings)["run"]
    for name in ("lightgbm", "torch"):
        run_step("fit", model="fraud", settings=settings, options={"run": run, "estimator": name})
    chosen = run_step("choose", model="fraud", settings=settings, options={"run": run})
    return settings, RunFolder.named(Store.of(settings), "fraud", run), chosen


def test_the_better_candidate_becomes_the_runs_model_and_the_other_stays_on_record(compared):
    _, folder, chosen = compared
    metrics = folder.read_json("metrics.json")

    assert chosen["estimator"] == "lightgbm"  # two epochs of eight units learn little
    assert metrics["chosen"]["kind"] == "lightgbm"
    assert set(metrics["candidates"]) == {"lightgbm", "torch"}
    scores = {n: c["selection"]["score"] for n, c in metrics["candidates"].items()}
    assert scores["lightgbm"] > scores["torch"]
    assert folder.read_bytes("model", "model.txt") == folder.read_bytes("candidates", "lightgbm", "model", "model.txt")


def test_checkpoints_are_gone_once_the_model_is_chosen(compared):
    _, folder, _ = compared
    for name in ("lightgbm", "torch"):
        assert not folder.exists("candidates", name, "checkpoints")


def test_a_candidate_that_is_better_after_the_choice_changes_a_finished_run_in_nothing(compared):
    settings, folder, chosen = compared
    place = ("candidates", "torch", "metrics.json")
    content = json.loads(folder.read_bytes(*place))
    content["selection"]["score"] = 1.0
    folder.write_json(content, *place)
    before = files_below(Path(folder.path()))

    again = run_step("choose", model="fraud", settings=settings, options={"run": folder.run})

    assert {**again, "seconds": 0} == {**chosen, "seconds": 0}
    assert files_below(Path(folder.path())) == before


def test_a_choice_that_was_killed_and_ends_with_another_candidate_leaves_its_model_whole(compared):
    settings, folder, _ = compared  # in which the network is the better one by now
    folder.fs.rm(folder.path("metrics.json"))

    again = run_step("choose", model="fraud", settings=settings, options={"run": folder.run})

    assert again["estimator"] == "torch"
    names = sorted(p.rsplit("/", 1)[-1] for p in folder.fs.ls(folder.path("model"), False))
    assert names == ["model.json", "model.safetensors"]


def test_a_missing_candidate_fails_the_step_with_its_name(compared):
    settings, folder, _ = compared
    for name in ("metrics.json", "candidates/torch/metrics.json"):
        folder.fs.rm(folder.path(name))
    with pytest.raises(DataContractError, match="the trainer of torch has ended without finishing"):
        run_step("choose", model="fraud", settings=settings, options={"run": folder.run})
