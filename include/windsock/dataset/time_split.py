"""Which days a training as of T uses, and the time-ordered folds inside its window.

Labels of the last ``delay`` days before T are not known yet, so the newest day that can be judged is
``M = T - delay``; the gap stands for the time a model waits for its labels::

    |---- window ----|---- gap ----|---- holdout ----|---- delay ----|
                                                     M               T
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Self

from windsock.days import ONE_DAY, day_range, last_instant, spans, start_of
from windsock.errors import TooLittleHistory
from windsock.spec import ModelSpec
from windsock.spec.modelling import TrainingSpec


@dataclass(frozen=True)
class Windows:
    """The days of one training."""

    as_of: date
    train: tuple[date, ...]
    gap: tuple[date, ...]
    holdout: tuple[date, ...]
    warm_up: tuple[date, ...] = ()
    """Days of the window that are left out, because their features look back before the first day."""
    older: tuple[date, ...] = ()
    """Days before the window, on which alone its lengths are compared."""
    recovery: bool = False
    """Whether it follows a believed drift, and so has no gap (see ``recovery``)."""

    @property
    def days(self) -> list[date]:
        """Every day from the first one read to the last one held out."""
        return day_range(min([*self.older[:1], self.known_since]), self.holdout[-1])

    @property
    def known_since(self) -> date:
        """The first day whose positives are known ones to the protocol."""
        return min(self.train[0], self.holdout[0])

    @property
    def made_at(self) -> datetime:
        """When a model of this training would have been made: labels known later do not exist for it."""
        indeed = self.recovery or self.train[-1] >= self.holdout[0]
        return last_instant(self.as_of) if indeed else start_of(self.holdout[0])

    def refit(self, window_days: int) -> Self:
        """Return the days of training again up to the last matured one, held-out days and gap included.

        They are among the days of this training. The held-out days stay named: on their rows the refit is compared
        with its judged twin, and no model is judged.
        """
        first = max(self.train[0], self.holdout[-1] - timedelta(days=window_days - 1))
        return replace(self, train=tuple(day_range(first, self.holdout[-1])), gap=(), older=())


@dataclass(frozen=True)
class Fold:
    """One split of the window."""

    learn: tuple[date, ...]
    judge: tuple[date, ...]
    gap_days: int


def windows_of(spec: ModelSpec, as_of: date) -> Windows:
    """Lay the windows of a training as of a day.

    Raises:
        TooLittleHistory: Before ``as_of`` fewer than half of the window's days can be used.
    """
    training = spec.training
    matured = as_of - timedelta(days=spec.label.delay_days)
    holdout = day_range(matured - timedelta(days=training.holdout_days - 1), matured)
    gap = day_range(holdout[0] - timedelta(days=spec.gap_days), holdout[0] - ONE_DAY)
    end = holdout[0] - timedelta(days=spec.gap_days + 1)
    window = day_range(end - timedelta(days=training.window_days - 1), end)
    usable = spec.first_day if training.include_warm_up else spec.first_warm_day
    train = [day for day in window if day >= usable]
    fewest = math.ceil(training.shortest_window / 2)  # not the whole window, so that a young project can start
    if len(train) < fewest or holdout[0] < usable:
        whole = usable + timedelta(
            days=training.window_days + spec.gap_days + training.holdout_days + spec.label.delay_days - 1
        )
        earliest = whole - timedelta(days=training.window_days - fewest)
        why = (
            f"features look back {spec.features.lookback_days} days and data starts on {spec.first_day}, so "
            f"{usable} is the first day with whole features"
            if usable > spec.first_day
            else f"data starts on {spec.first_day}"
        )
        raise TooLittleHistory(
            f"{spec.name}: training as of {as_of} needs days {spans(window)} to learn from and {spans(holdout)} to be "
            f"judged on, but {why}: {len(train)} of {len(window)} days of the window can be used. Training is possible "
            f"as of {earliest} with {fewest} of them, as of {whole} with all. Choose a later as_of, "
            "shorten training.window_days or set training.include_warm_up."
        )
    left_out = tuple(day for day in window if spec.first_day <= day < usable)
    older: list[date] = []
    if training.windows:  # so that the first fold has the longest window whole
        reach = spec.gap_days + training.folds * block_of(training.window_days, training.folds)
        before = day_range(window[0] - timedelta(days=reach), window[0] - ONE_DAY)
        older = [day for day in before if day >= usable]
    return Windows(as_of, tuple(train), tuple(gap), tuple(holdout), left_out, tuple(older))


def block_of(days: int, folds: int) -> int:
    """Return how many days each fold of a window judges."""
    return max(1, days // (folds + 1))


def folds_by_window(
    days: Sequence[date], older: Sequence[date], spec: TrainingSpec, gap_days: int
) -> dict[int, list[Fold]]:
    """Return the folds by which lengths of a window are compared: the same judged blocks for each of them.

    A fold of a length learns from its last days before the gap, whole where history has it.

    Args:
        days: The window, as far as it can be used.
        older: Days right before it.
        spec: Says which lengths there are, and how many folds.
        gap_days: Days between what is learnt from and what is judged.

    Returns:
        Length to folds, the shortest first: lengths that the window holds, or all of it if it is shorter than each.
    """
    lengths = [length for length in spec.windows if length <= len(days)] or [len(days)]
    folds = min(spec.folds, len(days))  # each judges a day of the window at least
    block = block_of(len(days), folds)
    return {
        length: time_folds([*older, *days], folds=folds, gap_days=gap_days, block=block, length=length)
        for length in lengths
    }


def time_folds(
    days: Sequence[date], *, folds: int, gap_days: int, block: int | None = None, length: int | None = None
) -> list[Fold]:
    """Cut a window into folds in order of time: learn from earlier days, judge on later ones.

    The judged blocks are the last ones of the window; each learns from every day before it, less the gap. A window
    too short for the whole gap keeps at least half of the days before a block and shortens the gap to what is left:
    scores are then a little optimistic, which is fine for choosing parameters, and the holdout keeps the whole gap.

    Args:
        days: First to last.
        folds: How many.
        gap_days: Days between what is learnt from and what is judged.
        block: Days that each judges; absent: as many as there are folds and one more.
        length: Learn from so many days at most.

    Returns:
        Fewer than ``folds`` if the window is too short; none if it has a single day.
    """
    window = day_range(days[0], days[-1])
    block = block or block_of(len(window), folds)
    made = []
    for start in range(len(window) - folds * block, len(window), block):
        if start >= 1:
            gap = min(gap_days, start - max(1, (start + 1) // 2))
            first = max(0, start - gap - length) if length else 0
            made.append(Fold(tuple(window[first : start - gap]), tuple(window[start : start + block]), gap))
    return made
