"""The ``choose`` step: judge the candidates of a run and keep the best as the run's model.

Options: ``run``, the run folder's name. What is chosen by its folds is then measured on
the holdout, which no trainer has seen, in the same way whoever trained it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from windsock.errors import DataContractError
from windsock.runs.contract import CANDIDATES, TrainerRequest, read_candidate, request_url
from windsock.runs.run_folder import HOLDOUT, HOLDOUT_SCORES, METRICS, MODEL, REFERENCE, REQUEST, TRAIN, RunFolder
from windsock.served.first_load import load_untrusted
from windsock.served.metrics import KNOWN_POSITIVE, SCORE, TIME, evaluate, unusable
from windsock.served.model import Floats, Model, load
from windsock.spec import ModelSpec
from windsock.spec.modelling import LOWER_IS_BETTER
from windsock.steps import StepContext
from windsock.store import Store, to_json
from windsock.trainers.learn import spec_of
from windsock.trainers.native_scores import compare_native_scores

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

_REFERENCE_ROWS = 20_000
"""Rows kept of each run for monitoring, half of them from the holdout if it has as many."""


def run(ctx: StepContext) -> dict[str, Any]:
    """Choose the run's model.

    Returns:
        ``run``, the ``estimator`` chosen, ``metrics`` on the holdout, ``chosen`` trial and ``model_sha256``.

    Raises:
        SpecError: The run folder is incomplete.
        DataContractError: A candidate is incomplete or cannot be used.
    """
    folder = RunFolder.named(ctx.store, ctx.spec.name, ctx.options.get("run"))
    request = folder.read_json(REQUEST)
    spec = spec_of(request)
    candidates = {e.name: read_candidate(folder, e.name) for e in spec.training.estimators}
    name, why = best_of(spec.training.metric, candidates)
    if why:
        log.info("%s: %s is chosen (%s)", spec.name, name, why)
    estimator = spec.training.estimator(name)
    candidate = Store(folder.url(CANDIDATES, name))
    source = candidate.url(MODEL)
    # Windsock's own trainers in its own image are known; what anybody else wrote is tried in a child first.
    model = load(source) if estimator.kind != "custom" and not estimator.compute.image else load_untrusted(source)
    files = request["files"]
    train_set, holdout = (folder.read_table(table, files[table]) for table in (TRAIN, HOLDOUT))
    log.info("%s: %s: %s", spec.name, name, compare_native_scores(candidate, spec.events.key, model, train_set))
    judged = evaluate_model(spec, list(request["features"]), model, train_set, holdout)
    kept = dict(model.content)
    _remove_other_files(folder, set(kept))
    for file, data in kept.items():
        folder.write_bytes(data, MODEL, file)
    folder.write_table(judged.holdout_scores, HOLDOUT_SCORES)
    folder.write_table(judged.reference, REFERENCE)
    best = candidates[name]
    content = candidate_summary(best)
    metrics = {
        **judged.metrics,
        **content,
        "chosen": {"estimator": name, "kind": estimator.kind, "why": why, **content["chosen"]},
        "candidates": {
            n: {k: c.get(k) for k in ("selection", "trial", "rounds", "device")} for n, c in candidates.items()
        },
        "request_sha256": hashlib.sha256(to_json(request)).hexdigest(),
        "model_sha256": hashlib.sha256(b"".join(n.encode() + b"\0" + kept[n] for n in sorted(kept))).hexdigest(),
        "trainer": best.get("trainer"),
    }
    folder.write_json(metrics, METRICS)  # last: the commit point
    for n in candidates:
        TrainerRequest.read(request_url(folder, n)).checkpoints.clear()
    reported = ("metrics", "chosen", "model_sha256")
    return {"run": folder.run, "estimator": name, **{part: metrics[part] for part in reported}}


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


def _scores(spec: ModelSpec, model: Model, rows: pa.Table) -> Floats:
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


def _scored(spec: ModelSpec, holdout: pa.Table, scores: Floats) -> pa.Table:
    import pyarrow as pa

    evaluation = spec.training.evaluation
    wanted = [spec.events.key, TIME, evaluation.alert_entity, spec.label.column, KNOWN_POSITIVE]
    columns = [c for c in dict.fromkeys(wanted) if c is not None and c in holdout.column_names]
    return holdout.select(columns).append_column(SCORE, pa.array(scores))


def _reference(spec: ModelSpec, names: Sequence[str], *parts: tuple[pa.Table, Floats]) -> pa.Table:
    """Sample rows evenly at random, but always the same ones, kept in their order."""
    import pyarrow as pa

    sampled = []
    for part, (frame, scores) in zip(("train", "holdout"), parts, strict=True):
        random = np.random.default_rng(spec.training.seed).permutation(frame.num_rows)
        rows = np.sort(random[: _REFERENCE_ROWS // 2])
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


def _remove_other_files(folder: RunFolder, names: set[str]) -> None:
    """A run that was chosen from before may hold a model of another format."""
    if folder.exists(MODEL):
        for path in folder.fs.ls(folder.path(MODEL), detail=False):
            if str(path).rsplit("/", 1)[-1] not in names:
                folder.fs.rm(path)
