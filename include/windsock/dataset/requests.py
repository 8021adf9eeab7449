"""The requests that a training set is handed to its trainers with: one file an estimator.

``runs.contract`` reads them and says what a trainer leaves; ``docs/trainer.md`` is the same for people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from windsock.dataset.folds import time_folds
from windsock.format_numbers import numbered
from windsock.runs.contract import CHECKPOINTS, REQUEST_FORMAT, TRAIN_CSV, candidate_parts
from windsock.runs.run_folder import METRICS, MODEL, REQUEST, TRAIN, RunFolder
from windsock.spec.estimators import Estimator
from windsock.spec.modelling import jsonable
from windsock.spec.module_files import frozen_modules
from windsock.store import to_json

if TYPE_CHECKING:
    import pyarrow as pa

    from windsock.spec import ModelSpec

_TO_TRAINERS = ("model", "task", "label", "key", "features", "categorical", "metric", "seed", "gap_days")


def run_request(spec: ModelSpec, features: Iterable[str], train_days: Iterable[date]) -> dict[str, Any]:
    """Return what a run's ``request.json`` says for its trainers.

    Args:
        spec: The model, with the values of this one training.
        features: Columns of the training set that models may take, in order.
        train_days: Days of the window.

    Raises:
        SpecError: A network of the user's own is absent, no Python, or lacks its class.
    """
    return {
        "model": spec.name,
        "task": spec.label.task,
        "label": spec.label.column,
        "key": spec.events.key,
        "features": list(features),
        "categorical": list(spec.training.categorical),
        "metric": spec.training.metric,
        "seed": spec.training.seed,
        "gap_days": spec.gap_days,
        "train_days": [day.isoformat() for day in train_days],
        "spec": numbered("definition", jsonable(spec)),
        **_modules(spec),
    }


def _modules(spec: ModelSpec) -> dict[str, Any]:
    """Return the users' own networks as they are now; nothing if there are none."""
    modules = frozen_modules(spec)
    return {"modules": modules} if modules else {}


def trainer_request(request: Mapping[str, Any], run: str, estimator: Estimator, train: Mapping[str, Any]) -> Any:
    """Return the content of a candidate's ``request.json``.

    Args:
        request: Content of the run's own ``request.json``.
        run: Name of the run folder.
        estimator: What to train.
        train: ``path``, ``sha256``, ``rows`` and ``format`` of the training rows; ``columns`` (kinds) if it is CSV.
    """
    days = [date.fromisoformat(d) for d in request["train_days"]]
    folds = time_folds(days, folds=int(request["spec"]["training"]["folds"]), gap_days=int(request["gap_days"]))
    module = request.get("modules", {}).get(estimator.name)
    return {
        "format": REQUEST_FORMAT,
        "run": run,
        **{name: request[name] for name in _TO_TRAINERS},
        "time": "event_timestamp",
        "estimator": jsonable(estimator),
        **({"module": module} if module is not None else {}),
        "train": dict(train),
        "days": request["train_days"],
        "folds": [
            {
                "learn": [d.isoformat() for d in fold.learn],
                "judge": [d.isoformat() for d in fold.judge],
                "gap_days": fold.gap_days,
            }
            for fold in folds
        ],
        "output": {"model": MODEL, "metrics": METRICS, "checkpoints": CHECKPOINTS},
        "spec": request["spec"],
    }


def write_requests(folder: RunFolder, request: Mapping[str, Any], train: pa.Table, hashes: Mapping[str, str]) -> None:
    """Write the request of every estimator's candidate, with training rows as CSV for those that ask for it."""
    for raw in request["spec"]["training"]["estimators"]:
        estimator = TypeAdapter[Estimator](Estimator).validate_python(raw)
        rows = {"path": f"../../{TRAIN}", "sha256": hashes[TRAIN], "rows": train.num_rows, "format": "parquet"}
        if getattr(estimator, "data", None) == "csv":
            from windsock.dataset.csv_export import csv_bytes, csv_columns

            data = csv_bytes(train)
            folder.store.write_bytes(data, *folder.parts(*candidate_parts(estimator.name, TRAIN_CSV)))
            rows |= {"path": TRAIN_CSV, "sha256": hashlib.sha256(data).hexdigest(), "format": "csv"}
            rows["columns"] = csv_columns(train)
        content = trainer_request(request, folder.run, estimator, rows)
        folder.store.write_bytes(to_json(content), *folder.parts(*candidate_parts(estimator.name, REQUEST)))
