"""Drift of inputs and predictions, on the two samples of ``window``: what moved, by how much, and whether it matters.

A column has drifted if its distance from the reference is at least the spec's threshold (an effect, in the column's
own spread) *and* larger than chance makes it on the champion's own days (``chance``), with false discoveries held to
:data:`FALSE_DISCOVERIES` over all columns. What chance makes is measured only where a distance reaches the threshold.
A night has drifted if what drifted matters to the champion: by its own shares of what each input does to its scores
(``served.attribution``), by the share of columns, or by predictions that moved, too.

What is compared, by kind of column:

- numbers: by ``monitoring.numeric_method``; if the reference holds one value only, by the share of rows that differ;
- text, flags and what the spec calls categorical: by ``monitoring.categorical_method``, the reference's most frequent
  values apart and all others as one;
- what these do not show, skewed numbers and new values among many: also by ranks, and known against new ones
  (``second_look``), by the same thresholds;
- times: not compared (a later day always has later times; take parts such as the hour as features);
- missing values: their share, as a number of its own; infinite numbers count as missing;
- fewer than :data:`MIN_VALUES` values on one side: not judged, with the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from windsock.column_break import Break
from windsock.distance import Cells, Method, cells_of, is_constant, numbers_of
from windsock.monitoring.broken import find_breaks
from windsock.monitoring.chance import Chance, Past, chance_of
from windsock.monitoring.second_look import Look, look_at_new_values, look_at_ranks
from windsock.monitoring.window import History, Samples
from windsock.served.metrics import SCORE
from windsock.spec import ModelSpec
from windsock.spec.operations import MonitoringSpec

MIN_VALUES = 100
"""Fewer values on either side are not judged."""
MISSING_RISE = 0.1
"""Change in the share of missing values that counts as drift by itself, if the champion's own days never made it."""
FALSE_DISCOVERIES = 0.01
"""Expected share of columns called drifted that did not (Benjamini and Hochberg 1995)."""

_CELLS = 2000
"""Cells of the distance that is reported."""
_CHANCE_CELLS = 256
_DIGITS = 6
_PRESENCE = Cells("wasserstein", np.array([0.0, 1.0]), np.array([1.0]))
"""Missing or not, as a column of zeros and ones."""


@dataclass(frozen=True)
class Pair:
    """One column's values on both sides, missing ones taken out, and how they are compared."""

    kind: Literal["numeric", "categorical"]
    method: Method
    given: float
    """The spec's threshold."""
    current: pd.Series
    reference: pd.Series
    missing: tuple[float, float]
    """Share of missing values of the current and of the reference side."""


@dataclass(frozen=True)
class _Suspect:
    """A column whose distance is large enough to matter, and what chance makes of it."""

    cells: Cells
    distance: float
    chance: Chance
    why: str | None = None
    """What has changed, where it is not the distance that is reported."""

    @property
    def p_value(self) -> float:
        return self.chance.p_value(self.distance)


@dataclass(frozen=True)
class Drift:
    """What the comparison found."""

    columns: Mapping[str, Mapping[str, Any]]
    """Feature to method, value, threshold, drifted, missing shares and (if there is one) a reason."""
    prediction: Mapping[str, Any]
    """The same for the champion's scores."""
    share: float
    """Drifted features among those that were judged."""
    weight: float | None
    """What the drifted features are to the champion, from 0 to 1; None if that is not known."""
    drifted: bool
    judged: bool
    broken: Sequence[Break] = ()
    """What is wrong with the newest day's data; then nothing is concluded about the world."""
    examined: bool = False
    """Whether the newest day's data could be looked at."""


