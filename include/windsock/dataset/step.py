"""The ``assemble`` step: a training set as of a day, with its request and lineage, in a run folder.

Options: ``as_of`` (``YYYY-MM-DD``; default: the latest day up to which everything that a training needs is settled);
``window_days``, ``holdout_days`` and ``trials`` replace the spec's own for this training; with a ``trigger`` of drift
or loss the shortest of several windows is taken. ``recovery``, the first day of a new regime, gives it a holdout and a
gap of its own (see ``recovery``).
"""

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any

from pydantic import ValidationError

from windsock.completeness import settled_days
from windsock.dataset.assemble import Pins, assemble, pin
from windsock.dataset.recovery import recovery_windows
from windsock.dataset.requests import cause_of, inputs_of, lineage_of, run_request, write_requests
from windsock.dataset.time_split import Windows, windows_of
from windsock.days import day_range, past_day
from windsock.errors import DataContractError, NotReady, SpecError
from windsock.features.frame import feature_names
from windsock.features.frozen import definitions_of
from windsock.format_numbers import written
from windsock.ledger import Ledger
from windsock.runs.run_folder import DEFINITIONS, HOLDOUT, LINEAGE, OLDER, REQUEST, TRAIN, RunFolder, run_id
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.modelling import TrainingSpec
from windsock.steps import BY_HAND, StepContext

log = logging.getLogger(__name__)

_AFTER_A_CHANGE = ("drift", "loss")
"""Triggers after which folds of older days say nothing of how far back to learn: most of them lie before the change."""
TRAININGS = "trainings"
"""Folder of what each run that asked for a training chose first."""


def run(ctx: StepContext) -> dict[str, Any]:
    """Assemble a training set.

    Returns:
        ``run`` (the run folder's name), ``as_of``, ``train_days``, ``gap_days`` and ``holdout_days`` (first and
        last), and the counts of what is in it and what was left out.

    Raises:
        NotReady: Days that are needed have not been ingested yet.
        DataContractError: There is too little history, no label, or one class only.
        SpecError: The gap is shorter than the label delay, or a feature is part of the answer.
    """
    settings, spec = ctx.settings, with_overrides(ctx.spec, ctx.options)
    windows = asked_windows(ctx, spec)
    pins = pin(settings, spec, windows)
    inputs = inputs_of(spec, windows, feature_names(spec), pins)
    folder = RunFolder.named(ctx.store, spec.name, run_id(windows.as_of, ctx.origin, inputs))
    if not folder.exists(REQUEST):
        _write(ctx, spec, windows, pins, inputs, folder)
    lineage = folder.read_json(LINEAGE)
    log.info("%s: %s; rows: %s", spec.name, lineage["summary"], lineage["report"]["rows"])
    return {
        "run": folder.run,
        "as_of": windows.as_of.isoformat(),
        **{
            f"{name}_days": [days[0].isoformat(), days[-1].isoformat()] if days else []
            for name, days in (("train", windows.train), ("gap", windows.gap), ("holdout", windows.holdout))
        },
        **lineage["report"],
    }


def _write(
    ctx: StepContext, spec: ModelSpec, windows: Windows, pins: Pins, inputs: Mapping[str, Any], folder: RunFolder
) -> None:
    """Write everything that a training begins with; its request comes last, and then nothing of it is changed."""
    from windsock.featurestore.retrieval import training_frame

    made = assemble(ctx.settings, spec, windows, pins, partial(training_frame, ctx.settings, spec))
    hashes = {TRAIN: folder.write_table(made.train, TRAIN), HOLDOUT: folder.write_table(made.holdout, HOLDOUT)}
    if made.older is not None:
        hashes[OLDER] = folder.write_table(made.older, OLDER)
    lineage = lineage_of(inputs, windows, ctx.origin, made.report, ctx.spec.folder, cause_of(ctx.options))
    folder.write_json({**lineage, "files": hashes}, LINEAGE)
    folder.write_json(definitions_of(spec), DEFINITIONS)
    request = {
        "format": written("training request"),
        **run_request(spec, made.features, windows.train, windows.older),
        "as_of": windows.as_of.isoformat(),
        "holdout_days": [d.isoformat() for d in windows.holdout],
        "files": hashes,
    }
    write_requests(spec, folder, request, made.train, hashes[TRAIN])
    folder.write_json(request, REQUEST)


