"""Is what decides still right? Predictions against the labels that have arrived since, whoever made them.

Every scored day is judged once its labels are in, by the versions that scored it, each held against what the gate
promised of it (``promise``). The champion in force is judged besides on days that it did not score, by scoring them
now: those after its holdout, as it learnt from what lies before (``scored``). Where that says enough it decides, as it
is about the version that a retraining would replace. The protocol is the one of training (``served.metrics``): known
positives are left out, rows without a label too.

One week's value moves by itself, and so does a promise. A loss counts only if it is larger than the spec allows, rests
on enough rows, and is still one at the hopeful end of the gate's own clustered bootstrap of both (ADR 0007, ADR 0026).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windsock.errors import NotReady
from windsock.monitoring.arrivals import watch_labels
from windsock.monitoring.drift import rounded
from windsock.monitoring.maturing import days_as_labels_mature, estimate
from windsock.monitoring.promise import RESAMPLES, Draws, Promise, resampled
from windsock.monitoring.scored import VERSION, Past, scored_by
from windsock.promotions import Promotion, history
from windsock.served import metrics
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.modelling import LOWER_IS_BETTER
from windsock.store import Store

MIN_POSITIVES = 20
MIN_ROWS = 100

_QUANTILE = 0.05


@dataclass(frozen=True)
class Judgement:
    """What a night says of predictions and labels."""

    performance: dict[str, Any] | None
    """None: no prediction has matured."""
    scored_days: list[dict[str, Any]]
    """Each scored day with how far its labels have come, and what they say."""
    estimate: dict[str, Any] | None
    """What may be expected of the champion's days without labels."""
    labels: dict[str, Any]
    """How the labels come, with ``alarm`` and ``why``."""
    remarks: tuple[str, ...]
    """Sentences; the first says why there is a loss, or why nothing was judged."""
    promised: float | None
    """The champion's value on its holdout."""

    @property
    def degraded(self) -> bool:
        """Whether there is a loss that counts."""
        return bool(self.performance and self.performance["degraded"])

    @property
    def judged(self) -> bool:
        """Whether there was enough to find a loss."""
        return bool(self.performance and self.performance["loss"] is not None)


def measure_performance(
    settings: Settings, spec: ModelSpec, day: date, champion: Promotion, rng: np.random.Generator
) -> Judgement:
    """Judge the predictions of the last matured days by the labels known at the end of ``day``.

    The finding has metric, value, the holdout's value, relative loss, ``degraded``, rows, positives, days and a
    bootstrap interval if one was needed, all of what decides; ``basis`` says whether that is ``production`` or the
    champion ``re-scored``, and both stand beside; ``versions`` are those that scored.
    """
    past, store = Past.of(settings, spec, day), Store.of(settings)
    scored = {champion.version, *pc.unique(past.scored[VERSION]).to_pylist()}  # of years of promotions, these are read
    promises = {e.version: Promise.of(store, spec, e.run) for e in history(settings, spec) if e.version in scored}
    labels = watch_labels(past)
    production, remark = judge(spec, past.labelled(past.scored), promises, rng)
    own, aside = _of_champion(past, champion, promises, rng)
    promised = rounded(promises[champion.version].value)
    remarks = [aside] if aside else []
    of_own = own.pop("remark") if own is not None else None
    finding, basis = production, "production"
    if own is not None and (own["loss"] is not None or production is None):
        finding, basis, remark = own, "re-scored", of_own
    days = days_as_labels_mature(past, labels["usual_share"], rng)
    expected = estimate(past, champion.version, promises[champion.version])
    if finding is None:
        none = f"no matured predictions yet (labels are in up to {past.matured})"
        return Judgement(None, days, expected, labels, (none, *remarks), promised)
    if finding["degraded"] and labels["unfinished"]:
        finding = {**finding, "degraded": False}
        remark = f"{remark}, which is not believed as long as labels are missing"
    beside = {
        "basis": basis,
        "production": production,
        "rescored": own,
        "versions": _versions(past.scored, promises),
    }
    told = tuple(filter(None, (remark, *remarks)))
    return Judgement({**finding, **beside}, days, expected, labels, told, promised)


def relative_loss(metric: str, value: float, expected: float) -> float:
    """Return how much worse a value is than expected, as a share of the expected one; negative if better."""
    return float(_losses(metric, np.array(value), np.array(expected)))


def _losses(metric: str, values: Draws, expected: Draws) -> Draws:
    worse = values - expected if metric in LOWER_IS_BETTER else expected - values
    return np.asarray(worse / np.maximum(abs(expected), 1e-9))


