"""Scored days one by one: how far their labels have come, what they say, and what to expect where there are none."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windsock.dataset.label_join import labelled
from windsock.days import spans
from windsock.monitoring.drift import rounded
from windsock.monitoring.promise import Promise, resampled
from windsock.monitoring.scored import VERSION, Past
from windsock.served import metrics
from windsock.served.metrics import KNOWN_POSITIVE, SCORE, TIME
from windsock.served.resampling import ClusteredRows, weighted_metric

_RESAMPLES_OF_A_DAY = 100
_FINAL_SHARE = 0.9
"""Of the labels that usually are there: a matured day with fewer is not final."""
_ESTIMATED = ("average_precision", "roc_auc", "log_loss")


def days_as_labels_mature(past: Past, usual_share: float | None, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Describe every scored day: ``absent``, ``partial`` or ``final``, and its value with a 90 % interval if final."""
    known, found = labelled(past.scored), []
    for day in np.unique(_days(past.scored)).tolist():
        rows, of_day = (r.filter(pa.array(_days(r) == np.datetime64(day))) for r in (past.scored, known))
        count = of_day.num_rows
        enough = count >= _FINAL_SHARE * (usual_share or 1) * rows.num_rows
        state = "absent" if count == 0 else "final" if day <= past.matured and enough else "partial"
        told: dict[str, Any] = {
            "ds": str(day),
            "versions": sorted(pc.unique(rows[VERSION]).to_pylist()),
            "state": state,
            "rows": rows.num_rows,
            "labelled": count,
            "value": None,
            "interval": None,
        }
        if state == "final" and (values := _values(past, of_day, rng)) is not None:
            told |= values
        found.append(told)
    return found


def _values(past: Past, rows: pa.Table, rng: np.random.Generator) -> Mapping[str, Any] | None:
    name = past.spec.training.metric
    value = metrics.evaluate(past.spec, rows, names=[name])["metrics"][name]
    if value is None:
        return None
    drawn = resampled(past.spec, rows, _RESAMPLES_OF_A_DAY, rng)
    ends = np.quantile(drawn[np.isfinite(drawn)], [0.05, 0.95]) if np.isfinite(drawn).any() else (None, None)
    return {"value": rounded(value), "interval": [rounded(None if e is None else float(e)) for e in ends]}


def estimate(past: Past, version: str, promise: Promise) -> dict[str, Any] | None:
    """Estimate the metric of the champion's days whose labels are not in, if its scores still mean the same.

    Its scores are turned into probabilities by its holdout. That holds as long as the same score means the same risk,
    so it sees inputs that have become harder, and is blind to a changed relation between them and the label.
    """
    spec, metric = past.spec, past.spec.training.metric
    own = past.scored.filter(pc.equal(past.scored[VERSION], version))
    rows = own.filter(pa.array(_days(own) > np.datetime64(past.matured)))
    if KNOWN_POSITIVE in rows.column_names:
        rows = rows.filter(pc.invert(rows[KNOWN_POSITIVE]))
    if spec.label.task != "binary" or metric not in _ESTIMATED or rows.num_rows == 0:
        return None
    held_out = promise.scores()
    if held_out is None or promise.value is None:
        return None
    from sklearn.isotonic import IsotonicRegression

    held_out = held_out.filter(pa.array(metrics.counted_rows(spec, held_out)))
    means = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(
        held_out[SCORE].to_numpy(), held_out[spec.label.column].to_numpy().astype(np.float64)
    )
    scores = rows[SCORE].to_numpy()
    risk = means.predict(scores)
    # Each row stands for what it may turn out to be: a positive by its risk, a negative by the rest.
    n = len(scores)
    both = ClusteredRows(np.r_[np.ones(n), np.zeros(n)], *(np.zeros(2 * n, dtype=np.intp),) * 3, "")
    value = weighted_metric(metric, both, np.r_[scores, scores])(np.r_[risk, 1 - risk][None, :])[0]
    return {
        "metric": metric,
        "value": rounded(float(value)) if np.isfinite(value) else None,
        "rows": n,
        "days": spans(np.unique(_days(rows)).tolist()),
        "expected_positives": rounded(float(risk.sum())),
        "by": "calibrated scores; blind to a changed relation between inputs and label",
    }


def _days(rows: pa.Table) -> Any:
    return np.asarray(rows[TIME].cast(pa.timestamp("us")), "datetime64[D]")
