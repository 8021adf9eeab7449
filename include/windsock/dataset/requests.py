"""What is frozen beside the rows of a training: its lineage, and a request for each of its trainers.

``runs.contract`` reads the requests and says what a trainer leaves; ``docs/trainer.md`` is the same for people.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from windsock.dataset.time_split import Windows, folds_by_window, time_folds
from windsock.days import spans
from windsock.format_numbers import numbered
from windsock.runs.contract import CANDIDATES, CHECKPOINTS, REQUEST_FORMAT, TRAIN_CSV, libraries
from windsock.runs.run_folder import METRICS, MODEL, OLDER, REQUEST, TRAIN, RunFolder
from windsock.settings import REPO_ROOT
from windsock.spec.estimators import CustomSpec, Estimator
from windsock.spec.load import frozen_modules
from windsock.spec.modelling import TrainingSpec
from windsock.store import to_json

if TYPE_CHECKING:
    import pyarrow as pa

    from windsock.spec import ModelSpec

_GIT_SYNC = ".worktrees"
_TO_TRAINERS = ("model", "task", "label", "key", "features", "categorical", "metric", "seed", "gap_days")


def inputs_of(
    spec: ModelSpec, windows: Windows, features: list[str], pins: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Return what determines a training: equal inputs, equal model.

    Raises:
        SpecError: A network of the user's own is absent, no Python, or lacks its class.
    """
    definition = {
        "spec": spec.model_dump(mode="json"),
        "sql": {view.sql: spec.sql_of(view) for view in spec.features.views},
    }
    if networks := {network["file"]: network["source"] for network in frozen_modules(spec).values()}:
        definition["modules"] = networks
    return {
        "model": spec.name,
        "as_of": windows.as_of.isoformat(),
        "windows": days_of(windows),
        **definition,
        "features": features,
        "spec_hash": hashlib.sha256(to_json(definition)).hexdigest(),
        "seed": spec.training.seed,
        "pins": {stage: dict(days) for stage, days in pins.items()},
    }


def days_of(windows: Windows) -> dict[str, list[str]]:
    """Return what a lineage says of a training's days."""
    names = ("train", "gap", "holdout", "warm_up", *(("older",) if windows.older else ()))
    return {name: [day.isoformat() for day in getattr(windows, name)] for name in names}


