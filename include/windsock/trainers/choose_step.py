"""The ``choose`` step: judge the candidates of a run and keep the best as the run's model.

Options: ``run``, the run folder's name. What is chosen by its folds is then measured on
the holdout, which no trainer has seen.
"""

import hashlib
import logging
from typing import Any

from windsock.runs.contract import TrainerRequest, candidate_parts, read_candidate, request_url
from windsock.runs.run_folder import (
    HOLDOUT,
    HOLDOUT_SCORES,
    METRICS,
    MODEL,
    REFERENCE,
    REQUEST,
    TRAIN,
    RunFolder,
)
from windsock.served.first_load import load_untrusted
from windsock.served.model import load
from windsock.steps import StepContext
from windsock.store import Store, to_json
from windsock.trainers.evaluation import best_of, candidate_summary, evaluate_model
from windsock.trainers.learn import spec_of
from windsock.trainers.native_scores import compare_native_scores

log = logging.getLogger(__name__)


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
    candidate = Store(folder.store.url(*folder.parts(*candidate_parts(name))))
    source = candidate.url(MODEL)
    # Windsock's own trainers in its own image are known; what anybody else wrote is tried in a child first.
    model = load(source) if estimator.kind != "custom" and not estimator.compute.image else load_untrusted(source)
    files = request["files"]
    train_set, holdout = (folder.read_table(table, files[table]) for table in (TRAIN, HOLDOUT))
    log.info("%s: %s: %s", spec.name, name, compare_native_scores(candidate, spec.events.key, model, train_set))
    judged = evaluate_model(spec, list(request["features"]), model, train_set, holdout)
    kept = model.files()
    _remove_other_files(folder, set(kept))
    folder.write_files(kept, MODEL)
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
        "model_sha256": model_sha256(kept),
        "trainer": best.get("trainer"),
    }
    folder.write_json(metrics, METRICS)  # last: the commit point
    for n in candidates:
        TrainerRequest.read(request_url(folder, n)).checkpoints.clear()
    return {
        "run": folder.run,
        "estimator": name,
        "metrics": metrics["metrics"],
        "chosen": metrics["chosen"],
        "model_sha256": metrics["model_sha256"],
    }


def model_sha256(files: dict[str, bytes]) -> str:
    """Return one hash over a model folder's files."""
    return hashlib.sha256(b"".join(name.encode() + b"\0" + files[name] for name in sorted(files))).hexdigest()


def _remove_other_files(folder: RunFolder, names: set[str]) -> None:
    """A run that was chosen from before may hold a model of another format."""
    if folder.exists(MODEL):
        for path in folder.store.fs.ls(folder.store.path(*folder.parts(MODEL)), detail=False):
            if str(path).rsplit("/", 1)[-1] not in names:
                folder.store.fs.rm(path)