def with_overrides(spec: ModelSpec, options: Mapping[str, Any]) -> ModelSpec:
    """Return the spec with the values that this one training was asked for; ``trials`` counts for all that search.

    Raises:
        SpecError: A value lies outside its range, or trials are asked for and nothing is searched.
    """
    given = {name: options[name] for name in ("window_days", "holdout_days") if options.get(name) is not None}
    if spec.training.windows and options.get("trigger") in _AFTER_A_CHANGE:
        given["window_days"] = spec.training.shortest_window
    if options.get("recovery"):
        given |= recovery_windows(spec, options["recovery"], options.get("as_of"))
    training = {**spec.training.model_dump(), **given}
    if training["window_days"] != spec.training.window_days:
        training["windows"] = ()  # that length was asked for, so there is nothing to choose
    if options.get("trials") is not None:
        searched = [estimator for estimator in training["estimators"] if estimator.get("search")]
        if not searched:
            raise SpecError(
                f"{spec.name}: {options['trials']} trials were asked for, but none of its estimators has a search. "
                "Say what to search in training.estimators[].search, or leave trials out."
            )
        for estimator in searched:
            estimator["trials"] = options["trials"]
    try:
        return spec.model_copy(update={"training": TrainingSpec.model_validate(training)})
    except ValidationError as err:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']} (given: {f['input']!r})" for f in err.errors())
        raise SpecError(f"{spec.name}: training cannot be run as asked: {faults}") from err


def asked_windows(ctx: StepContext, spec: ModelSpec) -> Windows:
    """Lay the windows of a training; a run that is tried again finds the day that its first try chose.

    Raises:
        NotReady, DataContractError, SpecError: See :func:`ingested_windows`.
    """
    asked = (spec.name, TRAININGS, f"{hashlib.sha256(ctx.origin.encode()).hexdigest()[:16]}.json")
    as_of = ctx.options.get("as_of") or None
    if as_of is None and ctx.origin != BY_HAND:
        with suppress(FileNotFoundError):
            as_of = ctx.store.read_json(*asked)["as_of"]
    windows = replace(ingested_windows(ctx.settings, spec, as_of), recovery=bool(ctx.options.get("recovery")))
    if as_of is None and ctx.origin != BY_HAND:
        ctx.store.write_json({"origin": ctx.origin, "as_of": windows.as_of.isoformat()}, *asked)
    return windows


def ingested_windows(settings: Settings, spec: ModelSpec, as_of: str | date | None) -> Windows:
    """Lay the windows as of the given day, or as of the latest day up to which everything has been delivered.

    Features are not looked at: those that a training lacks are computed for it (see ``prepare_step``).

    Raises:
        NotReady: Nothing has been ingested yet, or days are missing.
        DataContractError: There is too little history.
        SpecError: ``as_of`` is no day, or lies in the future.
    """
    if as_of not in (None, ""):
        return windows_of(spec, past_day(as_of, what="as_of"))
    stages = ["ingest", *(["labels"] if spec.label.files is not None else [])]
    settled = set.intersection(*(set(Ledger.of(settings, spec.name, stage).days()) for stage in stages))
    if not settled:
        raise NotReady(
            f"{spec.name}: there is nothing to train on yet: no day has been ingested. "
            f"Backfill {spec.name}_ingest from {spec.first_day} on."
        )
    for day in sorted(settled, reverse=True):
        try:
            windows = windows_of(spec, day)
        except DataContractError:
            break
        if settled.issuperset(day_range(windows.days[0], day)):
            return windows
    # Nothing fits: say why for the latest day.
    windows = windows_of(spec, max(settled))
    for stage in stages:
        settled_days(settings, spec, stage, windows.days[0], windows.as_of)
    return windows
