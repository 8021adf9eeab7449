"""Is the champion still right? Its predictions against the labels that have arrived since.

Only what was known by the end of the day counts, so a replay a year later finds the same.
The newest days that can be judged lie ``label.delay_days`` back. The protocol is the one
of training (``served.metrics``): known positives are left out, rows without a label too.

One week's value moves by itself, so a loss counts only if it is larger than the spec allows, rests on enough rows, and
is still a loss at the hopeful end of the gate's own clustered bootstrap (ADR 0007).
"""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from windsock import tables
from windsock.dataset.label_join import attach_labels, mark_known_positives
from windsock.days import last_instant
from windsock.ledger import Ledger
from windsock.monitoring.drift import rounded
from windsock.promotions import Promotion
from windsock.served import metrics
from windsock.served.resampling import clustered_rows, weighted_metric
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.modelling import LOWER_IS_BETTER
from windsock.store import Store

MIN_POSITIVES = 20
MIN_ROWS = 100

_RESAMPLES = 400
_QUANTILE = 0.05


def measure_performance(
    settings: Settings, spec: ModelSpec, day: date, champion: Promotion, rng: np.random.Generator
) -> tuple[dict[str, Any] | None, str | None]:
    """Measure the champion's predictions of the last matured days, by the labels known at the end of ``day``.

    Returns:
        The finding (metric, value, the holdout's value, relative loss, ``degraded``, rows, positives, days,
        bootstrap interval if one was needed) and a reason; one of the two may be None.
    """
    matured = day - timedelta(days=spec.label.delay_days)
    frame = _scored_and_labelled(settings, spec, matured, day, champion.version)
    if frame is None:
        return None, f"no matured predictions of version {champion.version} yet (labels are in up to {matured})"
    result = metrics.evaluate(spec, frame)
    metric = spec.training.metric
    value, expected = result["metrics"][metric], _holdout_value(Store.of(settings), spec, champion)
    finding = {
        "metric": metric,
        "value": rounded(value),
        "holdout": rounded(expected),
        "loss": None,
        "degraded": False,
        "interval": None,
        "rows": result["rows"],
        "positives": result["positives"],
        "days": [row["ds"] for row in result["per_day"]],
    }
    if (reason := _not_enough(spec, result)) is not None:
        return finding, reason
    if expected is None:
        return finding, f"the run of version {champion.version} holds no {metric} of its holdout to compare with"
    if value is None:
        return finding, f"{metric} cannot be computed on these rows"
    loss = relative_loss(metric, value, expected)
    finding["loss"] = rounded(loss)
    if loss <= spec.monitoring.max_performance_drop:
        return finding, None
    low, high = metric_interval(spec, frame, rng)
    finding["interval"] = [rounded(low), rounded(high)]
    hopeful, moved = (low, "rose") if metric in LOWER_IS_BETTER else (high, "fell")
    finding["degraded"] = relative_loss(metric, hopeful, expected) > 0
    doubt = "" if finding["degraded"] else f", but that may be chance (90 % interval {low:.3g} to {high:.3g})"
    return finding, f"{metric} {moved} from {expected:.3g} to {value:.3g}{doubt}"


def relative_loss(metric: str, value: float, expected: float) -> float:
    """Return how much worse a value is than expected, as a share of the expected one; negative if better."""
    worse = value - expected if metric in LOWER_IS_BETTER else expected - value
    return worse / max(abs(expected), 1e-9)


def metric_interval(spec: ModelSpec, frame: pa.Table, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 5 % and 95 % quantiles of the metric over clustered resamples, as the gate draws them."""
    rows, counted = clustered_rows(spec, frame)
    scores = frame.column(metrics.SCORE).to_numpy().astype(np.float64)[counted]
    measure = weighted_metric(spec.training.metric, rows, scores, k=spec.training.evaluation.alerts_per_day)
    values = np.concatenate([measure(weights) for weights in rows.weightings(_RESAMPLES, rng)])
    values = values[np.isfinite(values)]
    if not len(values):
        return float("-inf"), float("inf")
    low, high = np.quantile(values, [_QUANTILE, 1 - _QUANTILE])
    return float(low), float(high)


def _scored_and_labelled(
    settings: Settings, spec: ModelSpec, matured: date, known_on: date, version: str
) -> pa.Table | None:
    """Join a version's predictions of the days up to a matured one with the labels known by the end of a day.

    Returns:
        Columns ``event_timestamp``, ``score``, the label, the entities and ``known_positive`` if the spec
        uses it; only rows whose label is known. None if that version scored none of the days.
    """
    store, first = Store.of(settings), matured - timedelta(days=spec.monitoring.performance_days - 1)
    evaluation, key, time = spec.training.evaluation, spec.events.key, spec.events.time
    # As far back before the rows as the training window lies before the holdout that this is compared with.
    since = max(first - timedelta(days=spec.training.window_days + spec.gap_days), spec.first_day)
    ingested = Ledger.of(settings, spec.name, "ingest").between(since, matured)
    scored = Ledger.of(settings, spec.name, "score").between(first, matured)
    extra = [c for c in (evaluation.alert_entity, evaluation.exclude_known_positives, *spec.entities.values()) if c]
    events = tables.read_events(store, spec, ingested.values(), list(dict.fromkeys([key, time, *extra])))
    # The event time's own column may have the name of one that is added.
    events = pa.table({key: events[key], metrics.TIME: events[time], **{c: events[c] for c in extra}})
    scores = metrics.scores_of_version(store, scored.values(), version, key, events)
    if scores is None or scores.null_count == len(scores):
        return None
    frame = events.append_column(metrics.SCORE, scores).filter(scores.is_valid())
    if spec.label.files is not None:  # stored by day of delivery
        ingested = Ledger.of(settings, spec.name, "labels").between(since, known_on)
    labels = tables.read_labels(store, spec, ingested.values())
    rows = attach_labels(spec, frame, labels, last_instant(known_on))
    if evaluation.exclude_known_positives is None or spec.label.task != "binary":
        return rows
    return mark_known_positives(spec, rows, attach_labels(spec, events, labels, last_instant(known_on)), since)


def _holdout_value(store: Store, spec: ModelSpec, champion: Promotion) -> float | None:
    """Return the champion's own value on its holdout, from its run folder."""
    try:
        holdout = store.read_json("runs", spec.name, champion.run, "metrics.json")["holdout"]
    except (FileNotFoundError, KeyError):
        return None
    value = holdout.get(spec.training.metric)
    return None if value is None else float(value)


def _not_enough(spec: ModelSpec, result: Mapping[str, Any]) -> str | None:
    """Return why there is too little to judge, or None."""
    for have, needed, what in (
        (len(result["per_day"]), -(-spec.monitoring.performance_days // 2), "matured days"),
        (result["rows"], MIN_ROWS, "labelled rows"),
        (result["positives"], MIN_POSITIVES, "positives"),
    ):
        if have is not None and have < needed:
            return f"{have} {what} are too few to judge; {needed} are needed"
    return None
