"""Where the trials of a search are kept, so that a killed trainer goes on where it stopped.

Two answers to the same questions. :class:`OwnStudy` is one trainer's: a file among its
checkpoints. :class:`SharedStudy` names a database that several trainers share;
``shared_study`` has that one. ``search`` is the loop that asks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from windsock.dataset.folds import Fold
from windsock.learners.learner import Learner, Params
from windsock.learners.rows import Rows
from windsock.runs.checkpoints import CheckpointFolder
from windsock.search.budget import Budget
from windsock.search.sampling import Sampler
from windsock.search.trials import Trial
from windsock.spec import ModelSpec
from windsock.spec.base import Part
from windsock.spec.estimators import BuiltIn
from windsock.store import to_json

log = logging.getLogger(__name__)

TRIALS = "trials.json"
_FORMAT = "windsock-trials/1"


class Turn(Enum):
    """Why there is no trial to run."""

    WAIT = "others run the last ones"
    OVER = "the budget is used up"


@dataclass(frozen=True)
class Claim:
    """A trial that is this process's to run."""

    number: int
    params: Params
    """What differs from the spec's own."""
    key: int = 0
    """What the study knows it by."""
    seconds: float = 0.0
    """Spent on it by processes that died."""


class Study(Protocol):
    """The trials of one search."""

    why_over: str
    """What was used up; empty while the search goes on."""

    def claim(self) -> Claim | Turn:
        """Take the next trial."""

    def running(self, claim: Claim) -> AbstractContextManager[None]:
        """Keep a claim while its trial runs; it is given back if that ends with an error."""

    def finish(self, claim: Claim, trial: Trial) -> bool:
        """Keep a trial for good; False if it has meanwhile been given to another process."""

    def finished(self) -> list[Trial]:
        """Return the trials that are done, in order of their numbers."""

    def elapsed_s(self) -> float:
        """Return the seconds since the first trial began."""


@dataclass(frozen=True)
class SharedStudy:
    """A study in a database, shared by several trainers."""

    url: str = field(repr=False)
    """SQLAlchemy URL; it may hold a password."""
    name: str
    """``<model>/<run>/<estimator>``; what decides the trials' results is added to it."""
    heartbeat_s: int = 15
    grace_s: int = 60
    """Without a sign of life for so long, a trial is another's to run."""

    @classmethod
    def of(cls, url: str, request: Mapping[str, Any], estimator: BuiltIn) -> Self | None:
        """Return the study of a trainer request; None if this trainer searches alone."""
        if estimator.budget.parallel == 1:
            return None
        if not url:
            log.info(
                "%s: no database for shared studies (WINDSOCK_STUDIES), so one process does the whole search",
                request["model"],
            )
            return None
        return cls(url, f"{request['model']}/{request['run']}/{estimator.name}")


class OwnStudy:
    """The study of a trainer that searches alone."""

    def __init__(
        self,
        fingerprint: str,
        sampler: Sampler,
        budget: Budget,
        checkpoints: CheckpointFolder | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fingerprint, self._sampler, self._budget = fingerprint, sampler, budget
        self._checkpoints, self._clock = checkpoints, clock
        self._began: float | None = None
        self._trials: list[Trial] = []
        self.why_over = ""
        self._recall()

    def claim(self) -> Claim | Turn:
        """Take the next trial."""
        if not self._trials:
            if self._began is None:
                self._began = self._clock()
                self._keep()
            return Claim(0, {})
        over = self._budget.used_up(self._trials, elapsed_s=self.elapsed_s())
        if over is not None:
            self.why_over = over
            return Turn.OVER
        number = len(self._trials)
        return Claim(number, self._sampler.propose(number, self._trials))

    def running(self, claim: Claim) -> AbstractContextManager[None]:
        """Nobody else could take it."""
        return nullcontext()

    def finish(self, claim: Claim, trial: Trial) -> bool:
        """Keep a trial for good."""
        self._trials.append(trial)
        self._keep()
        return True

    def finished(self) -> list[Trial]:
        """Return the trials that are done."""
        return list(self._trials)

    def elapsed_s(self) -> float:
        """Return the seconds since the first trial began, also over restarts."""
        return 0.0 if self._began is None else max(0.0, self._clock() - self._began)

    def _keep(self) -> None:
        if self._checkpoints is not None:
            kept = {"format": _FORMAT, "fingerprint": self._fingerprint, "began": self._began}
            self._checkpoints.write(TRIALS, to_json({**kept, "trials": [t.to_record() for t in self._trials]}))

    def _recall(self) -> None:
        data = self._checkpoints.read(TRIALS) if self._checkpoints is not None else None
        if data is None:
            return
        try:
            kept = json.loads(data)
            if kept["format"] != _FORMAT or kept["fingerprint"] != self._fingerprint:
                log.info("%s is of a training on other rows or parameters; the search begins anew", TRIALS)
                self._forget()
                return
            self._began, self._trials = kept["began"], [Trial.from_record(t) for t in kept["trials"]]
        except (ValueError, KeyError, TypeError) as err:
            log.warning("%s cannot be read (%s); the search begins anew", TRIALS, err)
            self._forget()
            return
        log.info("The search goes on after %d trials that are done already", len(self._trials))

    def _forget(self) -> None:
        # Checkpoints inside the trials are of that other training, too.
        if self._checkpoints is not None:
            self._checkpoints.clear()


def fingerprint(learner: Learner, spec: ModelSpec, estimator: BuiltIn, rows: Rows, folds: Sequence[Fold]) -> str:
    """Return a digest of everything that decides how a trial does; a budget may change between two starts."""
    described = {
        "estimator": _described(estimator),
        "own": learner.own_params(),
        "rounds": learner.most_rounds,
        "label": spec.label.model_dump(mode="json"),
        "metric": spec.training.metric,
        "seed": spec.training.seed,
        "evaluation": spec.training.evaluation.model_dump(mode="json"),
        "folds": [[[d.isoformat() for d in fold.learn], [d.isoformat() for d in fold.judge]] for fold in folds],
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    for part in (rows.x, rows.y, rows.days, rows.entities, rows.blocked_by):
        digest.update(b"-" if part is None else f"{part.dtype}{part.shape}".encode())
        if part is not None and part.size:
            digest.update(_bytes_of(part))
    return digest.hexdigest()


def _described(estimator: Part) -> dict[str, Any]:
    return estimator.model_dump(mode="json", exclude={"trials", "budget", "compute"})


def _bytes_of(array: npt.NDArray[Any]) -> bytes | memoryview:
    if array.dtype.hasobject:
        return repr(array.tolist()).encode()
    # Column by column if it lies so in memory: no copy of what may be most of the memory.
    ordered = array.T if array.flags.f_contiguous and not array.flags.c_contiguous else np.ascontiguousarray(array)
    return ordered.reshape(-1).view(np.uint8).data