def lineage_of(
    inputs: Mapping[str, Any],
    windows: Windows,
    origin: str,
    report: Mapping[str, Any],
    folder: Path,
    cause: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of ``lineage.json``: the inputs, and where, by what and why they were put together.

    ``folder`` is the model's: its definitions may come from another commit than the code. ``cause`` is what
    :func:`cause_of` returns.
    """
    return {
        **inputs,
        "summary": (
            f"as of {windows.as_of}: trained on {spans(windows.train)}, gap {spans(windows.gap) or 'none'}, "
            f"held out {spans(windows.holdout)}"
            + (f"; recovery: the new regime began on {cause['recovery']}" if "recovery" in cause else "")
        ),
        "report": report,
        "origin": origin,
        **cause,
        "commit": code_commit(),
        "definitions_commit": definitions_commit(folder),
        "libraries": libraries(),
    }


def cause_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return why a training is made, by its run's options: ``trigger``, ``reason``, and the ``request`` if one asked.

    What the governor asks for says so; a person has a name or a reason; what is left is the clock.
    ``recovery`` is the first day of the new regime that a training is to recover from.
    """
    by_hand = options.get("by") or options.get("reason")
    trigger = str(options.get("trigger") or ("on demand" if by_hand else "schedule"))
    reasons = "; ".join(str(reason) for reason in options.get("reasons") or ())
    cause = {"trigger": trigger, "reason": str(options.get("reason") or reasons or trigger)}
    asked = {"request": options.get("dedupe_key"), "recovery": options.get("recovery")}
    return {**cause, **{name: str(value) for name, value in asked.items() if value}}


@lru_cache(maxsize=1)
def code_commit() -> str | None:
    """Return the commit of the running code (``WINDSOCK_COMMIT``, else git), or None outside a checkout."""
    return os.environ.get("WINDSOCK_COMMIT") or _checked_out(REPO_ROOT)


def definitions_commit(folder: Path) -> str | None:
    """Return the commit that a model's folder came from, or None if no git holds it.

    On a cluster the code is an image's, which has no git to ask, and git-sync brings models: into a folder that is
    named after the commit.
    """
    place = folder.resolve()
    if _GIT_SYNC in place.parts[:-1]:
        return place.parts[place.parts.index(_GIT_SYNC) + 1]
    return code_commit() if place.is_relative_to(REPO_ROOT.resolve()) else _checked_out(place)


def _checked_out(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def run_request(
    spec: ModelSpec, features: Iterable[str], train_days: Iterable[date], older_days: Iterable[date] = ()
) -> dict[str, Any]:
    """Return what a run's ``request.json`` says for its trainers.

    Args:
        spec: The model, with the values of this one training.
        features: Columns of the training set that models may take, in order.
        train_days: Days of the window.
        older_days: Days before it, on which its lengths are compared.

    Raises:
        SpecError: A network of the user's own is absent, no Python, or lacks its class.
    """
    networks = frozen_modules(spec)
    return {
        "model": spec.name,
        "task": spec.label.task,
        "label": spec.label.column,
        "key": spec.events.key,
        "features": list(features),
        "categorical": list(spec.training.categorical),
        "metric": spec.training.metric,
        "seed": spec.training.seed,
        "gap_days": spec.gap_days,
        "train_days": [day.isoformat() for day in train_days],
        **({"older_days": [day.isoformat() for day in older_days]} if spec.training.windows else {}),
        "spec": numbered("definition", spec.model_dump(mode="json")),
        **({"modules": networks} if networks else {}),
    }


def trainer_request(request: Mapping[str, Any], run: str, estimator: Estimator, train: Mapping[str, Any]) -> Any:
    """Return the content of a candidate's ``request.json``.

    Args:
        request: Content of the run's own ``request.json``; that of a refit says what was ``chosen``.
        run: Name of the run folder.
        estimator: What to train.
        train: ``path``, ``sha256``, ``rows`` and ``format`` of the training rows; ``columns`` (kinds) if it is CSV.
    """
    days = [date.fromisoformat(d) for d in request["train_days"]]
    more: dict[str, Any] = {}
    if "older_days" in request and "chosen" not in request and not isinstance(estimator, CustomSpec):
        before = [date.fromisoformat(d) for d in request["older_days"]]
        training = TrainingSpec.model_validate(request["spec"]["training"])
        found = folds_by_window(days, before, training, int(request["gap_days"]))
        more["windows"] = [{"days": length, "folds": to_jsonable_python(each)} for length, each in found.items()]
        if before:
            more["older"] = {"path": f"../../{OLDER}", "sha256": request["files"][OLDER]}
    folds = time_folds(days, folds=int(request["spec"]["training"]["folds"]), gap_days=int(request["gap_days"]))
    network = request.get("modules", {}).get(estimator.name)
    return {
        "format": REQUEST_FORMAT,
        "run": run,
        **{name: request[name] for name in _TO_TRAINERS},
        "time": "event_timestamp",
        "estimator": estimator.model_dump(mode="json"),
        **({"module": network} if network is not None else {}),
        **({"chosen": request["chosen"]} if "chosen" in request else {}),
        "train": dict(train),
        "days": request["train_days"],
        "folds": to_jsonable_python(folds),
        **more,
        "output": {"model": MODEL, "metrics": METRICS, "checkpoints": CHECKPOINTS},
        "spec": request["spec"],
    }


def write_requests(
    spec: ModelSpec, folder: RunFolder, request: Mapping[str, Any], train: pa.Table, sha256: str
) -> None:
    """Write the request of every estimator's candidate, with training rows as CSV for those that ask for it.

    ``request`` is the run's own; ``sha256`` is that of the rows as Parquet.
    """
    for estimator in spec.training.estimators:
        rows = {"path": f"../../{TRAIN}", "sha256": sha256, "rows": train.num_rows, "format": "parquet"}
        if getattr(estimator, "data", None) == "csv":
            from windsock.dataset.csv_export import csv_bytes, csv_columns

            data = csv_bytes(train)
            folder.write_bytes(data, CANDIDATES, estimator.name, TRAIN_CSV)
            rows |= {"path": TRAIN_CSV, "sha256": hashlib.sha256(data).hexdigest(), "format": "csv"}
            rows["columns"] = csv_columns(train)
        content = trainer_request(request, folder.run, estimator, rows)
        folder.write_json(content, CANDIDATES, estimator.name, REQUEST)
