"""The ``adopt`` step: the refit of a version that passed the gate becomes a version itself, if it is sane.

No row is left that could judge it, so it is held against its judged twin instead. Both have scored the rows of the
twin's holdout, from which the refit has learnt: it must have the same inputs and about the same size, rank what its
twin ranks highest above the rest, move few scores far, and not be worse there. One that is not so is kept as evidence
and registered as nothing; then the twin goes into force.

What was found lies in ``refit.json`` of the twin's run folder. Option: ``version``, the one that passed.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windsock.errors import DataContractError
from windsock.gate.compare import signed
from windsock.gate.context import Check
from windsock.promotion.refit_step import refit_folder, why_none
from windsock.registry import step as register
from windsock.runs.contract import read_candidate
from windsock.runs.run_folder import HOLDOUT, HOLDOUT_SCORES, METRICS, MODEL, REFIT, REQUEST, RunFolder
from windsock.served.metrics import SCORE, evaluate, measure
from windsock.served.model import load
from windsock.spec import ModelSpec
from windsock.steps import StepContext, required_version
from windsock.trainers import choose_step
from windsock.version_index import judged_twin, version_info

log = logging.getLogger(__name__)

MOST_TIMES_THE_SIZE = 4.0
TOP_SHARE, FEWEST_OF_TOP = 0.01, 20
LEAST_AGREEMENT = 0.75
"""Least probability that a row of the twin's highest scores gets a higher one than another row; by chance it is 0.5."""
FAR, MOST_MOVED = 0.25, 0.25
"""Largest share of rows whose score may move by more than a quarter of the range of the twin's."""

Vector = NDArray[np.float64]


def run(ctx: StepContext) -> dict[str, Any]:
    """Adopt a refit, or say why its twin goes into force.

    Returns:
        ``version`` to be promoted, ``judged`` (its twin), ``refit`` (whether it is one), ``checks`` and ``why``.

    Raises:
        DataContractError: The refit was not trained to its end.
        UpstreamUnavailable: MLflow cannot be reached.
    """
    settings, spec = ctx.settings, ctx.spec
    twin = judged_twin(settings, spec, version_info(settings, spec, required_version(ctx)))
    folder, judged = refit_folder(ctx, twin), RunFolder.named(ctx.store, spec.name, twin.run)
    if not folder.exists(REQUEST):
        why = why_none(spec, judged.read_json(METRICS)["chosen"]) or "the step 'refit' has not been run"
        return {
            "version": twin.version,
            "judged": twin.version,
            "refit": False,
            "checks": [],
            "why": f"No refit: {why}.",
        }
    read_candidate(folder, folder.read_json(REQUEST)["chosen"]["estimator"])
    checks = tuple(_checks(ctx, folder, judged))
    failed = [check.why for check in checks if not check.passed]
    version = twin.version
    if failed:
        reasons = " ".join(failed)
        why = f"The refit of version {twin.version} is not sane, so that version itself is put in force: {reasons}"
        log.warning("%s: %s", spec.name, why)
    else:
        version = register.run(replace(ctx, options={"run": folder.run}))["version"]
        why = f"Version {version} is the refit of version {twin.version}: {' '.join(check.why for check in checks)}"
        log.info("%s: %s", spec.name, why)
    found = {
        "version": version,
        "judged": twin.version,
        "refit": not failed,
        "checks": [check.to_json() for check in checks],
        "why": why,
    }
    judged.write_json({**found, "run": folder.run}, REFIT)
    return found


def _checks(ctx: StepContext, folder: RunFolder, judged: RunFolder) -> Iterator[Check]:
    """Hold a refit against its twin."""
    try:
        choose_step.run(replace(ctx, options={"run": folder.run}))
    except DataContractError as err:
        yield Check("usable", False, None, None, f"It cannot be used: {err}")
        return
    ours, theirs = (load(each.url(MODEL)).feature_names for each in (folder, judged))
    yield Check(
        "features", ours == theirs, len(ours), len(theirs), f"It takes {len(ours)} features, {len(theirs)} were judged."
    )
    sizes = [sum(len(each.read_bytes(MODEL, name)) for name in each.files(MODEL)) for each in (folder, judged)]
    times = max(sizes) / max(min(sizes), 1)
    why = f"Its files have {sizes[0]:,} bytes, those of its twin {sizes[1]:,}."
    yield Check("size", times <= MOST_TIMES_THE_SIZE, times, MOST_TIMES_THE_SIZE, why)
    now, then = (each.read_table(HOLDOUT_SCORES)[SCORE].to_numpy().astype(np.float64) for each in (folder, judged))
    agreement = agreement_on_top(now, then)
    why = f"It ranks what its twin ranks highest above the rest with probability {agreement:.3f}."
    yield Check("ranking", agreement >= LEAST_AGREEMENT, agreement, LEAST_AGREEMENT, why)
    moved = float(np.mean(np.abs(now - then) > FAR * max(float(np.ptp(then)), 1e-12)))
    why = f"{moved:.1%} of {len(now)} scores moved by more than a quarter of their range."
    yield Check("moved", moved <= MOST_MOVED, moved, MOST_MOVED, why)
    yield _not_worse(ctx.spec, judged, now)


def _not_worse(spec: ModelSpec, judged: RunFolder, scores: Vector) -> Check:
    """A model that has learnt from these rows and is worse on them has learnt nothing."""
    metric, margin = spec.training.metric, spec.gate.margin
    own = evaluate(spec, judged.read_table(HOLDOUT), scores)["metrics"].get(metric)
    twins = judged.read_json(METRICS)["metrics"].get(metric)
    if own is None or twins is None:
        return Check("not_worse", False, own, twins, f"{metric} on the shared rows cannot be computed.")
    why = f"{metric} on these rows, from which it has learnt, is {own:.4f}; {twins:.4f} was judged."
    return Check("not_worse", signed(metric) * (own - twins) >= -margin, own, twins, why)


def agreement_on_top(now: Vector, then: Vector) -> float:
    """Return how surely rows that scored highest then score above the others now; most ranks below are mere noise."""
    size = min(max(FEWEST_OF_TOP, round(TOP_SHARE * len(then))), len(then) - 1)
    top = np.zeros(len(then))
    top[np.argsort(-then, kind="stable")[:size]] = 1
    return float(measure("roc_auc", top, now) or 0.0)
