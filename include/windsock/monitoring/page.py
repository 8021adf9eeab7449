"""The night's page: a table of what was found, then Evidently's plots of the columns that it is about.

Evidently draws, it does not decide: what counts is computed in ``drift`` from all rows of both samples. It gets a
bounded sample of the :data:`MOST_COLUMNS` columns that say most (drifted ones first, then what the champion makes most
of), so that a model with a thousand columns has a page that a browser opens.
"""

import html
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from windsock.distance import cells_of, label_of
from windsock.monitoring.drift import Drift, Pair, pair_of
from windsock.monitoring.window import Samples
from windsock.served.metrics import SCORE
from windsock.spec import ModelSpec

MOST_COLUMNS = 12
MOST_ROWS = 5000
"""Rows of each side that Evidently draws."""

_NAMED = 20
_DESCRIBED = 3
"""Columns named in the night's sentence, and those of them that are named with numbers."""
_OTHER = "(other)"
_BODY = re.compile(rb"<body[^>]*>")


@dataclass(frozen=True)
class Page:
    """What is kept of a night for people."""

    html: bytes
    json: bytes


def draw_page(spec: ModelSpec, rows: Samples, drift: Drift, summary: str) -> Page | None:
    """Draw the page of a night; None if nothing could be compared."""
    compared = {n: f for n, f in [*drift.columns.items(), (SCORE, drift.prediction)] if f["value"] is not None}
    if not compared:
        return None
    ranked = ranking(drift, rows.weights)
    drawn = [n for n in [SCORE, *ranked] if n in compared][:MOST_COLUMNS]
    plots, numbers = _evidently(spec, rows, {n: compared[n] for n in drawn})
    table = _table(drift, ranked, rows.weights, summary)
    opened = _BODY.search(plots)
    place = opened.end() if opened else 0
    found = {"columns": drift.columns, "prediction": drift.prediction, "evidently": json.loads(numbers)}
    return Page(plots[:place] + table + plots[place:], json.dumps(found, default=float).encode())


def ranking(drift: Drift, weights: Mapping[str, float] | None) -> list[str]:
    """Return the features, those first that drifted, by how far beyond their threshold; then by weight."""

    def rank(name: str) -> tuple[bool, float, float]:
        found = drift.columns[name]
        beyond = found["value"] / found["threshold"] if found["value"] is not None else float("inf")
        return (not found["drifted"], -beyond if found["drifted"] else 0.0, -(weights or {}).get(name, 0.0))

    return sorted(drift.columns, key=rank)


def drift_sentence(version: str, drift: Drift, weights: Mapping[str, float] | None) -> str:
    """Say in a sentence what inputs and predictions tell; every drifted column is named, up to a bound."""
    if drift.broken:
        return f"the data is broken, so drift is not judged: {_listed([b.sentence for b in drift.broken])}"
    judged = [f for f in drift.columns.values() if f["value"] is not None or f["drifted"]]
    if not judged:
        why = next((str(f["why"]) for f in drift.columns.values() if "why" in f), "no reference")
        return f"drift was not judged ({why})"
    moved = [name for name in ranking(drift, weights) if drift.columns[name]["drifted"]]
    if not moved:
        also = ", though its predictions moved" if drift.prediction["drifted"] else ""
        return f"no drift (no feature drifted{also})"
    described = [_described(n, drift.columns[n]) for n in moved[:_DESCRIBED]] + moved[_DESCRIBED:]
    weight = "" if drift.weight is None else f", {drift.weight:.0%} of what it makes of its inputs"
    also = ", and its predictions moved" if drift.prediction["drifted"] else ""
    found = f"{len(moved)} of {len(judged)} features drifted from version {version}'s reference{weight}{also}"
    return f"{'' if drift.drifted else 'no drift that matters: '}{found}: {_listed(described)}"


def _listed(things: list[str]) -> str:
    more = len(things) - _NAMED
    return ", ".join(things[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _described(name: str, found: Mapping[str, Any]) -> str:
    if found["value"] is None or found["value"] < found["threshold"]:
        return f"{name} ({found.get('why', 'missing values')})"
    return f"{name} ({found['method']} {found['value']:.2f}, threshold {found['threshold']:.2g})"


def _table(drift: Drift, ranked: list[str], weights: Mapping[str, float] | None, summary: str) -> bytes:
    """Return the summary and a table of all columns as HTML."""
    lines = []
    for name in [SCORE, *ranked]:
        found = drift.prediction if name == SCORE else drift.columns[name]
        weight = (weights or {}).get(name)
        cells = (
            name,
            "drifted" if found["drifted"] else "",
            found["method"] or "",
            _short(found["value"]),
            _short(found["threshold"]),
            "" if weight is None else f"{weight:.1%}",
            found.get("why", ""),
        )
        lines.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    heads = ("column", "", "method", "distance", "threshold", "share of the model", "note")
    head = "".join(f"<th style='text-align:left;padding-right:1em'>{h}</th>" for h in heads)
    return (
        f"<section style='font-family:sans-serif;margin:1em'><h1>Drift</h1><p>{html.escape(summary)}</p>"
        f"<table><tr>{head}</tr>{''.join(lines)}</table></section>"
    ).encode()


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _evidently(spec: ModelSpec, rows: Samples, found: Mapping[str, Mapping[str, Any]]) -> tuple[bytes, str]:
    """Let Evidently draw some columns; return its page and its numbers."""
    os.environ.setdefault("DO_NOT_TRACK", "1")  # read at import: no telemetry
    os.environ.setdefault("ITERATIVE_DO_NOT_TRACK", "1")
    sides = [side[list(found)] for side in (rows.current, rows.reference)]
    sides = [side.sample(min(MOST_ROWS, len(side)), random_state=0) for side in sides]
    pairs = {}
    for name in found:
        pair = pair_of(spec.monitoring, *(s[name] for s in sides), categorical=name in spec.training.categorical)
        if pair is not None and len(pair.current) and len(pair.reference):
            pairs[name] = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations, and correlations of constant columns
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        kinds = {kind: [name for name, p in pairs.items() if p.kind == kind] for kind in ("numeric", "categorical")}
        definition = DataDefinition(
            numerical_columns=kinds["numeric"] or None, categorical_columns=kinds["categorical"] or None
        )
        frames = [pd.DataFrame({n: _drawn(p)[at] for n, p in pairs.items()}) for at in (0, 1)]
        sets = [Dataset.from_pandas(frame, data_definition=definition) for frame in frames]
        metrics = [ValueDrift(column=n, method=p.method, threshold=found[n]["threshold"]) for n, p in pairs.items()]
        snapshot = Report(metrics, include_tests=True).run(*sets)
        return snapshot.get_html_str(as_iframe=False).encode(), snapshot.json()


def _drawn(pair: Pair) -> tuple[pd.Series, pd.Series]:
    """Return both sides as they are drawn: of categories those that are told apart, all others as one."""
    if pair.kind == "numeric":
        return pair.current, pair.reference
    frequent = cells_of(pair.method, pair.reference, pair.current, numeric=False, cells=0).categories
    now, then = (side.map(label_of).astype(object) for side in (pair.current, pair.reference))
    return now.where(now.isin([*frequent]), _OTHER), then.where(then.isin([*frequent]), _OTHER)
