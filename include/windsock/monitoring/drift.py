"""Drift of inputs and predictions, by Evidently, on the two samples of ``window``.

Evidently computes the distances and draws the report; this module decides beforehand
what can be compared and afterwards what counts, so that an empty column or a tiny window
gives a sentence and no crash.
"""

import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from windsock.monitoring.columns import Method, Pair, by_chance, pair
from windsock.monitoring.window import Samples
from windsock.served.metrics import SCORE
from windsock.spec import ModelSpec
from windsock.spec.operations import MonitoringSpec

_DIGITS = 6


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

    Drift is a share of drifted features of at least ``monitoring.drifted_share``, or a change
    of the predictions that a drifted feature goes with: one feature alone matters if it moves
    the model, and else does not.
    """
    policy = spec.monitoring
    findings: dict[str, dict[str, Any]] = {}
    pairs: dict[str, Pair] = {}
    for name in (*rows.features, SCORE):
        prepared = pair(name, rows.current[name], rows.reference[name], categorical=name in spec.training.categorical)
        findings[name], comparable = _prepare(prepared, rows.left_out.get(name), prediction=name == SCORE)
        if comparable is not None:
            pairs[name] = comparable
    thresholds = {name: _threshold(policy, p, rng) for name, p in pairs.items()}
    values, html, json = _evidently(pairs, {n: t for n, (t, _) in thresholds.items()}, policy)
    for name, (threshold, raised) in thresholds.items():
        found = findings[name]
        found |= {"method": _method(policy, pairs[name]), "value": _rounded(values[name])}
        found["threshold"] = _rounded(threshold)
        found["drifted"] = bool(found["drifted"] or values[name] >= threshold)
        if raised is not None:
            found.setdefault("why", raised)
    prediction = findings.pop(SCORE)
    judged = [f for f in findings.values() if f["value"] is not None or f["drifted"]]
    count = sum(f["drifted"] for f in judged)
    share = count / len(judged) if judged else 0.0
    drifted = bool(count) and (share >= policy.drifted_share or bool(prediction["drifted"]))
    return Drift(findings, prediction, _rounded(share), drifted, bool(judged), html, json)


def _prepare(prepared: Pair | str, left_out: str | None, *, prediction: bool) -> tuple[dict[str, Any], Pair | None]:
    """Return what is known of a column before it is compared, and the pair if it can be."""
    found: dict[str, Any] = {"method": None, "value": None, "threshold": None, "drifted": False}
    if isinstance(prepared, str):
        return found | {"why": prepared}, None
    now, then = prepared.missing_current, prepared.missing_reference
    found["missing"] = {"current": _rounded(now), "reference": _rounded(then)}
    if left_out is not None:
        return found | {"why": left_out}, None
    # Rows of the window that another version scored have no score of this one: that is no drift.
    if prepared.missing_drifted and not prediction:
        found |= {"drifted": True, "why": f"missing values went from {then:.0%} to {now:.0%}"}
    if prepared.too_few is not None:
        found.setdefault("why", prepared.too_few)
        return found, None
    return found, prepared


def _method(policy: MonitoringSpec, columns: Pair) -> Method:
    return policy.numeric_method if columns.kind == "numeric" else policy.categorical_method


def _threshold(policy: MonitoringSpec, columns: Pair, rng: np.random.Generator) -> tuple[float, str | None]:
    """Return the column's threshold, raised to what chance does, and why it was raised."""
    given = policy.numeric_threshold if columns.kind == "numeric" else policy.categorical_threshold
    chance = by_chance(columns, _method(policy, columns), rng)
    if chance <= given:
        return given, None
    return chance, f"threshold raised from {given:g} to {chance:.3g}: chance alone makes that difference here"


def _evidently(
    pairs: Mapping[str, Pair], thresholds: Mapping[str, float], policy: MonitoringSpec
) -> tuple[dict[str, float], bytes | None, bytes | None]:
    """Run Evidently on the columns that can be compared; return values by column, HTML and JSON."""
    if not pairs:
        return {}, None, None
    os.environ.setdefault("DO_NOT_TRACK", "1")  # read at import: no telemetry
    os.environ.setdefault("ITERATIVE_DO_NOT_TRACK", "1")
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations, and correlations of constant columns
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        kinds = {kind: [name for name, p in pairs.items() if p.kind == kind] for kind in ("numeric", "categorical")}
        definition = DataDefinition(
            numerical_columns=kinds["numeric"] or None, categorical_columns=kinds["categorical"] or None
        )
        sides = [
            Dataset.from_pandas(
                pd.DataFrame({name: getattr(p, side) for name, p in pairs.items()}), data_definition=definition
            )
            for side in ("current", "reference")
        ]
        metrics = [
            ValueDrift(column=name, method=_method(policy, p), threshold=thresholds[name]) for name, p in pairs.items()
        ]
        snapshot = Report(metrics, include_tests=True).run(*sides)
        values = {m["config"]["column"]: float(m["value"]) for m in snapshot.dict()["metrics"]}
        with tempfile.TemporaryDirectory(prefix="windsock-report-") as folder:
            html, json = Path(folder, "drift.html"), Path(folder, "drift.json")
            snapshot.save_html(str(html))
            snapshot.save_json(str(json))
            return values, html.read_bytes(), json.read_bytes()


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
