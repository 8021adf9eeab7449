"""What a trainer is told, and what it must leave."""

import json

import pytest

from training_world import copy_world
from windsock.errors import DataContractError, SpecError
from windsock.runs.contract import (
    REQUEST_FORMAT,
    TrainerRequest,
    read_candidate,
    request_url,
    resolved,
)
from windsock.runs.run_folder import RunFolder
from windsock.steps import run_step
from windsock.store import Store


@pytest.fixture
def candidate(world, tmp_path):
    settings, _ = copy_world(world[0], tmp_path)
    run = run_step("assemble", model="fraud", settings=settings)["run"]
    folder = RunFolder.named(Store.of(settings), "fraud", run)
    return settings, folder, request_url(folder, "lightgbm")


def test_the_request_says_everything_and_nothing_of_the_holdout(candidate):
    _, folder, url = candidate
    request = TrainerRequest.read(url)

    assert request.raw["format"] == REQUEST_FORMAT
    assert request.raw["days"] == ["2026-03-04", "2026-03-05", "2026-03-06", "2026-03-07"]
    assert [f["gap_days"] for f in request.raw["folds"]] == [1, 1]
    assert request.train_table().num_rows == request.raw["train"]["rows"]
    without_spec = {name: part for name, part in request.raw.items() if name != "spec"}
    assert "holdout" not in json.dumps(without_spec)
    assert folder.exists("holdout.parquet")


@pytest.mark.parametrize(
    ("folder", "path", "meant"),
    [
        ("/store/runs/m/r/candidates/x", "../../train.parquet", "/store/runs/m/r/train.parquet"),
        ("s3://bucket/runs/m/r/candidates/x", "../../train.parquet", "s3://bucket/runs/m/r/train.parquet"),
        ("memory://runs/candidates/x", "train.csv.gz", "memory://runs/candidates/x/train.csv.gz"),
    ],
)
def test_paths_in_a_request_are_seen_from_the_request(folder, path, meant):
    assert resolved(folder, path) == meant


@pytest.mark.parametrize("place", ["", "request.json", "/somewhere/else.json"])
def test_a_place_that_can_be_no_request_is_refused_with_an_example(place, monkeypatch):
    monkeypatch.setenv("WINDSOCK_REQUEST", place)
    with pytest.raises(SpecError, match=r"such as /store/runs/fraud/<run>/candidates/lightgbm/request\.json"):
        TrainerRequest.read()


def test_a_request_that_is_not_there_points_to_the_step_and_the_mount(tmp_path):
    with pytest.raises(SpecError, match="'assemble' first, and check that this store is mounted"):
        TrainerRequest.read(f"{tmp_path}/candidates/x/request.json")


def test_a_request_of_another_format_is_refused(candidate):
    _, folder, url = candidate
    folder.write_json({"format": "windsock-trainer/2"}, "candidates", "lightgbm", "request.json")
    with pytest.raises(SpecError, match=r"of format 'windsock-trainer/2', but this version of Windsock reads"):
        TrainerRequest.read(url)


def test_training_rows_that_were_changed_are_refused(candidate):
    _, folder, url = candidate
    folder.write_bytes(b"other", "train.parquet")
    with pytest.raises(SpecError, match="is not the file that its request names"):
        TrainerRequest.read(url).train_table()


def test_a_candidate_is_complete_only_with_the_metrics_of_this_very_request(candidate):
    _, folder, url = candidate
    request = TrainerRequest.read(url)
    assert request.finished() is None
    with pytest.raises(DataContractError, match=r"metrics\.json is not there: the trainer of lightgbm has ended"):
        read_candidate(folder, "lightgbm")

    request.write_candidate({"model.txt": b"x"}, {"selection": None})
    assert read_candidate(folder, "lightgbm")["selection"] is None
    assert request.finished() is not None

    content = json.loads(folder.read_bytes("candidates", "lightgbm", "request.json"))
    folder.write_json({**content, "seed": 8}, "candidates", "lightgbm", "request.json")
    assert TrainerRequest.read(url).finished() is None
    with pytest.raises(DataContractError, match="was made from another request"):
        read_candidate(folder, "lightgbm")


def test_a_model_that_was_damaged_after_its_trainer_finished_is_no_candidate_and_is_trained_again(candidate):
    _, folder, url = candidate
    request, model = TrainerRequest.read(url), ("candidates", "lightgbm", "model")
    request.write_candidate({"model.txt": b"x", "model.json": b"{}"}, {})
    whole = read_candidate(folder, "lightgbm")
    for name, data in (("model.txt", b"y"), ("model.json", b""), ("more.txt", b"")):
        folder.write_bytes(data, *model, name)
        with pytest.raises(DataContractError, match=r"not the ones that the trainer left.*Run the step 'fit' again"):
            read_candidate(folder, "lightgbm")
        assert request.finished() is None
        folder.remove(*model, "more.txt")
        request.write_candidate({"model.txt": b"x", "model.json": b"{}"}, {})
        assert read_candidate(folder, "lightgbm") == whole


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"{", "is no JSON"), (b"[]", "is no JSON object"), (b"{}", "must be a JSON object whose format is")],
)
def test_metrics_that_are_none_are_refused(candidate, content, said):
    _, folder, _ = candidate
    folder.write_bytes(content, "candidates", "lightgbm", "metrics.json")
    with pytest.raises(DataContractError, match=said):
        read_candidate(folder, "lightgbm")
