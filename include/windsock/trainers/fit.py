"""One estimator from a training set to a judged model, in one call.

For notebooks and for making a model again; the pipeline does the same in two steps,
``fit`` (``learn``, perhaps in a pod) and ``choose`` (``evaluation``). Equal inputs and seed
give an equal model folder, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windsock.dataset.requests import run_request, trainer_request
from windsock.runs.run_folder import TRAIN
from windsock.served.model import Model, load
from windsock.trainers.evaluation import Evaluation, candidate_summary, evaluate_model
from windsock.trainers.learn import Learnt, TrainingTask, learn, spec_of

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Fitted(Evaluation):
    """A trained model and its evaluation; ``metrics`` is what ``metrics.json`` of a run with this candidate says."""

    model: Model


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
    learnt = learn(TrainingTask.of(trainer_request(full, "fit", chosen, rows), train_set))
    model = model_of(learnt)
    found = evaluate_model(spec, list(request["features"]), model, train_set, holdout)
    metrics = {**found.metrics, **candidate_summary(learnt.report)}
    return Fitted(metrics, found.holdout_scores, found.reference, model)


def model_of(learnt: Learnt) -> Model:
    """Load a model from the files that a training gave, without writing them to a disk."""
    from fsspec.implementations.memory import MemoryFileSystem

    fs, folder = MemoryFileSystem(), f"/windsock-{id(learnt)}"
    try:
        for name, data in learnt.files.items():
            fs.pipe_file(f"{folder}/{name}", data)
        return load(f"memory:/{folder}")
    finally:
        fs.rm(folder, recursive=True)
