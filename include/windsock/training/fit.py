"""The trainer: a training set and a request in, a judged model out.

It needs neither Airflow nor Feast nor the store, so the same code runs in a task, in a
pod and in a notebook. Equal inputs and seed give an equal model text, byte for byte.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from windsock.errors import DataContractError, SpecError
from windsock.spec import ModelSpec
from windsock.training.booster import Rows, train
from windsock.training.folds import time_folds
from windsock.training.matrix import learn_features, to_matrix
from windsock.training.metrics import KNOWN_POSITIVE, SCORE, TIME, evaluate
from windsock.training.model import Model, from_booster
from windsock.training.search import choose

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

REFERENCE_ROWS = 20_000
"""Rows kept of each part for monitoring, at most half of them from the holdout."""


@dataclass(frozen=True)
class Fitted:
    """What a training gives."""

    model: Model
    metrics: dict[str, Any]
    """Content of ``metrics.json``."""
    holdout_scores: pa.Table
    """Key, time, label, ``known_positive``, alert entity and score of every held-out row."""
    reference: pa.Table
    """Sample of rows with features, ``score`` and ``part`` (train or holdout), for monitoring."""


def spec_of(request: Mapping[str, Any]) -> ModelSpec:
    """Return the spec that a request (or a lineage) carries.

    JSON files keep their keys sorted, but the order of row features is the order of model
    inputs; the list ``features`` brings it back.

    Raises:
        SpecError: The request was made for another version of the spec's rules.
    """
    from pydantic import ValidationError

    try:
        raw = copy.deepcopy(request["spec"])
        row, order = raw["features"]["row"], list(request["features"])
        raw["features"]["row"] = {name: row[name] for name in sorted(row, key=order.index)}
        return ModelSpec.model_validate(raw)
    except (ValidationError, KeyError, ValueError) as err:
        raise SpecError(
            f"The training request carries no spec that this version of Windsock understands: {err}. "
            "Assemble the training set again."
        ) from err


def fit(request: Mapping[str, Any], train_set: pa.Table, holdout: pa.Table) -> Fitted:
    """Search, train on the whole window, judge on the holdout.

    Args:
        request: Content of ``request.json``: ``spec``, ``features`` (names in model order),
            ``train_days`` and ``gap_days``.
        train_set: Rows of the window: key, ``event_timestamp``, features, label.
        holdout: Held-out rows with the same columns.

    Raises:
        DataContractError: The training set is empty or has one class only.
        SpecError: A parameter or a feature type does not fit.
    """
    spec = spec_of(request)
    names = list(request["features"])
    _learnable(spec, train_set)
    features = learn_features(train_set, names, spec.training.categorical)
    rows = _rows(spec, train_set, to_matrix(train_set, features))
    days = [date.fromisoformat(d) for d in request["train_days"]]
    folds = time_folds(days, folds=spec.training.folds, gap_days=int(request["gap_days"]))
    chosen = choose(spec, features, rows, folds)
    log.info("%s: training on %d rows, %d rounds, trial %d", spec.name, len(rows.y), chosen.rounds, chosen.chosen + 1)
    booster, _ = train(spec, features, chosen.params, rows, chosen.rounds)
    model = from_booster(booster, spec.label.task, features)
    train_scores, scores = model.predict(train_set), model.predict(holdout)
    judged = evaluate(spec, holdout, scores)
    metrics = {
        "task": spec.label.task,
        "metric": spec.training.metric,
        "metrics": judged["metrics"],
        "holdout": {k: v for k, v in judged.items() if k not in ("metrics", "per_day")} | judged["metrics"],
        "per_day": judged["per_day"],
        "train": {"rows": len(rows.y), "positives": int(rows.y.sum()) if spec.label.task == "binary" else None},
        "chosen": {"trial": chosen.chosen, "params": chosen.params, "rounds": chosen.rounds, "note": chosen.note},
        "trials": [t.to_json() for t in chosen.trials],
        "folds": [
            {"learn": [f.learn[0].isoformat(), f.learn[-1].isoformat()],
             "judge": [f.judge[0].isoformat(), f.judge[-1].isoformat()], "gap_days": f.gap_days}
            for f in chosen.folds
        ],
        "importance": _importance(booster, names),
    }  # fmt: skip
    log.info(
        "%s: holdout %s", spec.name, ", ".join(f"{k} {v:.4g}" for k, v in judged["metrics"].items() if v is not None)
    )
    return Fitted(
        model,
        metrics,
        _scored(spec, holdout, scores),
        _reference(spec, names, (train_set, train_scores), (holdout, scores)),
    )


def _learnable(spec: ModelSpec, train_set: pa.Table) -> None:
    if train_set.num_rows == 0:
        raise DataContractError(f"{spec.name}: the training set is empty. Assemble it from days that have labels.")
    if spec.label.task == "binary":
        values = sorted(set(train_set.column(spec.label.column).unique().to_pylist()), key=str)
        if values != [0, 1]:
            raise DataContractError(
                f"{spec.name}: the labels {spec.label.column} of the {train_set.num_rows} training rows hold "
                f"{', '.join(map(str, values))}; a binary model needs rows of both classes, 0 and 1. "
                "Lengthen training.window_days, or check that the labels arrive."
            )


def _rows(spec: ModelSpec, frame: pa.Table, x: npt.NDArray[np.float64]) -> Rows:
    import pyarrow.compute as pc

    evaluation = spec.training.evaluation

    def codes(column: str | None) -> npt.NDArray[Any] | None:
        if column is None or spec.label.task != "binary":
            return None
        encoded = frame.column(column).combine_chunks().dictionary_encode(null_encoding="encode")
        return encoded.indices.to_numpy()  # type: ignore[no-any-return]

    return Rows(
        x,
        frame.column(spec.label.column).to_numpy().astype(np.float64),
        pc.strftime(frame.column(TIME), "%Y-%m-%d").to_numpy(zero_copy_only=False).astype("U10"),
        codes(evaluation.alert_entity),
        codes(evaluation.exclude_known_positives),
    )


def _importance(booster: Any, names: list[str]) -> dict[str, float]:
    """Return each feature's share of the total gain."""
    gain = booster.feature_importance("gain")
    total = float(gain.sum())
    return {name: round(float(g) / total, 6) if total > 0 else 0.0 for name, g in zip(names, gain, strict=True)}


def _scored(spec: ModelSpec, holdout: pa.Table, scores: npt.NDArray[np.float64]) -> pa.Table:
    import pyarrow as pa

    evaluation = spec.training.evaluation
    wanted = [spec.events.key, TIME, evaluation.alert_entity, spec.label.column, KNOWN_POSITIVE]
    columns = [c for c in dict.fromkeys(wanted) if c is not None and c in holdout.column_names]
    return holdout.select(columns).append_column(SCORE, pa.array(scores))


def _reference(spec: ModelSpec, names: list[str], *parts: tuple[pa.Table, npt.NDArray[np.float64]]) -> pa.Table:
    """Sample rows evenly at random, but always the same ones, kept in their order."""
    import pyarrow as pa

    sampled = []
    for part, (frame, scores) in zip(("train", "holdout"), parts, strict=True):
        random = np.random.default_rng(spec.training.seed).permutation(frame.num_rows)
        rows = np.sort(random[: REFERENCE_ROWS // 2])
        sample = frame.select([TIME, *names]).take(pa.array(rows)).append_column(SCORE, pa.array(scores[rows]))
        sampled.append(sample.append_column("part", pa.array([part] * len(rows), pa.string())))
    return pa.concat_tables(sampled).combine_chunks()
