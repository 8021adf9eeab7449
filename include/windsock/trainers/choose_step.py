"""The ``choose`` step: judge the candidates of a run and keep the best as the run's model.

Options: ``run``, the run folder's name. What is chosen by its folds is then measured on
the holdout, which no trainer has seen, in the same way whoever trained it.
"""

import gzip
import hashlib
import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windsock.dataset.csv_export import csv_columns, csv_table
from windsock.errors import DataContractError
from windsock.runs.contract import CANDIDATES, NATIVE_SCORES, TrainerRequest, read_candidate, request_url
from windsock.runs.run_folder import (
    CLUSTER,
    HOLDOUT,
    HOLDOUT_SCORES,
    METRICS,
    MODEL,
    REFERENCE,
    REQUEST,
    TRAIN,
    RunFolder,
)
from windsock.served.attribution import attribution
from windsock.served.first_load import load_untrusted
from windsock.served.metrics import KNOWN_POSITIVE, SCORE, TIME, codes_of, evaluate
from windsock.served.model import Floats, Model, load, usable_scores
from windsock.served.resampling import entity_column
from windsock.spec import ModelSpec
from windsock.spec.modelling import LOWER_IS_BETTER
from windsock.steps import StepContext
from windsock.store import Store, to_json
from windsock.trainers.chosen_window import note_window, of_window
from windsock.trainers.learn import spec_of

log = logging.getLogger(__name__)

TOLERANCE = 1e-6
"""Largest difference of a score from that of the trainer's own library, in shares of the score where it is above 1."""
_MOST_ROWS = 1000
_MOST_BYTES = 1 << 20
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
    if folder.exists(METRICS):
        log.info("%s: run %s is complete already, and stays as it is", ctx.spec.name, folder.run)
        return _reported(folder, folder.read_json(METRICS))
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
    best = candidates[name]
    train_set = of_window(train_set, request["train_days"], best.get("window_days"))
    log.info("%s: %s: %s", spec.name, name, compare_native_scores(candidate, spec.events.key, model, train_set))
    judged = evaluate_model(spec, list(request["features"]), model, train_set, holdout)
    if (twin := folder.judged).run != folder.run:
        judged = judged_by_twin(judged, twin)
    kept = dict(model.content)
    for file in folder.files(MODEL):  # of another format, if the run was chosen from before
        if file not in kept:
            folder.fs.rm(folder.path(MODEL, file))
    for file, data in kept.items():
        folder.write_bytes(data, MODEL, file)
    folder.write_table(judged.holdout_scores, HOLDOUT_SCORES)
    folder.write_table(judged.reference, REFERENCE)
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
    if best.get("window"):
        note_window(folder, request["train_days"], best["window"])
    folder.write_json(metrics, METRICS)  # last: the commit point
    for n in candidates:
        TrainerRequest.read(request_url(folder, n)).checkpoints.clear()
    return _reported(folder, metrics)


def _reported(folder: RunFolder, metrics: Mapping[str, Any]) -> dict[str, Any]:
    parts = {part: metrics[part] for part in ("metrics", "chosen", "model_sha256")}
    return {"run": folder.run, "estimator": metrics["chosen"]["estimator"], **parts}


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
    train_scores = usable_scores(model, spec.label.task, train_set, f"training rows of {spec.name}")
    scores = usable_scores(model, spec.label.task, holdout, f"held-out rows of {spec.name}")
    judged = evaluate(spec, holdout, scores)
    positives = int(np.sum(train_set.column(spec.label.column).to_numpy()))
    metrics = {
        "task": spec.label.task,
        "metric": spec.training.metric,
        "metrics": judged["metrics"],
        "holdout": {k: v for k, v in judged.items() if k not in ("metrics", "per_day")} | judged["metrics"],
        "per_day": judged["per_day"],
        "train": {"rows": train_set.num_rows, "positives": positives if spec.label.task == "binary" else None},
        "attribution": attribution(model, holdout, np.random.default_rng(spec.training.seed)),
    }
    log.info(
        "%s: holdout %s", spec.name, ", ".join(f"{k} {v:.4g}" for k, v in judged["metrics"].items() if v is not None)
    )
    wanted = [spec.events.key, TIME, spec.training.evaluation.alert_entity, spec.label.column, KNOWN_POSITIVE]
    columns = [c for c in dict.fromkeys(wanted) if c is not None and c in holdout.column_names]
    scored = holdout.select(columns).append_column(SCORE, pa.array(scores))
    return Evaluation(metrics, scored, _reference(spec, names, (train_set, train_scores), (holdout, scores)))


def judged_by_twin(own: Evaluation, twin: RunFolder) -> Evaluation:
    """Return the evaluation of a refit: it learnt from the held-out rows, so what its judged twin reached counts.

    Its own scores of these rows stay: they tell whether it is loaded right, and how far it is from its twin.
    """
    then = twin.read_json(METRICS)
    metrics = {**own.metrics, **{part: then[part] for part in ("metrics", "holdout", "per_day")}}
    return Evaluation(metrics, own.holdout_scores, twin.read_table(REFERENCE))


