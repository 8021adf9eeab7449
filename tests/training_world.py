"""Thirteen days of a small payments world with events and features: just enough to train once."""

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from feature_days import Payment, put_day
from small_model import small_fraud
from windsock.days import day_range
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step

FIRST = date(2026, 3, 1)
"""First day. Lookback 3, window 4, gap 2, holdout 2, delay 2: a whole training is possible as of day 13."""
AS_OF = FIRST + timedelta(days=12)
TRAIN, GAP, HOLDOUT = ((FIRST + timedelta(days=a), FIRST + timedelta(days=b)) for a, b in ((3, 6), (7, 8), (9, 10)))

TRAINING: dict[str, Any] = {
    "window_days": 4,
    "holdout_days": 2,
    "metric": "average_precision",
    "categorical": ["TX_DURING_NIGHT"],
    "estimator": {
        "kind": "lightgbm",
        "trials": 3,
        "rounds": 20,
        "params": {"min_child_samples": 10, "num_leaves": 7},
        "search": {"num_leaves": {"kind": "int", "low": 3, "high": 15}},
    },
    "evaluation": {"exclude_known_positives": "CUSTOMER_ID", "alert_entity": "CUSTOMER_ID", "alerts_per_day": 5},
}


def payments(day: date, rows: int = 150) -> list[Payment]:
    """Return a day's payments; large amounts are mostly fraud, and one label in fifty never comes."""
    rng = np.random.default_rng(day.toordinal())
    amounts = rng.exponential(60, rows).round(2)
    fraud = (amounts + rng.normal(0, 20, rows) > 150).astype(int)
    labels = [None if rng.random() < 0.02 else int(f) for f in fraud]
    seconds, customers, terminals = (rng.integers(0, n, rows) for n in (86400, 60, 30))
    return list(zip(*(v.tolist() for v in (seconds, customers, terminals, amounts)), labels, strict=True))


def world_spec(home: Path, **overrides: Any) -> tuple[Settings, ModelSpec]:
    """Write the world's model folder below ``home``."""
    views = [
        {"name": n, "entity": e, "sql": f"{n}.sql", "lookback_days": 3, "ttl_days": 10}
        for n, e in (("customer_spending", "customer"), ("terminal_risk", "terminal"))
    ]
    row = {"TX_AMOUNT": "TX_AMOUNT", "TX_DURING_NIGHT": "(hour(TX_DATETIME) <= 6)::integer"}
    parts: dict[str, Any] = {
        "label": {"column": "TX_FRAUD", "task": "binary", "delay_days": 2},
        "features": {"row": row, "views": views},
        "training": TRAINING,
    }
    return small_fraud(home, **{**parts, **overrides})


def make_world(home: Path, last: date = AS_OF) -> tuple[Settings, ModelSpec]:
    """Put the world's days into the ingest ledger and compute their features."""
    settings, spec = world_spec(home)
    for day in day_range(FIRST, last):
        put_day(settings, spec, day, payments(day))
    for day in day_range(FIRST, last):
        run_step("features", model="fraud", key=str(day), settings=settings)
    return settings, spec


def copy_world(home: Path, target: Path, **overrides: Any) -> tuple[Settings, ModelSpec]:
    """Copy a world for a test that changes it, with another spec if wanted."""
    shutil.copytree(home, target, dirs_exist_ok=True)
    return world_spec(target, **overrides)
