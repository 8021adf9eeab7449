"""Drift of inputs and predictions, by Evidently, on the two samples of ``window``.

Evidently computes the distances and draws the report; this module decides beforehand what can be compared and
afterwards what counts, so that an empty column or a tiny window gives a sentence and no crash.

A fixed threshold is meant for samples of thousands of rows. In small ones, and in columns that are zero but for a few
rows, chance makes larger differences than that; so a column has drifted only if it differs by more than the threshold
*and* by more than shuffling the rows between the two samples ever did.
"""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.distance import jensenshannon

from windsock.monitoring.window import Samples
from windsock.served.metrics import SCORE
from windsock.spec import ModelSpec
from windsock.spec.operations import MonitoringSpec

MIN_VALUES = 100
"""Fewer values on either side are not judged."""
MISSING_RISE = 0.1
"""Change in the share of missing values that counts as drift by itself."""
MAX_CATEGORIES = 30
"""The reference's most frequent categories are told apart; all others count as one."""

_OTHER = "(other)"
_SHUFFLES = 50
_DIGITS = 6


@dataclass(frozen=True)
class Pair:
    """One column's values on both sides, missing ones (infinite ones included) taken out, and how they are compared."""

    kind: Literal["numeric", "categorical"]
    method: Literal["wasserstein", "jensenshannon", "psi"]
    given: float
    """The spec's threshold."""
    current: pd.Series
    reference: pd.Series
    missing: tuple[float, ...]
    """Share of missing values of the current and of the reference side."""


@dataclass(frozen=True)
class Drift:
    """What the comparison found."""

    columns: Mapping[str, Mapping[str, Any]]
    """Feature to method, value, threshold, drifted, missing shares and (if there is one) a reason."""
    prediction: Mapping[str, Any]
    """The same for the champion's scores."""
    share: float
    """Drifted features among those that were judged."""
    drifted: bool
    judged: bool
    html: bytes | None
    """Evidently's report; None if nothing could be compared."""
    json: bytes | None


def find_drift(spec: ModelSpec, rows: Samples, rng: np.random.Generator) -> Drift:
    """Compare recent rows with the reference.

    Drift is a share of drifted features of at least ``monitoring.drifted_share``, or a change of the predictions that a
    drifted feature goes with: one feature alone matters if it moves the model, and else does not.
    """
    policy = spec.monitoring
    findings: dict[str, dict[str, Any]] = {}
    pairs: dict[str, Pair] = {}
    for name in rows.current.columns:
        findings[name], comparable = _prepare(spec, rows, name)
        if comparable is not None:
            pairs[name] = comparable
    thresholds = {name: max(pair.given, by_chance(pair, rng)) for name, pair in pairs.items()}
    values, html, json = _evidently(pairs, thresholds)
    for name, pair in pairs.items():
        found, threshold = findings[name], thresholds[name]
        found |= {"method": pair.method, "value": rounded(values[name]), "threshold": rounded(threshold)}
        found["drifted"] = bool(found["drifted"] or values[name] >= threshold)
        if threshold > pair.given:
            raised = f"threshold raised from {pair.given:g} to {threshold:.3g}: chance alone makes that difference here"
            found.setdefault("why", raised)
    prediction = findings.pop(SCORE)
    judged = [f for f in findings.values() if f["value"] is not None or f["drifted"]]
    count = sum(f["drifted"] for f in judged)
    share = count / len(judged) if judged else 0.0
    drifted = bool(count) and (share >= policy.drifted_share or bool(prediction["drifted"]))
    return Drift(findings, prediction, round(share, _DIGITS), drifted, bool(judged), html, json)


def _prepare(spec: ModelSpec, rows: Samples, name: str) -> tuple[dict[str, Any], Pair | None]:
    """Return what is known of a column before it is compared, and the pair if it can be."""
    found: dict[str, Any] = {"method": None, "value": None, "threshold": None, "drifted": False}
    current, reference = rows.current[name], rows.reference[name]
    pair = pair_of(spec.monitoring, current, reference, categorical=name in spec.training.categorical)
    if pair is None:
        return found | {"why": "holds times, which are not compared"}, None
    now, then = pair.missing
    found["missing"] = {"current": rounded(now), "reference": rounded(then)}
    if name in rows.left_out:
        return found | {"why": rows.left_out[name]}, None
    # Rows of the window that another version scored have no score of this one: that is no drift.
    if name != SCORE and min(len(current), len(reference)) >= MIN_VALUES and abs(now - then) > MISSING_RISE:
        found |= {"drifted": True, "why": f"missing values went from {then:.0%} to {now:.0%}"}
    fewest = min(len(pair.current), len(pair.reference))
    if fewest >= MIN_VALUES:
        return found, pair
    side = "recent days" if len(pair.current) == fewest else "reference"
    few = f"too few rows: the {side} hold {fewest} values, at least {MIN_VALUES} are needed"
    found.setdefault("why", few)
    return found, None


