"""Time-ordered folds inside the training window: learn from earlier days, judge on later ones.

The judged blocks are the last ones of the window and do not overlap; each learns from
every day before it (expanding), less the gap that stands for the label delay. A window
too short for the whole gap keeps at least half of the days before a block to learn from
and shortens the gap to what is left: scores are then a little optimistic, which is fine
for choosing between parameters, and the holdout keeps the whole gap. A one-day window
has no folds: the spec's own parameters are used as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from windsock.days import day_range


@dataclass(frozen=True)
class Fold:
    """One split of the window."""

    learn: tuple[date, ...]
    judge: tuple[date, ...]
    gap_days: int


def time_folds(days: Sequence[date], *, folds: int, gap_days: int) -> list[Fold]:
    """Cut the window into folds.

    Args:
        days: The window's days, in order.
        folds: How many are wanted; fewer come back if the window is too short.
        gap_days: Days wanted between what is learnt from and what is judged.

    Returns:
        Folds in order of time; none if the window has a single day.
    """
    window = day_range(days[0], days[-1])
    block = max(1, len(window) // (folds + 1))
    made = []
    for n in range(folds, 0, -1):
        start = len(window) - n * block
        if start < 1:
            continue
        gap = min(gap_days, start - max(1, (start + 1) // 2))
        made.append(Fold(tuple(window[: start - gap]), tuple(window[start : start + block]), gap))
    return made
