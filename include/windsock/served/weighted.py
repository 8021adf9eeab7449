"""Every metric as a function of row weights, for many weightings at once.

The bootstrap asks for one metric under hundreds of weightings of the same rows. Sorting
depends on the scores alone, so it is done once per model; each weighting then costs a
gather and a cumulative sum. With all weights one, every value equals
``windsock.served.metrics`` (tested).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windsock.served.resampling import ClusteredRows

Vector = NDArray[np.float64]
Index = NDArray[np.intp]

Weighted = Callable[[NDArray[Any]], Vector]
"""Weights, shape ``(resamples, rows)``, to values, shape ``(resamples,)``."""


def weighted_metric(name: str, rows: ClusteredRows, score: Vector, *, k: int = 100) -> Weighted:
    """Prepare one metric of one model's scores.

    Args:
        name: Metric of the spec.
        rows: What is judged.
        score: The model's scores, shape ``(rows,)``.
        k: Alerts a day, for ``precision_at_k``.

    Returns:
        A function from weights, shape ``(resamples, rows)``, to values, shape ``(resamples,)``.
    """
    if name == "average_precision":
        return _average_precision(rows.label, score)
    if name == "roc_auc":
        return _roc_auc(rows.label, score)
    if name == "precision_at_k":
        return _precision_at_k(rows, score, k)
    return _MEANS[name](rows.label, score)


def _thresholds(score: Vector) -> tuple[Index, Index]:
    """Return the order from the highest score down, and the last position of each distinct score in it."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.r_[np.nonzero(np.diff(ordered))[0], len(ordered) - 1]
    return order, last


def _average_precision(label: Vector, score: Vector) -> Weighted:
    order, last = _thresholds(score)
    positive = label[order] > 0
    # Only thresholds that catch another positive add to the sum: the rest need no column.
    caught = np.diff(np.cumsum(positive)[last], prepend=0)
    last = last[caught > 0]
    hits = np.nonzero(positive)[0]
    hits_until = np.searchsorted(hits, last, side="right") - 1

    def value(weights: NDArray[Any]) -> Vector:
        ordered = np.take(weights, order, axis=1)
        flagged = np.cumsum(ordered, axis=1, dtype=np.float64)[:, last]
        true = np.cumsum(ordered[:, hits], axis=1, dtype=np.float64)[:, hits_until]
        steps = np.diff(true, axis=1, prepend=0.0)
        return np.asarray((steps * true / np.maximum(flagged, 1e-300)).sum(axis=1) / true[:, -1], dtype=np.float64)

    return value


def _roc_auc(label: Vector, score: Vector) -> Weighted:
    order, last = _thresholds(score)
    positive = (label[order] > 0).astype(np.float64)

    def value(weights: NDArray[Any]) -> Vector:
        ordered = np.take(weights, order, axis=1)
        true = np.cumsum(ordered * positive, axis=1)[:, last]
        false = np.cumsum(ordered * (1 - positive), axis=1)[:, last]
        area = np.trapezoid(np.pad(true, ((0, 0), (1, 0))), np.pad(false, ((0, 0), (1, 0))), axis=1)
        return np.asarray(area / (true[:, -1] * false[:, -1]), dtype=np.float64)

    return value


def _precision_at_k(rows: ClusteredRows, score: Vector, k: int) -> Weighted:
    """Share of true ones among the k highest entities of a day, mean over days; found ones leave later lists.

    An entity of weight w takes w of the k places. With weights one this is ``metrics.precision_at_k``.
    """
    entities = int(rows.entity.max()) + 1
    _, first, group = np.unique(
        rows.day.astype(np.int64) * entities + rows.entity, return_index=True, return_inverse=True
    )
    best = np.full(len(first), -np.inf)
    np.maximum.at(best, group, score)
    truth = np.zeros(len(first))
    np.maximum.at(truth, group, (rows.label > 0).astype(np.float64))
    by_day = [np.nonzero(rows.day[first] == day)[0] for day in np.unique(rows.day)]
    by_day = [members[np.argsort(-best[members], kind="stable")] for members in by_day]

    def value(weights: NDArray[Any]) -> Vector:
        found = np.zeros((len(weights), entities))  # share of each entity that earlier days have found
        total, counted = np.zeros(len(weights)), np.zeros(len(weights))
        for members in by_day:
            who = rows.entity[first[members]]
            weight = weights[:, first[members]].astype(np.float64)
            filled = np.minimum(np.cumsum(weight * (1 - found[:, who]), axis=1), k)
            hits = np.diff(filled, axis=1, prepend=0.0) * truth[members]
            there = filled[:, -1] > 0
            total += np.divide(hits.sum(axis=1), filled[:, -1], out=np.zeros(len(weights)), where=there)
            counted += there
            found[:, who] += np.divide(hits, weight, out=np.zeros_like(hits), where=weight > 0)
        return np.asarray(total / counted, dtype=np.float64)

    return value


def _mean_of(loss: Vector, finish: Callable[[Vector], Vector] | None = None) -> Weighted:
    def value(weights: NDArray[Any]) -> Vector:
        mean = np.asarray(weights @ loss / weights.sum(axis=1), dtype=np.float64)
        return mean if finish is None else finish(mean)

    return value


def _log_loss(label: Vector, score: Vector) -> Weighted:
    p = np.clip(score, 1e-15, 1 - 1e-15)
    return _mean_of(-(label * np.log(p) + (1 - label) * np.log1p(-p)))


def _mae(label: Vector, score: Vector) -> Weighted:
    return _mean_of(abs(label - score))


def _rmse(label: Vector, score: Vector) -> Weighted:
    return _mean_of((label - score) ** 2, np.sqrt)


def _r2(label: Vector, score: Vector) -> Weighted:
    centred = label - label.mean()  # near zero mean, so that the difference of squares stays exact
    squared, value, error = _mean_of(centred**2), _mean_of(centred), _mean_of((label - score) ** 2)

    def r2(weights: NDArray[Any]) -> Vector:
        variance = squared(weights) - value(weights) ** 2
        return np.asarray(1 - error(weights) / np.maximum(variance, 1e-300), dtype=np.float64)

    return r2


_MEANS: dict[str, Callable[[Any, Any], Weighted]] = {
    "log_loss": _log_loss,
    "mean_absolute_error": _mae,
    "root_mean_squared_error": _rmse,
    "r2": _r2,
}