def pair_of(policy: MonitoringSpec, current: pd.Series, reference: pd.Series, *, categorical: bool) -> Pair | None:
    """Prepare one column; None if it holds times. Text and booleans are categories whatever the spec says."""
    sides = [current, reference]
    known = [s for s in sides if s.notna().any()]
    if any(pd.api.types.is_datetime64_any_dtype(s) for s in known):
        return None
    numeric = all(pd.api.types.is_numeric_dtype(s) and not pd.api.types.is_bool_dtype(s) for s in known)
    if numeric:
        sides = [pd.to_numeric(s).astype(float).replace([np.inf, -np.inf], np.nan) for s in sides]
    missing = tuple(float(s.isna().mean()) if len(s) else 0.0 for s in sides)
    now, then = (s.dropna() for s in sides)
    if numeric and not categorical:
        return Pair("numeric", policy.numeric_method, policy.numeric_threshold, now, then, missing)
    now, then = (s.map(_label).astype(object) for s in (now, then))
    frequent = set(then.value_counts().index[:MAX_CATEGORIES])
    now, then = (s.where(s.isin(frequent), _OTHER) for s in (now, then))
    return Pair("categorical", policy.categorical_method, policy.categorical_threshold, now, then, missing)


def _label(value: object) -> str:
    """Write whole numbers alike, whether they came as 1, 1.0 or True."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def by_chance(pair: Pair, rng: np.random.Generator) -> float:
    """Return the largest difference that shuffling rows between the two samples makes."""
    n, m = len(pair.current), len(pair.reference)
    pooled = pd.concat([pair.current, pair.reference])
    if pair.method == "wasserstein":
        steps = np.diff(np.sort(pooled.to_numpy()))
        weights = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
        gaps = (np.cumsum(rng.permutation(weights))[:-1] for _ in range(_SHUFFLES))
        widest = max(float(np.abs(gap) @ steps) for gap in gaps)
        return widest / max(float(np.std(pair.reference.to_numpy())), 0.001)  # normed as Evidently does
    counts = _counts(pair, pooled)
    draws = rng.multivariate_hypergeometric(counts, n, size=_SHUFFLES)
    now, then = draws / n, (counts - draws) / m
    if pair.method == "jensenshannon":
        return float(jensenshannon(now, then, axis=1).max())
    now, then = np.maximum(now, 0.0001), np.maximum(then, 0.0001)
    return float(((then - now) * np.log(then / now)).sum(axis=-1).max())


def _counts(pair: Pair, pooled: pd.Series) -> npt.NDArray[np.int64]:
    """Return how many rows of both sides fall into each bin, as Evidently bins them."""
    if pair.kind == "numeric" and pair.reference.nunique() > 20:
        return np.histogram(pooled, np.histogram_bin_edges(pooled, bins="sturges"))[0].astype(np.int64)
    return np.asarray(pooled.value_counts(sort=False), dtype=np.int64)


def _evidently(
    pairs: Mapping[str, Pair], thresholds: Mapping[str, float]
) -> tuple[dict[str, float], bytes | None, bytes | None]:
    """Run Evidently on the columns that can be compared; return values by column, HTML and JSON."""
    if not pairs:
        return {}, None, None
    os.environ.setdefault("DO_NOT_TRACK", "1")  # read at import: no telemetry
    os.environ.setdefault("ITERATIVE_DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations, and correlations of constant columns
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        kinds = {kind: [name for name, p in pairs.items() if p.kind == kind] for kind in ("numeric", "categorical")}
        definition = DataDefinition(
            numerical_columns=kinds["numeric"] or None, categorical_columns=kinds["categorical"] or None
        )
        frames = (pd.DataFrame({n: getattr(p, side) for n, p in pairs.items()}) for side in ("current", "reference"))
        sides = [Dataset.from_pandas(frame, data_definition=definition) for frame in frames]
        metrics = [ValueDrift(column=n, method=pair.method, threshold=thresholds[n]) for n, pair in pairs.items()]
        snapshot = Report(metrics, include_tests=True).run(*sides)
        values = {m["config"]["column"]: float(m["value"]) for m in snapshot.dict()["metrics"]}
        return values, snapshot.get_html_str(as_iframe=False).encode(), snapshot.json().encode()


def rounded(value: float | None) -> float | None:
    """Return a number as records keep it; None of what is no finite number."""
    return None if value is None or not np.isfinite(value) else round(float(value), _DIGITS)