def best_of(metric: str, candidates: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Choose between candidates by what they reached on the folds; return a name, and a sentence that says why.

    The holdout has no say in it: what is chosen by a number is not judged by that number.
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


def compare_native_scores(candidate: Store, key: str, model: Model, rows: pa.Table) -> str:
    """Compare Windsock's scores of training rows with those of the trainer's library; say in a sentence how it went.

    A model that was converted may differ from what was trained: trees that compare in another precision, categories
    that a converter left out. A trainer that wants to be sure leaves ``check.csv.gz``: the scores of up to a thousand
    training rows, as its own library gave them, by key, by the rules of :mod:`windsock.dataset.csv_export`.

    Raises:
        DataContractError: The file cannot be read, names other rows, or a score differs.
    """
    where = candidate.url(NATIVE_SCORES)
    if not candidate.exists(NATIVE_SCORES):
        return f"no {NATIVE_SCORES}: its scores are not compared with those of the trainer's own library"
    columns = {key: csv_columns(rows.select([key]))[key], "score": "double"}
    try:
        given = csv_table(_bounded(candidate.read_bytes(NATIVE_SCORES)), columns).select([key, "score"])
        wanted = given.column(key).cast(rows.column(key).type)
    except (OSError, EOFError, zlib.error, pa.ArrowException, KeyError, ValueError) as err:
        raise DataContractError(
            f"{where}: cannot be read: {type(err).__name__}: {str(err)[:200]}. Write gzip CSV with the columns {key} "
            f"and score, at most {_MOST_ROWS} training rows."
        ) from err
    places = pc.index_in(wanted, value_set=rows.column(key).combine_chunks())
    native = given.column("score").to_numpy()
    if not 0 < len(native) <= _MOST_ROWS or places.null_count or not np.isfinite(native).all():
        raise DataContractError(
            f"{where}: holds {len(native)} rows, {places.null_count} of them with a {key} that is not among the "
            f"training rows. Write a finite score for each of 1 to {_MOST_ROWS} training rows."
        )
    own = np.asarray(model.predict(rows.take(places)), dtype=np.float64)
    off = np.abs(own - native) / np.maximum(1.0, np.abs(native))
    wrong = ~(off <= TOLERANCE)
    if wrong.any():
        worst = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
        raise DataContractError(
            f"{where}: Windsock scores {int(wrong.sum())} of {len(native)} rows differently than the trainer's own "
            f"library: {key} {wanted[worst]} gets {own[worst]:.9g} instead of {native[worst]:.9g} (at most "
            f"{TOLERANCE:g} apart is exact). The model did not convert as it was trained: trees want a float32 graph, "
            "categories their place in the card's list, and some kinds do not convert at all (docs/trainer.md, 'ONNX')."
        )
    return f"{len(native)} rows score within {TOLERANCE:g} of the trainer's own library"


def _bounded(data: bytes) -> bytes:
    """Return gzip bytes once they are known to unpack to little."""
    unpacked = zlib.decompressobj(31).decompress(data, _MOST_BYTES + 1)
    if len(data) > _MOST_BYTES or len(unpacked) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES >> 20} MiB")
    return gzip.compress(unpacked, 1)


def _reference(spec: ModelSpec, names: Sequence[str], *parts: tuple[pa.Table, Floats]) -> pa.Table:
    """Sample rows evenly at random, but always the same ones, kept in their order."""
    unit = entity_column(spec, parts[0][0].column_names)
    sampled, units = [], []
    for part, (frame, scores) in zip(("train", "holdout"), parts, strict=True):
        random = np.random.default_rng(spec.training.seed).permutation(frame.num_rows)
        rows = np.sort(random[: _REFERENCE_ROWS // 2])
        sample = frame.select([TIME, *names]).take(pa.array(rows)).append_column(SCORE, pa.array(scores[rows]))
        sampled.append(sample.append_column("part", pa.array([part] * len(rows), pa.string())))
        if unit is not None:
            units.append(frame.select([unit]).take(pa.array(rows)))
    reference = pa.concat_tables(sampled).combine_chunks()
    if unit is None:
        return reference
    return reference.append_column(CLUSTER, pa.array(codes_of(pa.concat_tables(units), unit), pa.int32()))


def candidate_summary(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's ``metrics.json`` repeats of its candidate's own report."""
    return {
        "chosen": {name: candidate.get(name) for name in ("trial", "params", "rounds", "note")}
        | {name: candidate[name] for name in ("window_days",) if name in candidate},
        **({"window": candidate["window"]} if "window" in candidate else {}),
        "trials": candidate.get("trials") or [],
        "folds": candidate.get("folds") or [],
        "importance": candidate.get("importance"),
    }
