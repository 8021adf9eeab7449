"""A step: the one way to start ML work, in a task, in a pod or by hand.

A step reads and writes tables and a run folder, returns a small JSON result and reports trouble by exception (see
``errors`` for the exit codes).
"""

import importlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Any

from windsock import mlflow_keys
from windsock.days import past_day
from windsock.errors import SpecError
from windsock.faults import fault_behind
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.step_clock import timing
from windsock.store import Store

log = logging.getLogger(__name__)

STEPS: Mapping[str, str] = MappingProxyType(
    {
        "ingest": "windsock.ingest.step",
        "labels": "windsock.ingest.labels",
        "features": "windsock.features.step",
        "materialize": "windsock.featurestore.step",
        "score": "windsock.scoring.step",
        "monitor": "windsock.monitoring.step",
        "govern": "windsock.governor.step",
        "prepare": "windsock.dataset.prepare_step",
        "assemble": "windsock.dataset.step",
        "fit": "windsock.trainers.fit_step",
        "choose": "windsock.trainers.choose_step",
        "register": "windsock.registry.step",
        "gate": "windsock.gate.step",
        "refit": "windsock.promotion.refit_step",
        "adopt": "windsock.promotion.adopt_step",
        "promote": "windsock.promotion.step",
        "rollback": "windsock.promotion.rollback_step",
        "correct": "windsock.promotion.correct_step",
        "maintain": "windsock.maintenance.step",
        "void": "windsock.void",
    }
)
"""Step name to the module whose ``run`` does it; imported only when it is needed."""


_TRAINING = ("as_of", "window_days", "holdout_days", "trials", "reason", "reasons", "dedupe_key", "trigger", "recovery")
OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ingest": ("no_delivery", "accept_worse", "reason"),
        "labels": ("no_delivery", "accept_worse", "reason"),
        "materialize": ("correct",),
        "score": ("model_version", "rescore"),
        "prepare": _TRAINING,
        "assemble": _TRAINING,
        "fit": ("run", "estimator", "role"),
        "choose": ("run",),
        "register": ("run",),
        "gate": ("version",),
        "refit": ("version", "champion_seen"),
        "adopt": ("version",),
        "promote": ("version", "champion_seen", "reason", "allow_replay"),
        "rollback": ("to_version", "reason", "allow_replay"),
        "correct": ("reason",),
        "maintain": ("retention_days", "dry_run"),
        "void": ("stage", "reason"),
    }
)
"""Step name to the options it may be given, beside ``by``, who asked for it; one that is not here takes no other."""


FLAGS = frozenset({"accept_worse", "allow_replay", "correct", "dry_run", "no_delivery", "rescore"})
"""Options that are true or false."""
TEXTS = frozenset(
    {"as_of", "by", "champion_seen", "dedupe_key", "estimator", "model_version", "reason", "recovery", "role", "run",
     "stage", "to_version", "trigger", "version"}
)  # fmt: skip
"""Options whose value is text, whatever it looks like."""


BY_HAND = "manual"
"""Origin of what a person runs without Airflow: no run that could be tried again."""


@dataclass(frozen=True)
class StepContext:
    """What a step is told about its run."""

    settings: Settings
    spec: ModelSpec
    key: str | None = None
    """The partition key as given; steps for a day call :attr:`day`."""
    live: bool = True
    """False for backfills and what they cause: these never retrain, promote or alert."""
    origin: str = BY_HAND
    """Airflow run id (or another name of the run) for records."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further values from the run's form or from earlier steps."""

    @property
    def day(self) -> date:
        """The day this run is for.

        Raises:
            SpecError: The key is missing, malformed, outside the model's days or in the future.
            NotReady: The day is not over yet.
        """
        day = past_day(self.key)
        if day < self.spec.first_day or (self.spec.last_day is not None and day > self.spec.last_day):
            raise SpecError(
                f"{day} lies outside the days of model {self.spec.name!r} "
                f"({self.spec.first_day} to {self.spec.last_day or 'now'}). "
                "Choose another partition key, or change first_day or last_day in its model.yaml."
            )
        return day

    @property
    def store(self) -> Store:
        """The settings' store."""
        return Store.of(self.settings)


def required_version(ctx: StepContext) -> str:
    """Return the option ``version``.

    Raises:
        SpecError: It is not given.
    """
    if (version := ctx.options.get("version")) is None:
        raise SpecError(f"{ctx.spec.name}: which version is meant is not said. Give the option 'version'.")
    return str(version)


def run_step(
    name: str,
    *,
    model: str,
    key: str | None = None,
    live: bool = True,
    origin: str = BY_HAND,
    options: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Run one step and return its result (plain JSON types, small) with the ``seconds`` that it took.

    Raises:
        SpecError: No such step or model, or the step has no such option.
        WindsockError: What the step itself reports.
    """
    if name not in STEPS:
        raise SpecError.unknown("step", name, STEPS)
    known = (*OPTIONS.get(name, ()), "by")
    for option in options or {}:
        if option not in known:  # a mistyped day would mean another one, in silence
            raise SpecError.unknown(f"option of step {name}", option, known)
    for option in sorted(FLAGS & {*(options or {})}):
        if not isinstance(given := (options or {})[option], bool):  # a text such as "False" would count as true
            raise SpecError(f"The option {option} of step {name} is true or false; given: {given!r}.")
    settings = settings or Settings.from_env()
    context = StepContext(settings, get_spec(settings, model), key, live, origin, dict(options or {}))
    context.store.look()
    os.environ.update(mlflow_keys.task_key(settings.mlflow_secret, model, name))
    module = importlib.import_module(STEPS[name])
    started = time.monotonic()
    log.info("%s %s %s: started (%s)", model, name, key or "", "live" if live else "replayed")
    try:
        with timing():
            result = module.run(context)
    except Exception as err:
        if (fault := fault_behind(err)) is not None:
            raise fault from err
        raise
    seconds = round(time.monotonic() - started, 3)
    log.info("%s %s %s: done in %.1f s", model, name, key or "", seconds)
    return {**result, "seconds": seconds}
