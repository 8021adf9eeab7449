"""Which days a training as of T uses: window, gap, holdout.

Labels of the last ``delay`` days before T are not known yet, so the newest day that can
be judged is ``M = T - delay``. The holdout ends there; the gap before it stands for the
time a model waits for its labels; the window lies before the gap::

    |---- window ----|---- gap ----|---- holdout ----|---- delay ----|
                                                     M               T
"""

import math
from dataclasses import dataclass
from datetime import date, timedelta

from windsock.days import ONE_DAY, day_range, spans
from windsock.errors import TooLittleHistory
from windsock.spec import ModelSpec


@dataclass(frozen=True)
class Windows:
    """The days of one training."""

    as_of: date
    train: tuple[date, ...]
    gap: tuple[date, ...]
    holdout: tuple[date, ...]
    warm_up: tuple[date, ...] = ()
    """Days of the window that are left out, because their features look back before the first day."""

    @property
    def days(self) -> list[date]:
        """Every day from the first one trained on to the last one held out."""
        return day_range(self.train[0], self.holdout[-1])


def windows_of(spec: ModelSpec, as_of: date) -> Windows:
    """Lay the windows of a training as of a day.

    Raises:
        TooLittleHistory: There is too little history before ``as_of``.
    """
    training = spec.training
    matured = as_of - timedelta(days=spec.label.delay_days)
    holdout = day_range(matured - timedelta(days=training.holdout_days - 1), matured)
    gap = day_range(holdout[0] - timedelta(days=spec.gap_days), holdout[0] - ONE_DAY)
    end = holdout[0] - timedelta(days=spec.gap_days + 1)
    window = day_range(end - timedelta(days=training.window_days - 1), end)
    usable = usable_from(spec)
    train = [day for day in window if day >= usable]
    if len(train) < _fewest_days(spec) or holdout[0] < usable:
        whole = usable + timedelta(
            days=training.window_days + spec.gap_days + training.holdout_days + spec.label.delay_days - 1
        )
        earliest = whole - timedelta(days=training.window_days - _fewest_days(spec))
        why = (
            f"features look back {spec.features.lookback_days} days and data starts on {spec.first_day}, so "
            f"{usable} is the first day with whole features"
            if usable > spec.first_day
            else f"data starts on {spec.first_day}"
        )
        raise TooLittleHistory(
            f"{spec.name}: training as of {as_of} needs days {spans(window)} to learn from and {spans(holdout)} to be "
            f"judged on, but {why}: {len(train)} of {len(window)} days of the window can be used. Training is possible "
            f"as of {earliest} with {_fewest_days(spec)} of them, as of {whole} with all. Choose a later as_of, "
            "shorten training.window_days or set training.include_warm_up."
        )
    left_out = tuple(day for day in window if spec.first_day <= day < usable)
    return Windows(as_of, tuple(train), tuple(gap), tuple(holdout), left_out)


def usable_from(spec: ModelSpec) -> date:
    """Return the first day that may be trained on or judged."""
    return spec.first_day if spec.training.include_warm_up else spec.first_warm_day


def _fewest_days(spec: ModelSpec) -> int:
    """Return how many days of the window must be usable: half of them, so that a young project can start."""
    return math.ceil(spec.training.window_days / 2)
