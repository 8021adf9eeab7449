"""The ``fit`` step: train and judge what ``assemble`` prepared.

Options: ``run``, the run folder's name. A finished run is not trained again: the same
request gives the same model.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from windsock.steps import StepContext
from windsock.store import to_json
from windsock.training.lineage import libraries
from windsock.training.run_folder import (
    HOLDOUT,
    HOLDOUT_SCORES,
    METRICS,
    MODEL,
    REFERENCE,
    REQUEST,
    TRAIN,
    RunFolder,
)

log = logging.getLogger(__name__)


def run(ctx: StepContext) -> dict[str, Any]:
    """Train the model of a run folder.

    Returns:
        ``run``, ``metrics`` on the holdout, ``chosen`` trial and ``model_sha256``.

    Raises:
        SpecError: The run folder is incomplete, or LightGBM refuses a parameter.
        DataContractError: The training set cannot be learnt from.
    """
    from windsock.training.fit import fit

    folder = RunFolder.named(ctx.store, ctx.spec.name, ctx.options.get("run"))
    request = folder.read_json(REQUEST)
    request_hash = hashlib.sha256(to_json(request)).hexdigest()
    if folder.exists(METRICS):
        done = folder.read_json(METRICS)
        if done["request_sha256"] == request_hash and done["trainer"] == libraries():
            log.info("%s: run %s is trained already", ctx.spec.name, folder.run)
            return _result(folder, done)
    files = request["files"]
    fitted = fit(request, folder.read_table(TRAIN, files[TRAIN]), folder.read_table(HOLDOUT, files[HOLDOUT]))
    folder.write_files(fitted.model.files(), MODEL)
    folder.write_table(fitted.holdout_scores, HOLDOUT_SCORES)
    folder.write_table(fitted.reference, REFERENCE)
    metrics = {
        **fitted.metrics,
        "request_sha256": request_hash,
        "model_sha256": hashlib.sha256(fitted.model.text.encode()).hexdigest(),
        "trainer": libraries(),
    }
    folder.write_json(metrics, METRICS)  # last: the commit point
    return _result(folder, metrics)


def _result(folder: RunFolder, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": folder.run,
        "metrics": metrics["metrics"],
        "chosen": metrics["chosen"],
        "model_sha256": metrics["model_sha256"],
    }