def find_drift(spec: ModelSpec, rows: Samples, rng: np.random.Generator) -> Drift:
    """Compare recent rows with the reference."""
    policy = spec.monitoring
    breaks = find_breaks(rows)
    findings: dict[str, dict[str, Any]] = {}
    suspects: dict[str, _Suspect] = {}
    for name in rows.current.columns:
        now = rows.current[name]
        if name in breaks.left_out:
            now = now[~breaks.left_out[name]]
        pair = pair_of(policy, now, rows.reference[name], categorical=name in spec.training.categorical)
        findings[name] = found = _prepared(rows, name, pair)
        if pair is None or name in rows.left_out:
            continue
        _compare_missing(found, now, rows, name, policy.window_days, rng)
        if min(len(pair.current), len(pair.reference)) >= MIN_VALUES:
            suspect = _compare(found, pair, rows, name, policy.window_days, rng)
            if suspect is not None:
                suspects[name] = suspect
    prediction = findings.pop(SCORE)
    inputs = [name for name in suspects if name != SCORE]
    worth_a_look = sum(found["value"] is not None for found in findings.values())
    if SCORE in suspects:
        _judge(prediction, suspects[SCORE], FALSE_DISCOVERIES)
    # Predictions that moved are one test, passed; which inputs they moved with is asked of each input by itself.
    limit = FALSE_DISCOVERIES
    if not prediction["drifted"]:
        limit = _discoveries([suspects[n].p_value for n in inputs], worth_a_look)
    for name in inputs:
        _judge(findings[name], suspects[name], limit)
    judged = {n: f for n, f in findings.items() if f["value"] is not None or f["drifted"]}
    moved = [name for name, found in judged.items() if found["drifted"]]
    share = len(moved) / len(judged) if judged else 0.0
    weight = None if rows.weights is None else sum(rows.weights.get(name, 0.0) for name in moved)
    matters = share >= policy.drifted_share or (weight or 0.0) >= policy.important_share or bool(prediction["drifted"])
    return Drift(
        findings,
        prediction,
        round(share, _DIGITS),
        rounded(weight),
        bool(moved) and matters and not breaks.newest,
        bool(judged) and not breaks.newest,
        breaks.newest,
        breaks.examined,
    )


def _prepared(rows: Samples, name: str, pair: Pair | None) -> dict[str, Any]:
    """Return what is known of a column before it is compared."""
    found: dict[str, Any] = {"method": None, "value": None, "threshold": None, "drifted": False}
    if pair is None:
        return found | {"why": "holds times, which are not compared"}
    found["missing"] = dict(zip(("current", "reference"), map(rounded, pair.missing), strict=True))
    if name in rows.left_out:
        return found | {"why": rows.left_out[name]}
    fewest = min(len(pair.current), len(pair.reference))
    if fewest < MIN_VALUES:
        side = "recent days" if len(pair.current) == fewest else "reference"
        found["why"] = f"too few rows: the {side} hold {fewest} values, at least {MIN_VALUES} are needed"
    return found


def _compare_missing(
    found: dict[str, Any], recent: pd.Series, rows: Samples, name: str, window_days: int, rng: np.random.Generator
) -> None:
    """Say whether a column's share of missing values has drifted."""
    now, then = found["missing"]["current"], found["missing"]["reference"]
    few = min(len(recent), len(rows.reference)) < MIN_VALUES
    # Rows of the window that another version scored have no score of this one: that is no drift.
    if name == SCORE or few or abs(now - then) <= MISSING_RISE:
        return
    gone = [side.isna().astype(float) for side in (recent, rows.reference[name])]
    counts = [_PRESENCE.counts(_PRESENCE.places(side))[0] for side in gone]
    past = _past(_PRESENCE, rows.history, name, of=lambda values: values.isna().astype(float))
    if chance_of(_PRESENCE, counts[0], counts[1], past, window_days, rng).p_value(abs(now - then)) <= FALSE_DISCOVERIES:
        found |= {"drifted": True, "why": f"missing values went from {then:.0%} to {now:.0%}"}


def _compare(
    found: dict[str, Any], pair: Pair, rows: Samples, name: str, window_days: int, rng: np.random.Generator
) -> _Suspect | None:
    """Measure a column's distance; if it is large enough to matter, return it with what chance makes here."""
    numeric = pair.kind == "numeric"
    cells = cells_of(pair.method, pair.reference, pair.current, numeric=numeric, cells=_CELLS)
    distance = float(cells.distance(*(cells.counts(cells.places(s))[0] for s in (pair.current, pair.reference))))
    value = cells.value(distance)
    found |= {"method": pair.method, "value": rounded(value), "threshold": rounded(pair.given)}
    other, second = None, _second_look(pair, rows, name)
    if second is not None and second.cells.value(second.distance) >= pair.given:
        chance = chance_of(second.cells, second.now, second.then, second.past, window_days, rng)
        other = _Suspect(second.cells, second.distance, chance, second.why)
        found["times"] = rounded(second.cells.value(second.distance) / pair.given)
    if value < pair.given:
        return other
    if numeric:
        cells = cells_of(pair.method, pair.reference, pair.current, numeric=numeric, cells=_CHANCE_CELLS)
    now, then = (cells.counts(cells.places(side))[0] for side in (pair.current, pair.reference))
    chance = chance_of(cells, now, then, _past(cells, rows.history, name), window_days, rng)
    suspect = _Suspect(cells, distance, chance)
    return other if other is not None and other.p_value < suspect.p_value else suspect


