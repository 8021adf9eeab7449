"""The ``refit`` step: what passed the gate is to be trained once more, by the same recipe up to the last matured day.

The challenger learnt from nothing after its window, so that it could be judged. Its refit learns from the last window
of all matured rows, gap and holdout included, by the parameters, rounds and seed that were chosen. It is a run folder
of its own (``<run>-refit``), made from what its judged twin pinned: nothing is waited for, and whoever makes it gets
the same rows. ``fit`` trains it as any candidate, and ``adopt`` looks whether it is sane.

Options: ``version``, the one that passed; ``champion_seen``, the champion that it was judged against.
"""

import logging
from collections.abc import Mapping
from typing import Any

from windsock.dataset.requests import code_commit, days_of, run_request, write_requests
from windsock.days import spans
from windsock.features.frozen import definitions_of
from windsock.format_numbers import written
from windsock.gate.step import passed_against
from windsock.runs.contract import libraries
from windsock.runs.run_folder import DEFINITIONS, HOLDOUT, LINEAGE, METRICS, REFIT_OF, REQUEST, TRAIN, RunFolder
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import StepContext, required_version
from windsock.trainers.again import assembled_again, spec_then, windows_then
from windsock.version_index import VersionInfo, judged_twin, version_info

log = logging.getLogger(__name__)


def run(ctx: StepContext) -> dict[str, Any]:
    """Prepare a refit.

    Returns:
        ``version`` (the judged twin), ``run`` (the refit's folder), ``estimator`` to be trained, and ``train_days``; or
        ``why`` there is none, with ``estimator`` empty.

    Raises:
        GateFailed: The version did not pass: a refused challenger costs no refit.
        SpecError: No version was named, or a pinned day is gone from the store.
    """
    settings, spec = ctx.settings, ctx.spec
    twin = judged_twin(settings, spec, version_info(settings, spec, required_version(ctx)))
    seen = ctx.options.get("champion_seen")
    passed_against(settings, spec, twin, str(seen) if seen not in (None, "") else None)
    folder, judged = refit_folder(ctx, twin), RunFolder.named(ctx.store, spec.name, twin.run)
    chosen = judged.read_json(METRICS)["chosen"]
    if why := why_none(spec, chosen):
        log.info("%s: version %s is not trained again: %s", spec.name, twin.version, why)
        return {"version": twin.version, "run": folder.run, "estimator": "", "why": why}
    if not folder.exists(REQUEST):
        _write(settings, twin, judged, chosen, folder, ctx.origin)
    lineage = folder.read_json(LINEAGE)
    log.info("%s: %s; rows: %s", spec.name, lineage["summary"], lineage["report"]["rows"])
    days = lineage["windows"]["train"]
    name = folder.read_json(REQUEST)["chosen"]["estimator"]
    return {"version": twin.version, "run": folder.run, "estimator": name, "train_days": [days[0], days[-1]]}


def refit_folder(ctx: StepContext, twin: VersionInfo) -> RunFolder:
    """Return the run folder of a version's refit: one, whoever asks for it."""
    return RunFolder.named(ctx.store, ctx.spec.name, f"{twin.run}-refit")


def why_none(spec: ModelSpec, chosen: Mapping[str, Any]) -> str:
    """Say why a judged version is not trained again; empty: it is."""
    names = [estimator.name for estimator in spec.training.estimators]
    if not spec.training.refit:
        return "training.refit is off"
    if (name := chosen.get("estimator") or names[0]) not in names:
        return f"its estimator {name!r} is not in training.estimators any more"
    return ""


def _write(
    settings: Settings, twin: VersionInfo, judged: RunFolder, chosen: Mapping[str, Any], folder: RunFolder, origin: str
) -> None:
    """Write everything that the refit begins with; its request comes last."""
    lineage = judged.read_json(LINEAGE)
    with spec_then(lineage) as then:
        estimator = then.training.estimator(chosen.get("estimator") or then.training.estimators[0].name)
        spec = then.model_copy(update={"training": then.training.model_copy(update={"estimators": (estimator,)})})
        windows = windows_then(lineage).refit(chosen.get("window_days") or then.training.window_days)
        made = assembled_again(settings, then, windows, lineage["pins"])
        hashes = {TRAIN: folder.write_table(made.train, TRAIN), HOLDOUT: folder.write_table(made.holdout, HOLDOUT)}
        refit_of = {"run": twin.run, "version": twin.version}
        kept = {name: value for name, value in lineage.items() if name != "request"}  # its twin answers that
        own = {
            "windows": days_of(windows),
            "summary": f"as of {windows.as_of}: the refit of version {twin.version}, on {spans(windows.train)}",
            "report": made.report,
            "origin": origin,
            "trigger": "refit",
            "reason": f"version {twin.version} passed the gate",
            "commit": code_commit(),
            "libraries": libraries(),
            "files": hashes,
            REFIT_OF: refit_of,
        }
        folder.write_json({**kept, **own}, LINEAGE)
        frozen = judged.read_json(DEFINITIONS) if judged.exists(DEFINITIONS) else definitions_of(then)
        folder.write_json(frozen, DEFINITIONS)
        request = {
            "format": written("training request"),
            **run_request(spec, made.features, windows.train),
            "as_of": windows.as_of.isoformat(),
            "holdout_days": [d.isoformat() for d in windows.holdout],
            "files": hashes,
            "chosen": {**chosen, "estimator": estimator.name},
            REFIT_OF: refit_of,
        }
        write_requests(spec, folder, request, made.train, hashes[TRAIN])
    folder.write_json(request, REQUEST)
