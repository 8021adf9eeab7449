"""A small world for the monitor: eight weeks of payments, a champion, its reference and its predictions.

Amounts double from ``DRIFT`` on. Features are the real ones; predictions are made up from
the labels, so that a test says how good they are.
"""

import io
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from small_model import features_of_views, small_fraud
from windsock import tables
from windsock.days import day_range, end_of, last_instant
from windsock.features.feature_tables import settled_features
from windsock.features.frame import event_frame, feature_names
from windsock.features.frozen import definitions_of
from windsock.features.step import run as compute_features
from windsock.featurestore.retrieval import point_in_time
from windsock.ingest.sources.delivery import fetch
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import Promotion, append
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import StepContext
from windsock.store import Store
from windsock.version_index import VersionInfo, record_version

FIRST = date(2026, 3, 2)
WARM = date(2026, 4, 8)
HOLDOUT = (WARM, date(2026, 4, 14))
IN_FORCE = date(2026, 4, 22)
DRIFT = date(2026, 4, 30)
LAST = date(2026, 5, 4)
LOOKBACK = 10
"""Days that a feature reaches back: fewer than the real views, so that fewer days have to be made."""


def make_world(folder: Path, **overrides: Any) -> tuple[Settings, ModelSpec]:
    """Ingest the days that count and compute features from the first warm day on."""
    source = {
        "kind": "simulator",
        "seed": 3,
        "customers": 300,
        "terminals": 600,
        "drift": [{"kind": "amounts", "from_day": DRIFT.isoformat(), "size": 2.0}],
    }
    given = {"first_day": FIRST.isoformat(), "source": source, "features": features_of_views(lookback_days=LOOKBACK)}
    settings, spec = small_fraud(folder, **given, **overrides)
    for day in day_range(WARM - timedelta(days=LOOKBACK), LAST):
        put_events(settings, spec, day)
    for day in day_range(WARM, LAST):
        compute_features(StepContext(settings, spec, key=day.isoformat()))
    return settings, spec


def put_events(settings: Settings, spec: ModelSpec, day: date) -> None:
    """Publish a simulated day as ``ingest`` would."""
    rows = fetch(spec, day).rows
    assert rows is not None
    n = rows.num_rows
    events = rows.select(list(spec.events.columns)).append_column(
        "known_at", pa.array([last_instant(day)] * n, pa.timestamp("us"))
    )
    times = rows["TX_DATETIME"].cast(pa.timestamp("us"))
    labels = pa.table(
        {
            "TRANSACTION_ID": rows["TRANSACTION_ID"],
            "TX_FRAUD": rows["TX_FRAUD"].cast(pa.int64()),
            "event_time": times,
            "known_at": pa.array([t + timedelta(days=7) for t in times.to_pylist()], pa.timestamp("us")),
        }
    )
    outputs = {
        name: tables.write_day(Store.of(settings), spec.name, name, day, t)
        for name, t in (("events", events), ("labels", labels))
    }
    Ledger.of(settings, spec.name, "ingest").publish(DayRecord(day.isoformat(), "published", outputs))


def crown(
    settings: Settings,
    spec: ModelSpec,
    *,
    reference: pa.Table | None,
    average_precision: float = 0.6,
    version: str = "1",
    in_force_from: date = IN_FORCE,
) -> Promotion:
    """Make a version champion, with a run folder that holds what the monitor reads."""
    store, run = Store.of(settings), f"run-{version}"
    store.write_json({"holdout": {"average_precision": average_precision}}, "runs", spec.name, run, "metrics.json")
    if reference is not None:
        buffer = io.BytesIO()
        pq.write_table(reference, buffer)
        store.write_bytes(buffer.getvalue(), "runs", spec.name, run, "reference.parquet")
    from windsock.promotions import current

    as_of = in_force_from - timedelta(days=1)
    record_version(settings, VersionInfo(spec.name, version, run, as_of, definitions=definitions_of(spec)))
    entry = Promotion(0, "promote", version, run, None, in_force_from, as_of, "test")
    return append(settings, spec, entry, after=current(settings, spec))


def features_of(settings: Settings, spec: ModelSpec, first: date, last: date) -> pa.Table:
    """Return the rows of some days with features and a score, as in ``reference.parquet``."""
    store = Store.of(settings)
    frame = event_frame(store, spec, Ledger.of(settings, spec.name, "ingest").between(first, last).values())
    frame = point_in_time(store, spec, frame, settled_features(settings, spec, first, last))
    kept = frame.select(["event_timestamp", *feature_names(spec)])
    return kept.append_column("score", pa.array(score(frame))).append_column("part", pa.array(["holdout"] * len(frame)))


def score(frame: pa.Table) -> np.ndarray:
    """Return a score that follows the amount, as a model's would."""
    return 1 / (1 + np.exp(-(frame["TX_AMOUNT"].to_numpy() - 200) / 30))


def put_predictions(
    settings: Settings,
    spec: ModelSpec,
    days: Iterable[date],
    *,
    version: str = "1",
    skill: float | None = None,
    status: str = "published",
) -> None:
    """Publish predictions: by amount, or (with ``skill`` from 0 to 1) by label plus noise."""
    store = Store.of(settings)
    ingest, ledger = (Ledger.of(settings, spec.name, stage) for stage in ("ingest", "score"))
    for day in days:
        record = ingest.get(day)
        assert record is not None
        events = tables.read(store, [record], "events")
        assert events is not None
        values = score(events)
        if skill is not None:
            labels = tables.read(store, [record], "labels")
            assert labels is not None
            noise = np.random.default_rng(day.toordinal()).random(events.num_rows)
            values = skill * labels["TX_FRAUD"].to_numpy() + (1 - skill) * noise
        rows = pa.table(
            {
                "TRANSACTION_ID": events["TRANSACTION_ID"],
                "event_time": events["TX_DATETIME"],
                "score": pa.array(values, pa.float64()),
                "model_version": pa.array([version] * events.num_rows, pa.string()),
            }
        )
        output = tables.write_day(store, spec.name, "predictions", day, rows, previous=ledger.get(day))
        ledger.publish(DayRecord(day.isoformat(), status, {"predictions": output}))  # type: ignore[arg-type]


__all__ = [
    "DRIFT", "FIRST", "HOLDOUT", "IN_FORCE", "LAST", "WARM",
    "crown", "end_of", "features_of", "make_world", "put_events", "put_predictions", "score",
]  # fmt: skip
