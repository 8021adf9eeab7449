"""A small made-up training set with its request: something to try a trainer on, without any model's data.

It holds what real ones hold: numbers with gaps, flags, categories as numbers and as
texts (also an empty one), few positives, and folds in order of time.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from windsock.dataset.requests import run_request, write_requests
from windsock.runs.contract import request_url
from windsock.runs.run_folder import TRAIN, RunFolder
from windsock.spec import ModelSpec
from windsock.store import Store

FIRST, DAYS, GAP = date(2026, 3, 1), 8, 1
FEATURES = ("amount", "visits", "abroad", "night", "country")
_COUNTRIES = ("AT", "CH", "", "\\N")


def practice_rows(task: str, rows: int, seed: int = 7) -> pa.Table:
    """Return made-up rows, spread evenly over the days, whose label follows from amount, night and country, with noise.

    Of a ``binary`` task one row in ten is positive.
    """
    rng = np.random.default_rng(seed)
    amount, visits = rng.exponential(60, rows), rng.integers(0, 9, rows)
    night, country = rng.integers(0, 2, rows), rng.integers(0, len(_COUNTRIES), rows)
    signal = amount / 60 + 0.8 * night + 0.5 * (country == 1) + rng.normal(0, 0.5, rows)
    label = (signal > np.quantile(signal, 0.9)).astype(np.int64) if task == "binary" else signal
    seconds = np.linspace(0, DAYS * 86400 - 1, rows).astype(int).tolist()
    start = datetime.combine(FIRST, datetime.min.time())
    return pa.table(
        {
            "id": np.arange(rows),
            "event_timestamp": pa.array([start + timedelta(seconds=s) for s in seconds], pa.timestamp("us")),
            "customer": rng.integers(0, max(2, rows // 8), rows),
            "amount": pa.array(amount, mask=rng.random(rows) < 0.05),
            "visits": visits,
            "abroad": pa.array(rng.random(rows) < 0.2),
            "night": night,
            "country": pa.array([_COUNTRIES[n] for n in country], mask=rng.random(rows) < 0.05),
            "label": label,
        }
    )


def practice_spec(task: str, estimator: Mapping[str, Any]) -> ModelSpec:
    """Return a whole model spec around an estimator."""
    metric = "average_precision" if task == "binary" else "mean_absolute_error"
    kinds = {"amount": "double", "visits": "int64", "abroad": "bool", "night": "int64", "country": "string"}
    return ModelSpec.model_validate(
        {
            "name": "practice",
            "owner": "nobody",
            "description": "Made-up rows to try a trainer on.",
            "first_day": FIRST,
            "source": {"kind": "simulator"},
            "events": {
                "time": "at",
                "key": "id",
                "columns": {"id": "int64", "at": "timestamp", "customer": "int64", **kinds},
            },
            "entities": {"customer": "customer"},
            "label": {"column": "label", "task": task, "delay_days": GAP},
            "features": {"row": {name: name for name in FEATURES}},
            "training": {
                "window_days": DAYS,
                "holdout_days": 1,
                "metric": metric,
                "categorical": ["night", "country"],
                "estimators": [dict(estimator)],
                "evaluation": {"exclude_known_positives": "customer"} if task == "binary" else {},
            },
            "gate": {"floors": {metric: 0}},
        }
    )


def practice_run(
    store: str, estimator: Mapping[str, Any], *, task: str = "binary", rows: int = 2000, run: str = "practice"
) -> str:
    """Write ``runs/practice/<run>/`` in a store as the step ``assemble`` does; return where its request lies."""
    spec = practice_spec(task, estimator)
    folder, table = RunFolder.named(Store(store), spec.name, run), practice_rows(task, rows)
    request = run_request(spec, FEATURES, (FIRST + timedelta(days=n) for n in range(DAYS)))
    write_requests(spec, folder, request, table, folder.write_table(table, TRAIN))
    return request_url(folder, spec.training.estimators[0].name)
