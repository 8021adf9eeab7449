"""How predictions are judged: the metrics, and the protocol around them.

Metrics are scikit-learn's where it has them. :func:`evaluate` is the protocol: which rows
count, per-day values, and the entities that an alert list is made of. A value that cannot be
computed (one class only, no rows) is None, never a number that looks fine.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from windsock import tables
from windsock.errors import DataContractError
from windsock.ledger import DayRecord
from windsock.row_places import places_of
from windsock.spec import ModelSpec
from windsock.spec.modelling import LOWER_IS_BETTER
from windsock.store import Store

Floats = npt.NDArray[np.float64]
Weighted = Callable[[npt.NDArray[Any]], Floats]
"""Weights of rows, shape ``(resamples, rows)``, to values, shape ``(resamples,)``."""

KNOWN_POSITIVE = "known_positive"
"""Column that marks rows of entities already known to be positive when the row happened."""
SCORE = "score"
TIME = "event_timestamp"

BINARY = ("average_precision", "roc_auc", "log_loss", "precision_at_k")
REGRESSION = ("mean_absolute_error", "root_mean_squared_error", "r2")
_OF_TASK = {"binary": BINARY, "regression": REGRESSION}


def measure(metric: str, labels: Floats, scores: Floats) -> float | None:
    """Return a metric of labels and scores, shape ``(rows,)`` both; None where these rows do not define it.

    ``average_precision`` is the area under the precision-recall steps (equal scores count as one step), ``roc_auc`` the
    chance that a positive scores above a negative (a tie counts half), ``log_loss`` in nats, of scores clipped to
    ``[1e-15, 1 - 1e-15]``; the two errors are in the label's unit, ``r2`` is the share of variance explained.
    """
    from sklearn import metrics

    match metric:
        case "average_precision" if labels.any():
            return float(metrics.average_precision_score(labels, scores))
        case "roc_auc" if labels.any() and not labels.all():
            return float(metrics.roc_auc_score(labels, scores))
        case "log_loss" if len(labels):
            return float(metrics.log_loss(labels, np.clip(scores, 1e-15, 1 - 1e-15), labels=[0, 1]))
        case "mean_absolute_error" if len(labels):
            return float(metrics.mean_absolute_error(labels, scores))
        case "root_mean_squared_error" if len(labels):
            return float(metrics.root_mean_squared_error(labels, scores))
        case "r2" if len(labels) and np.ptp(labels) > 0:
            return float(metrics.r2_score(labels, scores))
    return None


def precision_at_k(
    labels: Floats, scores: Floats, days: npt.NDArray[Any], entities: npt.NDArray[Any] | None = None, *, k: int
) -> float | None:
    """Return :func:`weighted_precision_at_k` of rows that all count the same; None if there are none."""
    if len(labels) == 0:
        return None
    value = weighted_precision_at_k(labels, scores, days, entities, k=k)(np.ones((1, len(labels))))
    return float(value[0])


def weighted_precision_at_k(
    labels: Floats, scores: Floats, days: npt.NDArray[Any], entities: npt.NDArray[Any] | None, *, k: int
) -> Weighted:
    """Prepare the share of true positives among the k best-scored entities of a day, averaged over days.

    An entity scores with its best row of the day and is positive if any of its rows is. Positives found on a day are
    taken off the list of later days: nobody looks at a blocked card again. Ties go to the smaller entity value. An
    entity of weight w takes w of the k places; on a day with fewer entities, all are looked at.

    All arrays have one value a row: labels are 0 or 1, days anything sortable, entities what alerts are counted by
    (None: each row by itself).
    """
    day, entity = (
        np.unique(values, return_inverse=True)[1]
        for values in (days, np.arange(len(labels)) if entities is None else entities)
    )
    count = int(entity.max()) + 1
    _, first, group = np.unique(day * count + entity, return_index=True, return_inverse=True)
    best = np.full(len(first), -np.inf)
    np.maximum.at(best, group, scores)
    truth = np.zeros(len(first))
    np.maximum.at(truth, group, (labels > 0).astype(np.float64))
    by_day = [np.flatnonzero(day[first] == one) for one in range(int(day.max()) + 1)]
    by_day = [members[np.argsort(-best[members], kind="stable")] for members in by_day]

    def value(weights: npt.NDArray[Any]) -> Floats:
        found = np.zeros((len(weights), count))  # share of each entity that earlier days have found
        total, counted = np.zeros(len(weights)), np.zeros(len(weights))
        for members in by_day:
            who = entity[first[members]]
            weight = weights[:, first[members]].astype(np.float64)
            filled = np.minimum(np.cumsum(weight * (1 - found[:, who]), axis=1), k)
            hits = np.diff(filled, axis=1, prepend=0.0) * truth[members]
            there = filled[:, -1] > 0
            total += np.divide(hits.sum(axis=1), filled[:, -1], out=np.zeros(len(weights)), where=there)
            counted += there
            found[:, who] += np.divide(hits, weight, out=np.zeros_like(hits), where=weight > 0)
        return np.asarray(total / counted, dtype=np.float64)

    return value


def better(metric: str, value: float, than: float) -> bool:
    """Say whether one value of a metric is strictly better than another."""
    return value < than if metric in LOWER_IS_BETTER else value > than


def judge(
    spec: ModelSpec,
    labels: Floats,
    scores: Floats,
    days: npt.NDArray[Any],
    entities: npt.NDArray[Any] | None,
    names: Sequence[str] | None = None,
) -> dict[str, float | None]:
    """Return metrics over the rows as given; default: every one that fits the model's task."""
    k = spec.training.evaluation.alerts_per_day
    return {
        name: precision_at_k(labels, scores, days, entities, k=k)
        if name == "precision_at_k"
        else measure(name, labels, scores)
        for name in (names if names is not None else _OF_TASK[spec.label.task])
    }


