"""A version that says something else than at its training, with libraries that it has not met, scores nothing."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from feature_days import put_day
from training_world import AS_OF, payments
from windsock.errors import DataContractError
from windsock.ledger import Ledger
from windsock.runs import contract
from windsock.runs.run_folder import HOLDOUT_SCORES, RunFolder
from windsock.scoring import frozen_rows
from windsock.served.model import MODEL_CARD, Model
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step
from windsock.store import Store
from windsock.version_index import record_version, version_info

DAY, NEXT = AS_OF, AS_OF + timedelta(days=1)


def score(settings: Settings, day=DAY, **options):
    return run_step("score", model="fraud", key=str(day), settings=settings, options=options)


def notes(settings: Settings) -> list[dict]:
    return [json.loads(path.read_text()) for path in Path(settings.store, "fraud", "checked").glob("version-*.json")]


def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the rows of each comparison."""
    sizes: list[int] = []
    really = frozen_rows.largest_difference

    def counted(recorded, now):
        sizes.append(len(now))
        return really(recorded, now)

    monkeypatch.setattr(frozen_rows, "largest_difference", counted)
    return sizes


def upgrade(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setattr(contract, "version", lambda name: number)


def move_scores(settings: Settings, spec: ModelSpec, version: str, by: float) -> None:
    """Let the first score that training recorded be another."""
    folder = RunFolder.named(Store.of(settings), "fraud", version_info(settings, spec, version).run)
    recorded = folder.read_table(HOLDOUT_SCORES)
    scores = recorded["score"].to_pylist()
    scores[0] += by
    place = recorded.column_names.index("score")
    folder.write_table(recorded.set_column(place, "score", pa.array(scores)), HOLDOUT_SCORES)


def test_a_version_is_checked_once_with_each_set_of_libraries(scored_world, monkeypatch):
    settings, spec = scored_world
    sizes = compared(monkeypatch)
    score(settings)
    put_day(settings, spec, NEXT, payments(NEXT))
    run_step("features", model="fraud", key=str(NEXT), settings=settings)
    score(settings, NEXT)
    score(settings, rescore=True)
    assert len(sizes) == 1
    assert 0 < sizes[0] <= 1000

    upgrade(monkeypatch, "98.0")
    score(settings, rescore=True)
    score(settings, rescore=True)
    score(settings, rescore=True, model_version="2")
    assert len(sizes) == 3
    assert sorted(note["version"] for note in notes(settings)) == ["1", "1", "2"]
    assert [note["libraries"]["lightgbm"] for note in notes(settings)].count("98.0") == 2


def test_other_scores_than_at_its_training_are_refused_with_the_libraries_that_changed(scored_world, monkeypatch):
    settings, spec = scored_world
    then = {f"library.{name}": number for name, number in contract.libraries().items()}
    record_version(settings, replace(version_info(settings, spec, "1"), tags=then))
    score(settings)
    before = Ledger.of(settings, "fraud", "score").get(DAY)
    was = then["library.lightgbm"]
    upgrade(monkeypatch, "98.0")
    move_scores(settings, spec, "1", by=1e-6)
    put_day(settings, spec, NEXT, payments(NEXT))
    run_step("features", model="fraud", key=str(NEXT), settings=settings)

    for _ in range(2):  # a refusal is not noted as a check
        with pytest.raises(DataContractError, match=rf"version 1 scores .*1e-09 is allowed.*lightgbm {was} -> 98\.0"):
            score(settings, NEXT)
    with pytest.raises(DataContractError, match="it scores nothing"):
        score(settings, rescore=True)

    ledger = Ledger.of(settings, "fraud", "score")
    assert ledger.get(NEXT) is None
    assert ledger.get(DAY) == before
    assert len(notes(settings)) == 1
    assert score(settings, model_version="2", rescore=True)["model_version"] == "2"


def test_a_difference_within_the_format_s_tolerance_is_none(scored_world):
    settings, spec = scored_world
    move_scores(settings, spec, "1", by=1e-11)
    score(settings)
    assert notes(settings)[0]["largest_difference"] == pytest.approx(1e-11, rel=1e-3)


def test_a_version_whose_frozen_rows_are_gone_goes_on_and_it_is_told(scored_world, caplog):
    settings, spec = scored_world
    folder = RunFolder.named(Store.of(settings), "fraud", version_info(settings, spec, "1").run)
    folder.fs.rm(folder.path(HOLDOUT_SCORES))
    assert score(settings)["status"] == "published"
    assert "version 1 has no frozen rows left" in caplog.text
    assert notes(settings) == []


@pytest.mark.parametrize(
    ("file", "tolerance"),
    [("model.txt", 1e-9), (MODEL_CARD, 1e-9), ("model.safetensors", 1e-6), ("model.pt2", 1e-6), ("model.onnx", 1e-6)],
)
def test_trees_and_linear_models_are_held_to_the_last_digits_and_networks_to_those_of_32_bits(file, tolerance):
    made = Model({file: b"", MODEL_CARD: b""}, "binary", (), None, lambda x: x)
    assert made.tolerance == tolerance
