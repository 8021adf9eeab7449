"""One trial of a search: a parameter set trained and judged on every fold, or stopped early.

The number of rounds is where the mean loss curve of the folds is lowest; loss is smooth
where ranking metrics of a few hundred positives jump.

A trial is stopped when it does worse than most did at the same point, by Optuna's median pruner and two signals: the
lowest loss so far on the first fold, at twenty rounds at most, and the mean metric after each fold. Finished trials
alone decide, so a killed trainer decides the same again.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import optuna

from windsock.dataset.time_split import Fold
from windsock.errors import DataContractError, SpecError
from windsock.learners import ranks
from windsock.learners.learner import Learned, Learner, Params, Rows
from windsock.runs.run_folder import CheckpointFolder
from windsock.search.live import LiveRun
from windsock.search.study import Direction, SharedStudy, Trial
from windsock.served.metrics import judge
from windsock.spec import ModelSpec
from windsock.spec.estimators import BuiltIn, TorchSpec
from windsock.spec.modelling import LOWER_IS_BETTER

_LOOKS = 20
_STARTUP_TRIALS, _WARM_UP = 7, 0.3  # measured: docs/adr/0012-search-by-optuna.md
# A search that varies these moves the loss itself: how good a trial is, only the metric says then.
_MOVE_THE_LOSS = frozenset(
    {
        "scale_pos_weight", "is_unbalance", "unbalance", "unbalanced_sets", "pos_bagging_fraction",
        "neg_bagging_fraction", "pos_bagging", "neg_bagging", "objective", "objective_type", "app", "application",
        "loss", "positive_weight", "alpha", "reg_sqrt", "sigmoid",
    }
)  # fmt: skip


def best_so_far(curve: Sequence[float], most_rounds: int) -> tuple[float, ...]:
    """Return the lowest loss up to each of the rounds looked at; one that stopped early keeps its last."""
    lowest = np.fmin.accumulate(np.nan_to_num(curve, nan=1e30, posinf=1e30))  # JSON holds no other numbers
    return tuple(float(lowest[min(at, len(lowest)) - 1]) for at in looks(most_rounds))


def looks(most_rounds: int) -> list[int]:
    """Return the rounds that pruning looks at, twenty at most."""
    return sorted({max(1, round(most_rounds * n / _LOOKS)) for n in range(1, _LOOKS + 1)})


class Pruning:
    """Follows one trial, and raises ``optuna.TrialPruned`` with the reason and the rounds done when most did better."""

    def __init__(
        self, finished: Sequence[Trial], searched: Iterable[str], most_rounds: int, direction: Direction
    ) -> None:
        self.looks = looks(most_rounds)
        self.losses: list[float] = []
        self.means: list[float] = []
        self._scores: list[float | None] = []
        comparable = [] if _MOVE_THE_LOSS.intersection(searched) else [t.losses for t in finished]
        self._loss_is_worse = _compare(comparable, "minimize", math.ceil(_WARM_UP * len(self.looks)))
        self._mean_is_worse = _compare([t.means for t in finished], direction, 0)
        self._lowest = math.inf

    def after_round(self, rounds: int, loss: float) -> None:
        """Take note of the first fold's loss; called in the process of rank 0 alone."""
        self._lowest = min(self._lowest, loss)
        if rounds in self.looks:
            self.losses.append(self._lowest)
            if self._loss_is_worse(len(self.losses) - 1, self._lowest):
                reason = f"loss {self._lowest:.4g} on the first fold after round {rounds}: most did better"
                raise optuna.TrialPruned(reason, rounds)

    def after_fold(self, score: float | None, *, may_stop: bool, rounds: int) -> None:
        """Take note of a fold's metric; called in every process, decided by the one of rank 0."""
        self._scores.append(score)
        if None in self._scores:
            return  # without a value on every fold there is nothing to compare
        self.means.append(float(np.mean(self._scores)))  # type: ignore[arg-type]
        if may_stop and ranks.shared(lambda: self._mean_is_worse(len(self.means) - 1, self.means[-1])):
            reason = f"metric {self.means[-1]:.4g} after {len(self.means)} of the folds: most did better"
            raise optuna.TrialPruned(reason, rounds)


def _compare(finished: Sequence[Sequence[float]], direction: Direction, warm_up: int) -> Callable[[int, float], bool]:
    """Return what says whether a trial with this value at a step does worse than most, of seven at least."""
    pruner = optuna.pruners.MedianPruner(_STARTUP_TRIALS, warm_up, n_min_trials=_STARTUP_TRIALS)
    study = optuna.create_study(direction=direction, pruner=pruner)
    study.add_trials([optuna.create_trial(value=0.0, intermediate_values=dict(enumerate(one))) for one in finished])
    trial = study.ask()

    def is_worse(step: int, value: float) -> bool:
        trial.report(value, step)
        return bool(trial.should_prune())

    return is_worse


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
    watch: LiveRun | None = None
    windows: Mapping[int, Sequence[Fold]] = field(default_factory=dict)
    """Length to folds, if lengths of the window are to be compared."""
    days: Sequence[str] = ()
    """The days of the longest window, ``YYYY-MM-DD``."""

    @cached_property
    def splits(self) -> list[Split]:
        """The rows of each usable fold."""
        return [s for fold in self.folds if (s := split(self.spec, self.rows, fold)) is not None]

    def rows_of(self, window_days: int | None) -> Rows:
        """Return the rows of the last days of the window; None: all there are."""
        if window_days is None or not self.days:
            return self.rows
        return self.rows.where(self.rows.days >= min(self.days[-window_days:]))

    @property
    def direction(self) -> Direction:
        """Where a metric gets better."""
        return "minimize" if self.spec.training.metric in LOWER_IS_BETTER else "maximize"

    @property
    def wanted(self) -> int:
        """How many trials there are to be; without a space, the spec's own parameters alone."""
        return self.estimator.trials if self.estimator.search else 1

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
        pruning = Pruning(compared, self.estimator.search, most_rounds, self.direction)
        ended: dict[str, Any]
        try:
            trained = [self._train(number, changed, place, pruning) for place in range(len(self.splits))]
            rounds = self._best_round(trained)
            pairs = zip(self.splits, trained, strict=True)
            folds = tuple(self._score(part, one, min(rounds, len(one.curve))) for part, one in pairs)
            score = None if None in folds else float(np.mean(folds))  # type: ignore[arg-type]
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
        metric, rows = self.spec.training.metric, part.judge
        return judge(self.spec, rows.y, predicted, rows.days, rows.entities, [metric])[metric]


def _parameters_fault(err: Exception) -> bool:
    """Whether other parameters may well do better, so that the search goes on."""
    # Of several processes one alone may see another error; only a restart brings them together again.
    if isinstance(err, SpecError) or ranks.world() > 1:
        return isinstance(err, SpecError)
    return isinstance(err, DataContractError | ArithmeticError | ValueError) or type(err).__name__ == "OutOfMemoryError"
