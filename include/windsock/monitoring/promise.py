"""What the gate promised of a version: its metric on its own holdout, which is itself only known so well."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from windsock.runs.run_folder import HOLDOUT, HOLDOUT_SCORES, RunFolder
from windsock.served import metrics
from windsock.served.resampling import clustered_rows, weighted_metric
from windsock.spec import ModelSpec
from windsock.store import Store

RESAMPLES = 400

Draws = NDArray[np.float64]


@dataclass(frozen=True)
class Promise:
    """A version's value on its holdout."""

    store: Store
    spec: ModelSpec
    run: str
    value: float | None
    """None: its run holds none."""

    @classmethod
    def of(cls, store: Store, spec: ModelSpec, run: str) -> "Promise":
        """Read what a run folder promises by the spec's metric."""
        try:
            content: Mapping[str, Any] = store.read_json("runs", spec.name, run, "metrics.json")["holdout"]
        except (FileNotFoundError, KeyError):
            content = {}
        value = content.get(spec.training.metric)
        return cls(store, spec, run, None if value is None else float(value))

    def scores(self) -> pa.Table | None:
        """Return the held-out rows with label and score, or None if they are gone."""
        folder = RunFolder.named(self.store, self.spec.name, self.run).judged  # a refit learnt from these rows
        try:
            rows = folder.read_table(HOLDOUT_SCORES)
            unit = self.spec.training.evaluation.alert_entity or next(iter(self.spec.entities.values()), None)
            if unit is not None and unit not in rows.column_names:
                rows = rows.append_column(unit, folder.read_table(HOLDOUT)[unit])
        except FileNotFoundError:
            return None
        return rows

    def draws(self) -> Draws:
        """Draw what the holdout might as well have said, shape ``(RESAMPLES,)``; a constant where its rows are gone.

        It is drawn by the clusters of entities that the gate draws, and the same every night.
        """
        rows = self.scores()
        if self.value is None or rows is None:
            return np.full(RESAMPLES, np.nan if self.value is None else self.value)
        seed = int.from_bytes(hashlib.sha256(self.run.encode()).digest()[:8])
        drawn = resampled(self.spec, rows, RESAMPLES, np.random.default_rng(seed))
        return np.where(np.isfinite(drawn), drawn, self.value)


def resampled(spec: ModelSpec, frame: pa.Table, resamples: int, rng: np.random.Generator) -> Draws:
    """Draw the metric of scored, labelled rows over clustered resamples, as the gate draws them."""
    rows, counted = clustered_rows(spec, frame)
    scores = frame.column(metrics.SCORE).to_numpy().astype(np.float64)[counted]
    measure = weighted_metric(spec.training.metric, rows, scores, k=spec.training.evaluation.alerts_per_day)
    return np.concatenate([measure(weights) for weights in rows.weightings(resamples, rng)])
