"""One estimator from a training set to a judged model, in one call.

For notebooks and for making a model again; the pipeline does the same in two steps,
``fit`` (``learn``, perhaps in a pod) and ``choose`` (``judging``). Equal inputs and seed
give an equal model folder, byte for byte.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windsock.dataset.requests import run_request, trainer_request
from windsock.runs.run_folder import TRAIN
from windsock.served.matrix import Feature
from windsock.served.model import FORMATS, MODEL_CARD, Model
from windsock.trainers.judging import judge_model
from windsock.trainers.learn import Learnt, Task, learn, spec_of

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Fitted:
    """What a training gives."""

    model: Model
    metrics: dict[str, Any]
    """What ``metrics.json`` of a run with this one candidate says of model and holdout."""
    holdout_scores: pa.Table
    """Key, time, label, ``known_positive``, alert entity and score of every held-out row."""
    reference: pa.Table
    """Sample of rows with features, ``score`` and ``part`` (train or holdout), for monitoring."""


def fit(request: Mapping[str, Any], train_set: pa.Table, holdout: pa.Table, *, estimator: str | None = None) -> Fitted:
    """Search, train on the whole window, judge on the holdout.

    Args:
        request: Content of a run's ``request.json``.
        train_set: Rows of the window: key, ``event_timestamp``, features, label.
        holdout: Held-out rows with the same columns.
        estimator: Name of one of the spec's estimators; default: the only one.

    Raises:
        DataContractError: The training set is empty or has one class only.
        SpecError: A parameter or a feature type does not fit.
    """
    spec = spec_of(request)
    chosen = spec.training.estimator(estimator)
    rows = {"path": TRAIN, "sha256": "", "rows": train_set.num_rows, "format": "parquet"}
    full = {**run_request(spec, request["features"], ()), **request}
    learnt = learn(Task.of(trainer_request(full, "fit", chosen, rows), train_set))
    model = model_of(learnt)
    judged = judge_model(spec, list(request["features"]), model, train_set, holdout)
    metrics = {**judged.metrics, **told(learnt.report)}
    return Fitted(model, metrics, judged.holdout_scores, judged.reference)


def told(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's ``metrics.json`` repeats of its candidate's own report."""
    return {
        "chosen": {name: candidate.get(name) for name in ("trial", "params", "rounds", "note")},
        "trials": candidate.get("trials") or [],
        "folds": candidate.get("folds") or [],
        "importance": candidate.get("importance"),
    }


def model_of(learnt: Learnt) -> Model:
    """Load a model from the files that a training gave, without writing them."""
    from fsspec.implementations.memory import MemoryFileSystem

    fs = MemoryFileSystem()
    root = f"/windsock-{id(learnt)}"
    try:
        for name, data in learnt.files.items():
            fs.pipe_file(f"{root}/{name}", data)
        card = json.loads(learnt.files[MODEL_CARD])
        inputs = tuple(Feature.from_json(f) for f in card["features"])
        model: Model = importlib.import_module(FORMATS[card["format"]]).read(
            "the trained model", fs, root, card, card["task"], inputs
        )
        return model
    finally:
        fs.rm(root, recursive=True)
