"""One trial of a search: a parameter set trained and judged on every fold.

The number of rounds is where the mean loss curve of the folds is lowest; loss is smooth
where ranking metrics of a few hundred positives jump.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
import optuna

from windsock.dataset.folds import Fold
from windsock.errors import DataContractError, SpecError
from windsock.learners import ranks
from windsock.learners.learner import Learned, Learner, Params
from windsock.learners.rows import Rows
from windsock.runs.checkpoints import CheckpointFolder
from windsock.search.pruning import Pruning, best_so_far
from windsock.search.study import Direction, SharedStudy
from windsock.served.metrics import judge
from windsock.spec import ModelSpec
from windsock.spec.estimators import BuiltIn, TorchSpec
from windsock.spec.modelling import LOWER_IS_BETTER

_NOT_REPORTED = ("losses", "means", "seconds", "gpus")


@dataclass(frozen=True)
class Trial:
    """One parameter set and how it did."""

    number: int
    params: Params
    """What the search changed; empty for the spec's own parameters."""
    rounds: int = 0
    """Rounds chosen, or done when it was pruned."""
    score: float | None = None
    """Mean of the folds; None if a fold could not be judged, or the trial did not get to its end."""
    folds: tuple[float | None, ...] = ()
    state: Literal["complete", "pruned", "failed"] = "complete"
    reason: str = ""
    """Why it was pruned or failed."""
    losses: tuple[float, ...] = ()
    """Lowest loss so far on the first fold, at the rounds where pruning looks."""
    means: tuple[float, ...] = ()
    """Mean metric after each fold but the last, each at its own best round."""
    seconds: float = field(default=0.0, compare=False)
    """In all tries together."""
    gpus: int = field(default=0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types: what inputs and seed decide, so without times."""
        return {name: value for name, value in self.to_record().items() if name not in _NOT_REPORTED}

    def to_record(self) -> dict[str, Any]:
        """Return all there is to know, as plain JSON types; :meth:`from_record` reads it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_record(cls, raw: Mapping[str, Any]) -> Self:
        """Rebuild a trial from its record."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
        return cls(**values)


class TrialWatch(Protocol):
    """Who is told how a search goes on, for live metrics."""

    def trial(self, number: int, score: float | None, state: str) -> None:
        """Tell how a trial did."""

    def round(self, place: str, number: int, loss: float) -> None:
        """Tell the loss after a round; ``place`` names trial and fold."""


class Split(NamedTuple):
    """A fold's rows."""

    fold: Fold
    learn: Rows
    judge: Rows


def split(spec: ModelSpec, rows: Rows, fold: Fold) -> Split | None:
    """Cut the rows; None if a side is empty or has one class."""
    learn, judged = (rows.where(np.isin(rows.days, [d.isoformat() for d in days])) for days in (fold.learn, fold.judge))
    if judged.blocked_by is not None and learn.blocked_by is not None:
        judged = judged.where(~np.isin(judged.blocked_by, np.unique(learn.blocked_by[learn.y == 1])))
    least = 2 if spec.label.task == "binary" else 1
    usable = all(len(np.unique(part.y)) >= least for part in (learn, judged))
    return Split(fold, learn, judged) if usable else None


@dataclass(frozen=True)
class Search:
    """What a search for parameters and rounds within the training window goes by."""

    learner: Learner
    spec: ModelSpec
    estimator: BuiltIn
    """Parameters, search space and budget."""
    rows: Rows
    folds: Sequence[Fold]
    checkpoints: CheckpointFolder | None = None
    """Where finished trials and the progress of the running one are kept."""
    shared_study: SharedStudy | None = None
    watch: TrialWatch | None = None

    @cached_property
    def splits(self) -> list[Split]:
        """The rows of each usable fold."""
        return [s for fold in self.folds if (s := split(self.spec, self.rows, fold)) is not None]

    @property
    def direction(self) -> Direction:
        """Where a metric gets better."""
        return "minimize" if self.spec.training.metric in LOWER_IS_BETTER else "maximize"

    @cached_property
    def gpus(self) -> int:
        """How many GPUs this training keeps from others: those asked for, or those it uses."""
        asked = self.estimator.compute.gpu or 0
        if not isinstance(self.estimator, TorchSpec):
            return asked
        from windsock.learners.neural.device import choose_device

        return max(asked, ranks.world() if choose_device().type == "cuda" else 0)

    def fingerprint(self) -> str:
        """Return a digest of everything that decides how a trial does; a budget may change between two starts."""
        described = (
            self.estimator.model_dump(mode="json", exclude={"trials", "budget", "compute"}),
            self.spec.training.model_dump(mode="json", include={"metric", "seed", "evaluation"}),
            self.spec.label.model_dump(mode="json"),
            self.learner.own_params(),
            self.learner.most_rounds,
            [(fold.learn, fold.judge) for fold in self.folds],
        )
        digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
        for part in vars(self.rows).values():
            digest.update(b"-" if part is None else f"{part.dtype}{part.shape}".encode())
            if part is not None:
                # Column by column if it lies so in memory: no copy of what may be most of the memory.
                digest.update(np.ascontiguousarray(part if part.flags.c_contiguous else part.T).data)
        return digest.hexdigest()

    def run(self, number: int, changed: Params, finished: Sequence[Trial] = ()) -> Trial:
        """Train and judge one trial on every fold; called in every process, with the same parameters.

        The process of rank 0 compares it with the ``finished`` ones on its way; trial 0, the spec's own
        parameters, is never pruned.

        Raises:
            SpecError: The spec's own parameters are refused, or do not converge.
        """
        started, most_rounds = time.monotonic(), self.learner.most_rounds
        compared = [t for t in finished if t.state == "complete" and self.estimator.budget.pruning]
        pruning = Pruning(
            [t.losses for t in compared], [t.means for t in compared],
            searched=self.estimator.search, most_rounds=most_rounds, direction=self.direction,
        )  # fmt: skip
        ended: dict[str, Any]
        try:
            trained = [self._train(number, changed, place, pruning) for place in range(len(self.splits))]
            rounds = self._best_round(trained)
            pairs = zip(self.splits, trained, strict=True)
            folds = tuple(self._score(part, one, min(rounds, len(one.curve))) for part, one in pairs)
            known = [s for s in folds if s is not None]
            score = float(np.mean(known)) if len(known) == len(folds) else None
            losses = best_so_far(trained[0].curve, most_rounds)
            ended = {"rounds": rounds, "score": score, "folds": folds, "losses": losses}
        except optuna.TrialPruned as stop:
            reason, rounds = stop.args
            ended = {"rounds": rounds, "state": "pruned", "reason": reason, "losses": tuple(pruning.losses)}
        except Exception as err:
            if number == 0 or not _parameters_fault(err):
                raise
            ended = {"state": "failed", "reason": f"{type(err).__name__}: {err}"[:500]}
        seconds = round(time.monotonic() - started, 3)
        return Trial(number, changed, **ended, means=tuple(pruning.means), seconds=seconds, gpus=self.gpus)

    def clear(self, number: int) -> None:
        """Remove the checkpoints of a trial that is done."""
        for place in range(len(self.splits)):
            if (folder := self._folder(number, place)) is not None:
                folder.clear()

    def _folder(self, number: int, place: int) -> CheckpointFolder | None:
        return None if self.checkpoints is None else self.checkpoints.sub(f"trial-{number}-fold-{place}")

    def _train(self, number: int, changed: Params, place: int, pruning: Pruning) -> Learned:
        part = self.splits[place]

        def report(rounds: int, loss: float) -> None:
            if number > 0 and not np.isfinite(loss):
                raise SpecError(f"The loss of round {rounds} on fold {place + 1} is not a finite number.")
            if self.watch is not None and rounds in pruning.looks and ranks.rank() == 0:
                self.watch.round(f"trial-{number}-fold-{place}", rounds, loss)
            if place == 0 and number > 0:
                pruning.after_round(rounds, loss)

        learned = self.learner.train(
            {**self.learner.own_params(), **changed}, part.learn, self.learner.most_rounds, part.judge,
            checkpoint=self._folder(number, place), report=report,
        )  # fmt: skip
        if self.estimator.budget.pruning and place + 1 < len(self.splits):
            score = self._score(part, learned, self._best_round([learned]))
            pruning.after_fold(score, may_stop=number > 0, rounds=len(learned.curve))
        return learned

    def _best_round(self, trained: Sequence[Learned]) -> int:
        """Return the round where the mean loss is lowest."""
        longest = max(len(one.curve) for one in trained)
        # A fold that stopped early keeps its last loss, so that no fold counts less in the later rounds.
        mean = np.mean([np.pad(one.curve, (0, longest - len(one.curve)), mode="edge") for one in trained], axis=0)
        if not np.isfinite(mean).any():
            raise SpecError(
                f"{self.spec.name}: the loss is not a finite number after any round: the training does not "
                "converge. Lower the learning rate in the estimator's params, and look for infinite features."
            )
        return int(np.argmin(np.where(np.isfinite(mean), mean, np.inf))) + 1

    def _score(self, part: Split, learned: Learned, rounds: int) -> float | None:
        predicted = learned.predict(part.judge.x, rounds)
        if bad := int((~np.isfinite(predicted)).sum()):
            raise DataContractError(
                f"{self.spec.name}: {bad} of {len(predicted)} predictions on a fold are not finite numbers. "
                "Look for infinite feature values, or lower the learning rate in the estimator's params."
            )
        values = judge(self.spec, part.judge.y, predicted, part.judge.days, part.judge.entities)
        return values[self.spec.training.metric]


def _parameters_fault(err: Exception) -> bool:
    """Whether other parameters may well do better, so that the search goes on."""
    # Of several processes one alone may see another error; only a restart brings them together again.
    if isinstance(err, SpecError) or ranks.world() > 1:
        return isinstance(err, SpecError)
    return isinstance(err, DataContractError | ArithmeticError | ValueError) or type(err).__name__ == "OutOfMemoryError"
