"""Windsock's own evaluation of a candidate, whoever trained it: scores and metrics on the holdout."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from windsock.errors import DataContractError
from windsock.served.metrics import KNOWN_POSITIVE, SCORE, TIME, evaluate
from windsock.served.model import Model
from windsock.spec import ModelSpec
from windsock.spec.modelling import LOWER_IS_BETTER

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

REFERENCE_ROWS = 20_000
"""Rows kept of each part for monitoring, at most half of them from the holdout."""


@dataclass(frozen=True)
class Evaluation:
    """A model held against the rows it was trained on and the holdout."""

    metrics: dict[str, Any]
    """The part of ``metrics.json`` that does not depend on who trained the model."""
    holdout_scores: pa.Table
    """Key, time, label, ``known_positive``, alert entity and score of every held-out row."""
    reference: pa.Table
    """Sample of rows with features, ``score`` and ``part`` (train or holdout), for monitoring."""


def evaluate_model(
    spec: ModelSpec, names: Sequence[str], model: Model, train_set: pa.Table, holdout: pa.Table
) -> Evaluation:
    """Score the training rows and the holdout, and measure the latter.

    Raises:
        DataContractError: The model wants other features, or its scores are no scores.
    """
    unknown = sorted(set(model.feature_names) - set(names))
    if unknown:
        raise DataContractError(
            f"{spec.name}: the candidate's model.json asks for the feature {unknown[0]!r}, which the request does not "
            f"list. It may use: {', '.join(names)}."
        )
    train_scores, scores = (_scores(spec, model, rows) for rows in (train_set, holdout))
    judged = evaluate(spec, holdout, scores)
    positives = int(np.sum(train_set.column(spec.label.column).to_numpy()))
    metrics = {
        "task": spec.label.task,
        "metric": spec.training.metric,
        "metrics": judged["metrics"],
        "holdout": {k: v for k, v in judged.items() if k not in ("metrics", "per_day")} | judged["metrics"],
        "per_day": judged["per_day"],
        "train": {"rows": train_set.num_rows, "positives": positives if spec.label.task == "binary" else None},
    }
    log.info(
        "%s: holdout %s", spec.name, ", ".join(f"{k} {v:.4g}" for k, v in judged["metrics"].items() if v is not None)
    )
    return Evaluation(
        metrics, _scored(spec, holdout, scores), _reference(spec, names, (train_set, train_scores), (holdout, scores))
    )


def best_of(metric: str, candidates: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Choose between candidates by what they reached on the folds of the training window.

    The holdout has no say in it: what is chosen by a number is not judged by that number.

    Args:
        metric: The spec's metric.
        candidates: Estimator name to the candidate's ``metrics.json``, in the spec's order.

    Returns:
        The chosen name, and a sentence that says why.
    """
    names = list(candidates)
    if len(names) == 1:
        return names[0], ""
    scores = {
        name: float(selection["score"])
        for name, content in candidates.items()
        if (selection := content.get("selection")) and selection.get("score") is not None
        and selection.get("metric") == metric
    }  # fmt: skip
    silent = [name for name in names if name not in scores]
    left_out = f"; {', '.join(silent)} reported no {metric} on folds and could not be compared" if silent else ""
    if not scores:
        return names[0], f"no candidate reported {metric} on folds, so the first of the spec was taken"
    best = (min if metric in LOWER_IS_BETTER else max)(scores, key=lambda name: scores[name])  # of equals, the first
    reached = ", ".join(f"{name} {score:.4g}" for name, score in scores.items())
    return best, f"{metric} on the folds: {reached}{left_out}"


def unusable(task: str, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Mark what is no score: a probability from 0 to 1 (binary) or a finite number; shape ``(rows,)`` both."""
    wrong = ~np.isfinite(scores)
    if task == "binary":
        wrong |= (scores < 0) | (scores > 1)
    return wrong


def _scores(spec: ModelSpec, model: Model, rows: pa.Table) -> npt.NDArray[np.float64]:
    scores = np.asarray(model.predict(rows), dtype=np.float64)
    wrong = unusable(spec.label.task, scores)
    if scores.shape != (rows.num_rows,) or wrong.any():
        count, example = int(wrong.sum()), scores[wrong][:1].tolist()
        raise DataContractError(
            f"{spec.name}: the candidate gives {count} of {rows.num_rows} rows no usable score (such as {example}); "
            f"{'a probability from 0 to 1' if spec.label.task == 'binary' else 'a finite number'} is wanted for each. "
            "Look at its model file and at the trainer's log."
        )
    return scores


def _scored(spec: ModelSpec, holdout: pa.Table, scores: npt.NDArray[np.float64]) -> pa.Table:
    import pyarrow as pa

    evaluation = spec.training.evaluation
    wanted = [spec.events.key, TIME, evaluation.alert_entity, spec.label.column, KNOWN_POSITIVE]
    columns = [c for c in dict.fromkeys(wanted) if c is not None and c in holdout.column_names]
    return holdout.select(columns).append_column(SCORE, pa.array(scores))


def _reference(spec: ModelSpec, names: Sequence[str], *parts: tuple[pa.Table, npt.NDArray[np.float64]]) -> pa.Table:
    """Sample rows evenly at random, but always the same ones, kept in their order."""
    import pyarrow as pa

    sampled = []
    for part, (frame, scores) in zip(("train", "holdout"), parts, strict=True):
        random = np.random.default_rng(spec.training.seed).permutation(frame.num_rows)
        rows = np.sort(random[: REFERENCE_ROWS // 2])
        sample = frame.select([TIME, *names]).take(pa.array(rows)).append_column(SCORE, pa.array(scores[rows]))
        sampled.append(sample.append_column("part", pa.array([part] * len(rows), pa.string())))
    return pa.concat_tables(sampled).combine_chunks()


def candidate_summary(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's ``metrics.json`` repeats of its candidate's own report."""
    return {
        "chosen": {name: candidate.get(name) for name in ("trial", "params", "rounds", "note")},
        "trials": candidate.get("trials") or [],
        "folds": candidate.get("folds") or [],
        "importance": candidate.get("importance"),
    }
