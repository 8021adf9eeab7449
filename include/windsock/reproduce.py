"""Making a model again from its lineage, and comparing byte by byte.

Everything comes from the run folder and the pinned days; the present model folder is not looked at.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from windsock.dataset.assemble import TrainingSet
from windsock.dataset.requests import code_commit, run_request, trainer_request
from windsock.errors import SpecError
from windsock.runs.contract import libraries
from windsock.runs.run_folder import (
    HOLDOUT,
    LINEAGE,
    METRICS,
    MODEL,
    OLDER,
    REFIT_OF,
    REQUEST,
    TRAIN,
    RunFolder,
    parquet_bytes,
)
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.estimators import CustomSpec
from windsock.store import Store
from windsock.trainers.again import assembled_again, spec_then, windows_then
from windsock.trainers.learn import chosen_of, learn, search_of


@dataclass(frozen=True)
class Reproduction:
    """What came out when a training was done again; every value is a pair, (then, now)."""

    files: Mapping[str, tuple[str, str]]
    """SHA-256 of the training set and of each file of the model folder."""
    differing: Mapping[str, tuple[str, str]]
    """Libraries and code that are not what they were."""

    @property
    def equal(self) -> bool:
        """Whether training set and model folder are the same, byte for byte."""
        return all(then == now for then, now in self.files.values())


def reproduce(settings: Settings, model: str, run: str) -> Reproduction:
    """Assemble and train a run again, without changing anything that is stored.

    Raises:
        SpecError: The run folder is incomplete, or a pinned day is gone from the store.
    """
    folder = RunFolder.named(Store.of(settings), model, run)
    lineage, metrics = folder.read_json(LINEAGE), folder.read_json(METRICS)
    windows = windows_then(lineage)
    with spec_then(lineage) as spec:
        made = assembled_again(settings, spec, windows, lineage["pins"])
        request = {**run_request(spec, made.features, windows.train, windows.older), "files": lineage["files"]}
        trained = _trained_again(spec, request, made, run, metrics["chosen"], search_again=REFIT_OF not in lineage)
    tables = {TRAIN: made.train, HOLDOUT: made.holdout, OLDER: made.older}
    now = {name: _sha256(parquet_bytes(rows)) for name, rows in tables.items() if rows is not None}
    then = dict(lineage["files"])
    for name, data in trained.items():
        then[f"{MODEL}/{name}"] = _sha256(folder.read_bytes(MODEL, name))
        now[f"{MODEL}/{name}"] = _sha256(data)
    code_then = {**metrics["trainer"], "commit": str(lineage["commit"])}
    code_now = {**dict.fromkeys(code_then, "absent"), **libraries(), "commit": str(code_commit())}
    return Reproduction(
        {name: (then[name], now[name]) for name in then},
        {name: (was, code_now[name]) for name, was in code_then.items() if was != code_now[name]},
    )


def _trained_again(
    spec: ModelSpec,
    request: Mapping[str, Any],
    made: TrainingSet,
    run: str,
    chosen: Mapping[str, Any],
    *,
    search_again: bool,
) -> Mapping[str, bytes]:
    """Return the model folder as it comes out now."""
    name = chosen.get("estimator") or spec.training.estimators[0].name
    estimator = spec.training.estimator(name)
    if isinstance(estimator, CustomSpec):
        raise SpecError(
            f"{spec.name}: run {run} was trained by the user's own trainer {name!r}, which Windsock cannot make again. "
            f"Start that trainer on a copy of the run's candidates/{name}/{REQUEST}, and compare the model folders."
        )
    rows = {"path": TRAIN, "sha256": "", "rows": made.train.num_rows, "format": "parquet"}
    search = search_of(trainer_request(request, run, estimator, rows), made.learnable)
    budget = estimator.budget
    if search_again and budget.parallel == 1 and budget.minutes is None and budget.gpu_hours is None:
        return learn(search).files
    # A refit searches nothing; the order in which parallel trials end, or a budget in time, is not repeatable.
    return learn(search, chosen_of({"chosen": chosen})).files


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
