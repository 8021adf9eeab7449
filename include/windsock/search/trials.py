"""One trial of a search: a parameter set trained and judged on every fold.

The number of rounds is where the mean loss curve of the folds is lowest; loss is smooth
where ranking metrics of a few hundred positives jump. ``search`` is the loop around this,
``pruning`` says when a trial is stopped early.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from windsock.dataset.folds import Fold
from windsock.errors import DataContractError, SpecError
from windsock.learners import ranks
from windsock.learners.learner import Learned, Learner, Params
from windsock.learners.rows import Rows
from windsock.runs.checkpoints import CheckpointFolder
from windsock.search.pruning import Prunes, Pruning, TrialPruned, best_so_far
from windsock.served.metrics import judge
from windsock.spec import ModelSpec

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """One parameter set and how it did."""

    number: int
    params: Params
    """What the search changed; empty for the spec's own parameters."""
    rounds: int
    """Rounds chosen; where it was stopped if it was pruned; 0 if it failed."""
    score: float | None
    """Mean of the folds; None if a fold could not be judged, or the trial did not get to its end."""
    folds: tuple[float | None, ...]
    state: State = "complete"
    reason: str = ""
    """Why it was pruned or failed."""
    losses: tuple[float, ...] = ()
    """Lowest loss so far on the first fold, at the rounds where pruning looks."""
    means: tuple[float, ...] = ()
    """Mean metric after each fold but the last, each at its own best round."""
    seconds: float = field(default=0.0, compare=False)
    """How long it took, in all tries together."""
    gpus: int = field(default=0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types: what inputs and seed decide, so without times."""
        return {
            "number": self.number,
            "params": self.params,
            "rounds": self.rounds,
            "score": self.score,
            "folds": list(self.folds),
            "state": self.state,
            "reason": self.reason,
        }

    def to_record(self) -> dict[str, Any]:
        """Return all there is to know, as plain JSON types; :meth:`from_record` reads it."""
        more = {"losses": list(self.losses), "means": list(self.means), "seconds": self.seconds, "gpus": self.gpus}
        return self.to_json() | more

    @classmethod
    def from_record(cls, raw: Mapping[str, Any]) -> Self:
        """Rebuild a trial from its record."""
        lists = {name: tuple(raw[name]) for name in ("folds", "losses", "means")}
        return cls(**{**raw, **lists})


class TrialWatch(Protocol):
    """Who is told how a search goes on, for live metrics."""

    def trial(self, number: int, score: float | None, state: str) -> None:
        """Tell how a trial did."""

    def round(self, place: str, number: int, loss: float) -> None:
        """Tell the loss after a round; ``place`` names trial and fold."""


@dataclass(frozen=True)
class Split:
    """A fold's rows."""

    fold: Fold
    learn: Rows
    judge: Rows


def split(spec: ModelSpec, rows: Rows, fold: Fold) -> Split | None:
    """Cut the rows; None if a side is empty or has one class."""
    learn = rows.where(np.isin(rows.days, [d.isoformat() for d in fold.learn]))
    judged = rows.where(np.isin(rows.days, [d.isoformat() for d in fold.judge]))
    if judged.blocked_by is not None and learn.blocked_by is not None:
        judged = judged.where(~np.isin(judged.blocked_by, np.unique(learn.blocked_by[learn.y == 1])))
    for part in (learn, judged):
        if len(part.y) == 0 or (spec.label.task == "binary" and len(np.unique(part.y)) < 2):
            return None
    return Split(fold, learn, judged)


@dataclass(frozen=True)
class Course:
    """What every trial of a search runs over."""

    learner: Learner
    spec: ModelSpec
    splits: Sequence[Split]
    own: Params
    prunes: Prunes
    gpus: int = 0
    checkpoints: CheckpointFolder | None = None
    watch: TrialWatch | None = None

    def run(self, number: int, changed: Params, finished: Sequence[Trial]) -> Trial:
        """Train and judge on every fold.

        Args:
            number: The trial's; 0, the spec's own parameters, is never pruned.
            changed: Parameters that differ from the spec's own.
            finished: Trials that are done, which this one is compared with on its way.

        Raises:
            SpecError: The spec's own parameters are refused, or do not converge.
        """
        started, pruning = time.monotonic(), Pruning(self.prunes, finished)

        def ended(rounds: int = 0, score: float | None = None, **more: Any) -> Trial:
            folds = more.pop("folds", ())
            seconds = round(time.monotonic() - started, 3)
            return Trial(
                number, changed, rounds, score, folds, means=tuple(pruning.means), seconds=seconds, gpus=self.gpus,
                **more,
            )  # fmt: skip

        try:
            trained = [self._train(number, changed, place, pruning) for place in range(len(self.splits))]
            rounds = self._rounds(trained)
            scores = tuple(
                self._score(s, one, min(rounds, len(one.curve))) for s, one in zip(self.splits, trained, strict=True)
            )
        except TrialPruned as stop:
            return ended(stop.rounds, state="pruned", reason=str(stop), losses=tuple(pruning.losses))
        except Exception as err:
            if number == 0 or not _parameters_fault(err):
                raise
            return ended(state="failed", reason=f"{type(err).__name__}: {err}"[:500])
        known = [s for s in scores if s is not None]
        score = float(np.mean(known)) if len(known) == len(scores) else None
        return ended(rounds, score, folds=scores, losses=best_so_far(trained[0].curve, self.learner.most_rounds))

    def clear(self, number: int) -> None:
        """Remove the checkpoints of a trial that is done."""
        for place in range(len(self.splits)):
            if (folder := self._folder(number, place)) is not None:
                folder.clear()

    def _train(self, number: int, changed: Params, place: int, pruning: Pruning) -> Learned:
        part = self.splits[place]
        name = f"trial-{number}-fold-{place}"

        def report(rounds: int, loss: float) -> None:
            if number > 0 and not np.isfinite(loss):
                raise SpecError(f"The loss of round {rounds} on fold {place + 1} is not a finite number.")
            looks = pruning.looks_at(rounds)
            if looks and self.watch is not None and ranks.rank() == 0:
                self.watch.round(name, rounds, loss)
            if place == 0 and number > 0:
                pruning.after_round(rounds, loss)

        learned = self.learner.train(
            {**self.own, **changed}, part.learn, self.learner.most_rounds, part.judge,
            checkpoint=self._folder(number, place), report=report,
        )  # fmt: skip
        if self.prunes.active and place + 1 < len(self.splits):
            score = self._score(part, learned, self._rounds([learned]))
            pruning.after_fold(score, may_stop=number > 0, rounds=len(learned.curve))
        return learned

    def _rounds(self, trained: Sequence[Learned]) -> int:
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
        predicted: npt.NDArray[np.float64] = learned.predict(part.judge.x, rounds)
        bad = int((~np.isfinite(predicted)).sum())
        if bad:
            raise DataContractError(
                f"{self.spec.name}: {bad} of {len(predicted)} predictions on a fold are not finite numbers. "
                "Look for infinite feature values, or lower the learning rate in the estimator's params."
            )
        values = judge(self.spec, part.judge.y, predicted, part.judge.days, part.judge.entities)
        return values[self.spec.training.metric]

    def _folder(self, number: int, place: int) -> CheckpointFolder | None:
        return None if self.checkpoints is None else self.checkpoints.sub(f"trial-{number}-fold-{place}")


def _parameters_fault(err: Exception) -> bool:
    """Whether other parameters may well do better, so that the search goes on."""
    if isinstance(err, SpecError):
        return True
    # Of several processes one alone may see such an error; only a restart brings them together again.
    if ranks.world() > 1:
        return False
    return isinstance(err, DataContractError | ArithmeticError | ValueError) or type(err).__name__ == "OutOfMemoryError"