def codes_of(frame: pa.Table, column: str) -> npt.NDArray[Any]:
    """Number a column's values, from 0; missing ones count as one value."""
    encoded = frame.column(column).combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy()  # type: ignore[no-any-return]


def counted_rows(spec: ModelSpec, frame: pa.Table) -> npt.NDArray[np.bool_]:
    """Say which rows the protocol counts: labelled, and not of an entity already known to be positive."""
    counted: npt.NDArray[np.bool_] = frame.column(spec.label.column).is_valid().to_numpy(zero_copy_only=False)
    if KNOWN_POSITIVE in frame.column_names:
        counted = counted & ~frame.column(KNOWN_POSITIVE).to_numpy(zero_copy_only=False)
    return counted


def scores_of_version(
    store: Store, records: Iterable[DayRecord], version: str, key: str, frame: pa.Table
) -> pa.ChunkedArray | None:
    """Return a version's production scores of rows with key and ``event_timestamp``, NULL where it gave none.

    None: it gave none at all.
    """
    predictions = tables.read(store, records, "predictions", [key, "event_time", SCORE, "model_version"])
    if predictions is None:
        return None
    own = predictions.filter(pc.equal(predictions["model_version"].cast(pa.string()), version))
    return own[SCORE].take(places_of([frame[key], frame[TIME]], [own[key], own["event_time"]]))


def evaluate(
    spec: ModelSpec, frame: pa.Table, scores: Floats | None = None, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Judge predictions, shape ``(rows,)``, by the model's protocol; default: the frame's column ``score``.

    The frame has time and label, the alert entity if there is one, and perhaps ``known_positive``. ``names`` are the
    metrics over all rows; default: every one that fits the model's task.

    Returns:
        ``metrics`` (name to value or None), ``rows`` and ``positives`` judged, ``unlabelled`` and
        ``known_positive`` rows left out, and ``per_day`` with the spec's own metric.

    Raises:
        DataContractError: A prediction is not a finite number.
    """
    counted = counted_rows(spec, frame)
    if scores is None:
        scores = frame.column(SCORE).to_numpy().astype(np.float64)
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise DataContractError(
            f"{spec.name}: {bad} of {len(scores)} predictions are not finite numbers, so nothing can be judged by "
            "them. Look for infinite feature values; train and score again."
        )
    labelled = frame.column(spec.label.column).is_valid().to_numpy(zero_copy_only=False)
    kept = frame.filter(counted)
    labels = kept.column(spec.label.column).to_numpy().astype(np.float64)
    days = np.asarray(kept.column(TIME).cast(pa.timestamp("us")), "datetime64[D]")
    alert_entity = spec.training.evaluation.alert_entity
    entities = codes_of(kept, alert_entity) if alert_entity is not None and spec.label.task == "binary" else None
    used = scores[counted]
    per_day = []
    for day in np.unique(days):
        at = days == day
        of_day = entities[at] if entities is not None else None
        values = judge(spec, labels[at], used[at], days[at], of_day, [spec.training.metric])
        row = {"ds": str(day), "rows": int(at.sum()), **values}
        per_day.append(row | ({"positives": int(labels[at].sum())} if spec.label.task == "binary" else {}))
    return {
        "metrics": judge(spec, labels, used, days, entities, names),
        "rows": int(counted.sum()),
        "positives": int(labels.sum()) if spec.label.task == "binary" else None,
        "unlabelled": int((~labelled).sum()),
        KNOWN_POSITIVE: int((labelled & ~counted).sum()),
        "per_day": per_day,
    }
