"""Resampling rows for a bootstrap: by clusters that share their luck, with exponential weights.

Rows are the wrong unit to resample: all rows of one entity rise and fall together. A cluster is the entity that alerts
are counted by, else the first entity, else a block of time (whole days if there are enough of them). Weights are
exponential (Rubin, "The Bayesian Bootstrap", Annals of Statistics 1981) rather than counts, so that no resample loses
all of its few positives. ADR 0007 has the numbers.

:func:`weighted_metric` gives a metric under hundreds of weightings of the same rows. Sorting depends on the scores
alone, so it is done once per model. With all weights one, every value equals ``windsock.served.metrics`` (tested).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from windsock.served import metrics
from windsock.served.metrics import Weighted
from windsock.spec import ModelSpec

ENOUGH_DAYS = 20
"""From so many days on, a day is the cluster where there is no entity; below, six hours are."""

Vector = NDArray[np.float64]

_DAY_US = 86_400_000_000
_BLOCK_US = _DAY_US // 4
_CHUNK_CELLS = 4_000_000
"""Weights held at once: about 100 MB with what is made of them."""


@dataclass(frozen=True)
class ClusteredRows:
    """Labelled rows that count by the evaluation protocol, and the clusters they fall into."""

    label: NDArray[np.float64]
    """Shape ``(rows,)``; 0 or 1 for binary tasks."""
    day: NDArray[np.intp]
    """Day number of each row, shape ``(rows,)``."""
    entity: NDArray[np.intp]
    """What alerts are counted by, as numbers, shape ``(rows,)``; each row its own where there is no entity."""
    cluster: NDArray[np.intp]
    """Resampled unit of each row, 0-based and dense, shape ``(rows,)``."""
    clustered_by: str
    """What the units are, in words."""

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.label)

    @property
    def clusters(self) -> int:
        """How many resampled units."""
        return int(self.cluster.max()) + 1 if self.rows else 0

    @property
    def positives(self) -> int:
        """How many rows with a label above zero."""
        return int((self.label > 0).sum())

    def weightings(self, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
        """Draw weights of the rows, in chunks of shape ``(some resamples, rows)``; a cluster's rows weigh the same."""
        step = max(1, min(resamples, _CHUNK_CELLS // max(1, self.rows)))
        for start in range(0, resamples, step):
            drawn = rng.standard_exponential((min(step, resamples - start), self.clusters), dtype=np.float32)
            yield np.take(drawn, self.cluster, axis=1)


def clustered_rows(spec: ModelSpec, frame: pa.Table) -> tuple[ClusteredRows, NDArray[np.bool_]]:
    """Return the rows that count, and a mask of the frame's rows that says which they are."""
    counted = metrics.counted_rows(spec, frame)
    kept = frame.filter(pa.array(counted))
    time = kept.column(metrics.TIME).cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    day = time // _DAY_US
    alert_entity = spec.training.evaluation.alert_entity
    entity = metrics.codes_of(kept, alert_entity) if alert_entity is not None else np.arange(kept.num_rows)
    unit = entity_column(spec, kept.column_names)
    if unit is not None:
        cluster, by = metrics.codes_of(kept, unit), unit
    elif len(np.unique(day)) >= ENOUGH_DAYS:
        cluster, by = _dense(day), "day"
    else:
        cluster, by = _dense(time // _BLOCK_US), "block of six hours"
    label = kept.column(spec.label.column).to_numpy().astype(np.float64)
    return ClusteredRows(label, _dense(day), entity, cluster, by), counted


def entity_column(spec: ModelSpec, names: Sequence[str]) -> str | None:
    """Return the column whose values share their luck, among those that are there; None if no entity is."""
    return spec.training.evaluation.alert_entity or next((c for c in spec.entities.values() if c in names), None)


def swaps(one: Vector, other: Vector, draws: int, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """Deal two samples out anew, cluster by cluster: each cluster's rows change sides or stay, by the toss of a coin.

    Args:
        one: What is counted of each cluster on one side, shape ``(clusters, cells)``.
        other: The same on the other side; the sides count the same, however many rows they have.
        draws: How often.
        rng: The source of chance.

    Returns:
        Shares of both sides of each draw, shape ``(draws, cells)`` each.
    """
    one, other = one / one.sum(), other / other.sum()
    stay = rng.integers(0, 2, (draws, len(one))).astype(np.float64)
    return stay @ one + (1 - stay) @ other, (1 - stay) @ one + stay @ other


def _dense(values: Any) -> Any:
    return np.unique(values, return_inverse=True)[1]


def weighted_metric(name: str, rows: ClusteredRows, score: Vector, *, k: int = 100) -> Weighted:
    """Prepare a metric of one model's scores, shape ``(rows,)``; ``k`` is the alerts a day of ``precision_at_k``."""
    label = rows.label
    match name:
        case "average_precision":
            return _average_precision(label, score)
        case "roc_auc":
            return _roc_auc(label, score)
        case "precision_at_k":
            return metrics.weighted_precision_at_k(label, score, rows.day, rows.entity, k=k)
        case "log_loss":
            p = np.clip(score, 1e-15, 1 - 1e-15)
            return _mean_of(-(label * np.log(p) + (1 - label) * np.log1p(-p)))
        case "mean_absolute_error":
            return _mean_of(abs(label - score))
        case "root_mean_squared_error":
            return _mean_of((label - score) ** 2, np.sqrt)
        case "r2":
            return _r2(label, score)
    raise KeyError(name)


def _thresholds(score: Vector) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
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


def _mean_of(loss: Vector, finish: Callable[[Vector], Vector] | None = None) -> Weighted:
    def value(weights: NDArray[Any]) -> Vector:
        mean = np.asarray(weights @ loss / weights.sum(axis=1), dtype=np.float64)
        return mean if finish is None else finish(mean)

    return value


def _r2(label: Vector, score: Vector) -> Weighted:
    centred = label - label.mean()  # near zero mean, so that the difference of squares stays exact
    squared, value, error = _mean_of(centred**2), _mean_of(centred), _mean_of((label - score) ** 2)

    def r2(weights: NDArray[Any]) -> Vector:
        variance = squared(weights) - value(weights) ** 2
        return np.asarray(1 - error(weights) / np.maximum(variance, 1e-300), dtype=np.float64)

    return r2