def _second_look(pair: Pair, rows: Samples, name: str) -> Look | None:
    """Compare a column in another way, if it is of a kind whose own distance does not show everything."""
    if rows.history is None or name == SCORE:
        return None
    if pair.kind == "categorical":
        return look_at_new_values(pair.method, pair.current, rows.history, name)
    if pair.method != "wasserstein":
        return None
    past_of = partial(_past, history=rows.history, name=name)
    return look_at_ranks(pair.current, pair.reference, past_of, _CHANCE_CELLS)


def _past(cells: Cells, history: History | None, name: str, of: Any = None) -> Past | None:
    """Return a column on the champion's own days; scores of rows that it learnt from are not those of other rows."""
    if history is None:
        return None
    at = history.learnt if name == SCORE and history.learnt.any() else np.ones(len(history.learnt), dtype=bool)
    values = history.frame.loc[at, name]
    cluster = None if history.cluster is None else history.cluster[at]
    places = cells.places(values if of is None else of(values))
    return Past(places, history.day[at], cluster, history.looks_back_days.get(name, 0))


def _discoveries(p_values: Sequence[float], columns: int) -> float:
    """Return the largest p-value that counts, so that few of those that count are chance (Benjamini, Hochberg)."""
    ranked = [(rank, p) for rank, p in enumerate(sorted(p_values), 1)]
    passed = [rank for rank, p in ranked if p <= FALSE_DISCOVERIES * rank / max(columns, 1)]
    return FALSE_DISCOVERIES * max(passed, default=1) / max(columns, 1)


def _judge(found: dict[str, Any], suspect: _Suspect, limit: float) -> None:
    """Say whether a distance is more than chance, and name the threshold that it was held against."""
    beyond = suspect.p_value <= limit
    found["drifted"] = bool(found["drifted"] or beyond)
    if suspect.why is not None:
        found |= {"why": suspect.why} if beyond else {}
        return
    reach, what = suspect.chance.limit(limit)
    raised = suspect.cells.value(reach)
    if raised > found["threshold"]:
        given = found["threshold"]
        why = f"threshold raised from {given:g} to {raised:.3g}: chance alone ({what}) makes that difference here"
        found["threshold"] = rounded(raised)
        found.setdefault("why", why)


def pair_of(policy: MonitoringSpec, current: pd.Series, reference: pd.Series, *, categorical: bool) -> Pair | None:
    """Prepare one column; None if it holds times. Text and booleans are categories whatever the spec says."""
    sides = [current, reference]
    known = [s for s in sides if s.notna().any()]
    if any(pd.api.types.is_datetime64_any_dtype(s) for s in known):
        return None
    numeric = all(pd.api.types.is_numeric_dtype(s) and not pd.api.types.is_bool_dtype(s) for s in known)
    if numeric:
        numbers = [numbers_of(s) for s in sides]
        gone = [np.isnan(side) for side in numbers]
        now, then = (
            pd.Series(side[~without], index=s.index[~without])
            for s, side, without in zip(sides, numbers, gone, strict=True)
        )
    else:
        gone = [s.isna().to_numpy() for s in sides]
        now, then = (s.dropna() for s in sides)
    missing = (_share(gone[0]), _share(gone[1]))
    if numeric and not categorical and not is_constant(numbers_of(then)):
        return Pair("numeric", policy.numeric_method, policy.numeric_threshold, now, then, missing)
    return Pair("categorical", policy.categorical_method, policy.categorical_threshold, now, then, missing)


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def rounded(value: float | None) -> float | None:
    """Return a number as records keep it; None of what is no finite number."""
    return None if value is None or not np.isfinite(value) else round(float(value), _DIGITS)
