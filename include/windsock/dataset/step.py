"""The ``assemble`` step: a training set as of a day, with its request and lineage, in a run folder.

Options: ``as_of`` (``YYYY-MM-DD``; default: the latest day up to which everything that a training needs is settled);
``window_days``, ``holdout_days`` and ``trials`` replace the spec's own for this training.
"""

import logging
from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Any

from pydantic import ValidationError

from windsock.completeness import rejected_days, settled_days
from windsock.dataset.assemble import assemble, pin
from windsock.dataset.requests import inputs_of, lineage_of, run_request, write_requests
from windsock.dataset.time_split import Windows, windows_of
from windsock.days import day_range, past_day
from windsock.errors import DataContractError, NotReady, SpecError
from windsock.features.frame import feature_names
from windsock.format_numbers import written
from windsock.ledger import Ledger
from windsock.runs.run_folder import HOLDOUT, LINEAGE, REQUEST, TRAIN, RunFolder, run_id
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.modelling import TrainingSpec
from windsock.steps import StepContext

log = logging.getLogger(__name__)


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
    from windsock.featurestore.retrieval import training_frame

    settings, spec = ctx.settings, with_overrides(ctx.spec, ctx.options)
    windows = chosen_windows(settings, spec, ctx.options.get("as_of"))
    pins = pin(settings, spec, windows)
    inputs = inputs_of(spec, windows, feature_names(spec), pins)
    folder = RunFolder.named(ctx.store, spec.name, run_id(windows.as_of, ctx.origin, inputs))
    made = assemble(settings, spec, windows, pins, partial(training_frame, settings, spec))
    hashes = {TRAIN: folder.write_table(made.train, TRAIN), HOLDOUT: folder.write_table(made.holdout, HOLDOUT)}
    lineage = lineage_of(inputs, windows, ctx.origin, made.report)
    folder.write_json({**lineage, "files": hashes}, LINEAGE)
    request = {
        "format": written("training request"),
        **run_request(spec, made.features, windows.train),
        "as_of": windows.as_of.isoformat(),
        "holdout_days": [d.isoformat() for d in windows.holdout],
        "files": hashes,
    }
    write_requests(spec, folder, request, made.train, hashes[TRAIN])
    folder.write_json(request, REQUEST)  # last: the commit point
    log.info("%s: %s; %d and %d rows", spec.name, lineage["summary"], made.train.num_rows, made.holdout.num_rows)
    return {
        "run": folder.run,
        "as_of": windows.as_of.isoformat(),
        **{
            f"{name}_days": [days[0].isoformat(), days[-1].isoformat()] if days else []
            for name, days in (("train", windows.train), ("gap", windows.gap), ("holdout", windows.holdout))
        },
        **made.report,
    }


def with_overrides(spec: ModelSpec, options: Mapping[str, Any]) -> ModelSpec:
    """Return the spec with the values that this one training was asked for; ``trials`` counts for all that search.

    Raises:
        SpecError: A value lies outside its range, or trials are asked for and nothing is searched.
    """
    given = {name: options[name] for name in ("window_days", "holdout_days") if options.get(name) is not None}
    training = {**spec.training.model_dump(), **given}
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


def chosen_windows(settings: Settings, spec: ModelSpec, as_of: str | date | None) -> Windows:
    """Lay the windows as of the given day, or as of the latest day that everything is settled for.

    Raises:
        NotReady: Nothing has been ingested yet, or days are missing.
        DataContractError: There is too little history.
        SpecError: ``as_of`` is no day, or lies in the future.
    """
    if as_of not in (None, ""):
        return windows_of(spec, past_day(as_of, what="as_of"))
    stages = ["ingest", "features", *(["labels"] if spec.label.files is not None else [])]
    days = {s: set(Ledger.of(settings, spec.name, s).days()) for s in stages}
    days["features"] |= rejected_days(settings, spec, days["ingest"] - days["features"])
    settled = set.intersection(*days.values())
    if not settled:
        raise NotReady(
            f"{spec.name}: there is nothing to train on yet: no day has both events and features. "
            f"Backfill {spec.name}_ingest from {spec.first_day} on."
        )
    for day in sorted(settled, reverse=True):
        try:
            windows = windows_of(spec, day)
        except DataContractError:
            break
        if settled.issuperset(day_range(windows.train[0], day)):
            return windows
    # Nothing fits: say why for the latest day.
    windows = windows_of(spec, max(settled))
    for stage in stages:
        settled_days(settings, spec, stage, windows.train[0], windows.as_of)
    return windows
