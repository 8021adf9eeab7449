"""From a request to a judged model, in one call and without a store: what ``fit`` and ``choose`` do in two steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from windsock.dataset.requests import run_request, trainer_request
from windsock.served.model import Model, load_files
from windsock.trainers.choose_step import Evaluation, candidate_summary, evaluate_model
from windsock.trainers.learn import learn, search_of, spec_of


@dataclass(frozen=True)
class Fitted(Evaluation):
    """A trained model and its evaluation; ``metrics`` is what ``metrics.json`` of a run with this candidate says."""

    model: Model


def fit(request: Mapping[str, Any], train_set: pa.Table, holdout: pa.Table) -> Fitted:
    """Search, train on the whole window, judge on the holdout; for specs with one estimator."""
    spec = spec_of(request)
    rows = {"path": "train.parquet", "sha256": "", "rows": train_set.num_rows, "format": "parquet"}
    full = {**run_request(spec, request["features"], ()), **request}
    learnt = learn(search_of(trainer_request(full, "fit", spec.training.estimator(None), rows), train_set))
    model = load_files(learnt.files.__getitem__, "fitted")
    found = evaluate_model(spec, list(request["features"]), model, train_set, holdout)
    metrics = {**found.metrics, **candidate_summary(learnt.report)}
    return Fitted(metrics, found.holdout_scores, found.reference, model)