def metric_interval(spec: ModelSpec, frame: pa.Table, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 5 % and 95 % quantiles of the metric over clustered resamples, as the gate draws them."""
    return _ends(resampled(spec, frame, RESAMPLES, rng))


def _ends(values: Draws) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return float("-inf"), float("inf")
    low, high = np.quantile(values, [_QUANTILE, 1 - _QUANTILE])
    return float(low), float(high)


def judge(
    spec: ModelSpec, frame: pa.Table, promises: Mapping[str, Promise], rng: np.random.Generator
) -> tuple[dict[str, Any] | None, str | None]:
    """Hold scored, labelled rows against the promises of the versions that scored them; the finding and a reason."""
    if frame.num_rows == 0:
        return None, None
    metric, parts = spec.training.metric, _by_version(spec, frame)
    # What nothing was promised of says nothing of a loss.
    compared = [p for p in parts if promises[p.version].value is not None] or parts
    value, expected = (_mean(compared, of) for of in (lambda p: p.value, lambda p: promises[p.version].value))
    result = parts[0].result if len(parts) == 1 else metrics.evaluate(spec, frame, names=[])
    finding = {
        "metric": metric,
        "value": rounded(value),
        "holdout": rounded(expected),
        "loss": None,
        "degraded": False,
        "interval": None,
        "promise_interval": None,
        "rows": result["rows"],
        "positives": result["positives"],
        "days": [row["ds"] for row in result["per_day"]],
    }
    if (reason := _not_enough(spec, result)) is not None:
        return finding, reason
    if expected is None:
        versions = " and ".join(p.version for p in parts)
        return finding, f"the run of version {versions} holds no {metric} of its holdout to compare with"
    if value is None:
        return finding, f"{metric} cannot be computed on these rows"
    loss = relative_loss(metric, value, expected)
    finding["loss"] = rounded(loss)
    if loss <= spec.monitoring.max_performance_drop:
        return finding, None
    drawn = [replace(p, draws=resampled(spec, p.rows, RESAMPLES, rng)) for p in compared if p.value is not None]
    values, promised = (_mean(drawn, of) for of in (lambda p: p.draws, lambda p: promises[p.version].draws()))
    low, high = _ends(values)
    finding["interval"] = [rounded(low), rounded(high)]
    finding["promise_interval"] = [rounded(end) for end in _ends(promised)]
    finding["degraded"] = _ends(_losses(metric, values, promised))[0] > 0
    moved = "rose" if metric in LOWER_IS_BETTER else "fell"
    doubt = "" if finding["degraded"] else f", but that may be chance (90 % interval {low:.3g} to {high:.3g})"
    return finding, f"{metric} {moved} from {expected:.3g} to {value:.3g}{doubt}"


def _of_champion(
    past: Past, champion: Promotion, promises: Mapping[str, Promise], rng: np.random.Generator
) -> tuple[dict[str, Any] | None, str | None]:
    """Judge the champion on days that others or nobody scored; None if there is no such day, or why it cannot be."""
    try:
        rows, anew = scored_by(past, champion)
    except NotReady as err:
        return None, f"version {champion.version} was not judged on days before it: {err}"
    if rows is None:
        return None, f"version {champion.version} was not judged on days before it: its model is not in its run folder"
    if not anew:
        return None, None
    finding, remark = judge(past.spec, past.labelled(rows), promises, rng)
    if finding is None:
        return None, None
    of = f"version {champion.version}, scored again on {len(anew)} days that it did not score"
    return {**finding, "anew": [str(d) for d in anew], "remark": remark and f"{remark} ({of})"}, None


@dataclass(frozen=True)
class _Part:
    """The rows that one version scored."""

    version: str
    rows: pa.Table
    weight: float
    value: float | None
    result: Mapping[str, Any]
    draws: Draws | None = None


def _by_version(spec: ModelSpec, frame: pa.Table) -> list[_Part]:
    """Split rows by who scored them: scores of two models are on two scales, so no list is made of both."""
    parts, metric = [], spec.training.metric
    for version in sorted(pc.unique(frame[VERSION]).to_pylist()):
        rows = frame.filter(pc.equal(frame[VERSION], version))
        result = metrics.evaluate(spec, rows, names=[metric])
        # What a ranking is worth depends on its positives, an error on its rows.
        weight = result["positives"] if metric not in LOWER_IS_BETTER else None
        weight = float(result["rows"] if weight is None else weight)
        parts.append(_Part(version, rows, weight, result["metrics"][metric], result))
    return parts


def _mean(parts: list[_Part], of: Callable[[_Part], Any]) -> Any:
    """Return a mean over versions, by the weight of their rows, of those that have a value."""
    known = [(p.weight, of(p)) for p in parts if p.value is not None and p.weight and of(p) is not None]
    total = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / total if total else None


def _versions(scored: pa.Table, promises: Mapping[str, Promise]) -> dict[str, Any]:
    counts = {row["values"]: row["counts"] for row in pc.value_counts(scored[VERSION]).to_pylist()}
    return {v: {"rows": counts[v], "holdout": rounded(promises[v].value)} for v in sorted(counts)}


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
