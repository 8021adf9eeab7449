"""When a trial is stopped early: it does worse than most did at the same point, by Optuna's median pruner.

Two signals: the lowest loss so far on the first fold, at twenty rounds at most, and the mean
metric after each fold. Finished trials alone decide, so a killed trainer decides the same again.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import optuna

from windsock.learners import ranks
from windsock.search.study import Direction

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
Signals = Sequence[Sequence[float]]
"""One signal of each of the trials that are complete."""


def looks(most_rounds: int) -> list[int]:
    """Return the rounds that pruning looks at, twenty at most."""
    return sorted({max(1, round(most_rounds * n / _LOOKS)) for n in range(1, _LOOKS + 1)})


def best_so_far(curve: Sequence[float], most_rounds: int) -> tuple[float, ...]:
    """Return the lowest loss up to each of the rounds looked at; one that stopped early keeps its last."""
    lowest = np.fmin.accumulate(np.nan_to_num(curve, nan=1e30, posinf=1e30))  # JSON holds no other numbers
    return tuple(float(lowest[min(at, len(lowest)) - 1]) for at in looks(most_rounds))


class Pruning:
    """Follows one trial, and raises ``optuna.TrialPruned`` with the reason and the rounds done when most did better."""

    def __init__(
        self, losses: Signals, means: Signals, *, searched: Iterable[str], most_rounds: int, direction: Direction
    ) -> None:
        self.looks = looks(most_rounds)
        self.losses: list[float] = []
        self.means: list[float] = []
        self._curve: list[float] = []
        self._scores: list[float | None] = []
        comparable = () if _MOVE_THE_LOSS.intersection(searched) else losses
        self._loss_is_worse = _compare(comparable, "minimize", math.ceil(_WARM_UP * len(self.looks)))
        self._mean_is_worse = _compare(means, direction, 0)

    def after_round(self, rounds: int, loss: float) -> None:
        """Take note of the first fold's loss; called in the process of rank 0 alone."""
        self._curve.append(loss)
        if rounds in self.looks:
            self.losses.append(min(self._curve))
            if self._loss_is_worse(len(self.losses) - 1, self.losses[-1]):
                reason = f"loss {self.losses[-1]:.4g} on the first fold after round {rounds}: most did better"
                raise optuna.TrialPruned(reason, rounds)

    def after_fold(self, score: float | None, *, may_stop: bool, rounds: int) -> None:
        """Take note of a fold's metric; called in every process, decided by the one of rank 0."""
        self._scores.append(score)
        scores = [s for s in self._scores if s is not None]
        if len(scores) < len(self._scores):
            return  # without a value on every fold there is nothing to compare
        self.means.append(float(np.mean(scores)))
        if may_stop and ranks.shared(lambda: self._mean_is_worse(len(scores) - 1, self.means[-1])):
            reason = f"metric {self.means[-1]:.4g} after {len(scores)} of the folds: most did better"
            raise optuna.TrialPruned(reason, rounds)


def _compare(finished: Signals, direction: Direction, warm_up: int) -> Callable[[int, float], bool]:
    """Return what says whether a trial with this value at a step does worse than most, of seven at least."""
    pruner = optuna.pruners.MedianPruner(_STARTUP_TRIALS, warm_up, n_min_trials=_STARTUP_TRIALS)
    study = optuna.create_study(direction=direction, pruner=pruner)
    study.add_trials([optuna.create_trial(value=0.0, intermediate_values=dict(enumerate(one))) for one in finished])
    trial = study.ask()

    def is_worse(step: int, value: float) -> bool:
        trial.report(value, step)
        return bool(trial.should_prune())

    return is_worse
