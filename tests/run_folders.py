"""Finished run folders, made in a moment: real LightGBM models of a small known world."""

import tempfile
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa

from windsock.features.frozen import definitions_of
from windsock.runs.run_folder import DEFINITIONS, RunFolder
from windsock.served.formats.lightgbm import lightgbm_files
from windsock.served.matrix import Feature, to_matrix
from windsock.served.metrics import evaluate
from windsock.served.model import load_files
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

FEATURES = ("amount", "risk", "noise")
AS_OF = date(2026, 5, 1)


@lru_cache(maxsize=1)
def _empty_database() -> bytes:
    """MLflow's SQLite schema takes seconds to make: once per process is enough."""
    from windsock.registry.client import mlflow_client

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.from_env({"WINDSOCK_HOME": folder})
        mlflow_client(settings).search_experiments(max_results=1)
        return Path(folder, "mlflow.db").read_bytes()


def with_mlflow(settings: Settings) -> Settings:
    """Put an empty MLflow database where the settings look for one."""
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "mlflow.db").write_bytes(_empty_database())
    return settings


def world(
    seed: int, *, rows: int = 4000, rate: float = 0.05, days: int = 7, last: date = date(2026, 4, 24)
) -> pa.Table:
    """Rows in which fraud follows from amount and risk."""
    rng = np.random.default_rng(seed)
    amount, risk, noise = rng.normal(size=(3, rows))
    logit = 1.6 * amount + 1.2 * risk + rng.normal(size=rows)
    fraud = (logit > np.quantile(logit, 1 - rate)).astype(np.int64)
    start = datetime.combine(last - timedelta(days=days - 1), datetime.min.time())
    seconds = np.sort(rng.integers(0, days * 86400, rows))
    return pa.table(
        {
            "TRANSACTION_ID": pa.array(np.arange(rows) + seed * 1_000_000),
            "event_timestamp": pa.array([start + timedelta(seconds=int(s)) for s in seconds], pa.timestamp("us")),
            "CUSTOMER_ID": pa.array(rng.integers(0, 400, rows)),
            "amount": amount,
            "risk": risk,
            "noise": noise,
            "leak": fraud + 0.1 * noise,
            "TX_FRAUD": fraud,
            "known_positive": pa.array(rng.random(rows) < 0.02),
        }
    )


def make_run(
    settings: Settings,
    spec: ModelSpec,
    run: str,
    *,
    features: tuple[str, ...] = FEATURES,
    holdout: pa.Table | None = None,
    spoiled: float = 0.0,
    seed: int = 1,
    as_of: date = AS_OF,
    rounds: int = 30,
) -> str:
    """Train a small model and write its run folder; ``spoiled`` is the share of training labels dealt out anew."""
    train = world(seed)
    holdout = holdout if holdout is not None else world(100)
    inputs = [Feature(name) for name in features]
    y = train.column("TX_FRAUD").to_numpy().copy()
    rng = np.random.default_rng(seed)
    chosen = np.nonzero(rng.random(len(y)) < spoiled)[0]
    y[chosen] = rng.permutation(y[chosen])
    params = {"objective": "binary", "verbosity": -1, "num_threads": 1, "deterministic": True, "seed": seed}
    data = lightgbm.Dataset(to_matrix(train, inputs), y, feature_name=list(features))
    model = lightgbm_files(lightgbm.train(params, data, rounds), "binary", inputs)
    scores = load_files(model.__getitem__, run).predict(holdout)
    judged = evaluate(spec, holdout, scores)
    store, folder = Store.of(settings), f"runs/{spec.name}/{run}"
    for name, content in model.items():
        store.write_bytes(content, folder, "model", name)
    scored = holdout.select(["TRANSACTION_ID", "TX_FRAUD"]).append_column("score", pa.array(scores))
    written = RunFolder.named(store, spec.name, run)
    tables = {"train.parquet": train, "holdout.parquet": holdout, "holdout_scores.parquet": scored}
    files = {name: written.write_table(table, name) for name, table in tables.items()}
    request: dict[str, Any] = {
        "as_of": as_of.isoformat(),
        "features": list(features),
        "files": files,
        "spec": spec.model_dump(mode="json"),
    }
    metrics = {
        "metric": spec.training.metric,
        "metrics": judged["metrics"],
        "holdout": {"rows": judged["rows"], "positives": judged["positives"]},
        "per_day": judged["per_day"],
        "train": {"rows": train.num_rows},
        "chosen": {"trial": 0, "params": {"num_leaves": 31}, "rounds": rounds},
    }
    written.write_json(definitions_of(spec), DEFINITIONS)
    store.write_json(request, folder, "request.json")
    store.write_json(metrics, folder, "metrics.json")
    days = sorted({str(time.date()) for time in holdout["event_timestamp"].to_pylist()})
    learnt = [str(date.fromisoformat(days[0]) - timedelta(days=n)) for n in range(7, 0, -1)]
    windows = {"train": learnt, "gap": [], "holdout": days}
    lineage = {"commit": "abc", "seed": 7, "pins": {"ingest": {"2026-04-01": "x"}}, "windows": windows}
    store.write_json(lineage, folder, "lineage.json")
    return run
