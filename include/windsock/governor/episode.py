"""Signals, and the episode that a night belongs to: since when the same drift goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from windsock.spec import ModelSpec
from windsock.spec.modelling import LOWER_IS_BETTER

_MUCH_FARTHER, _MANY_MORE = 2.0, 1.5
"""By which factor a distance, or the number of drifted features, has grown where an episode has become another one."""


@dataclass(frozen=True)
class Signal:
    """What the monitor found for one day."""

    day: date
    champion: str | None
    """Model version that was judged; None: there was no champion."""
    drifted: bool = False
    degraded: bool = False
    judged: bool = True
    """False if there was too little data to find anything; such a day neither starts nor ends an episode."""
    why: str = ""
    """The finding in a few words, for reasons."""
    columns: int = 0
    """Features that drifted."""
    distance: float = 0.0
    """The largest distance of a feature, in multiples of its threshold."""
    value: float | None = None
    """The metric of matured predictions, measured; ``promised`` is what the champion's holdout said."""
    promised: float | None = None
    new_labels: int = 0
    """Labels that have become known since the champion's training."""

    @property
    def on(self) -> bool:
        """Whether the day speaks for retraining."""
        return self.drifted or self.degraded


def speaks(spec: ModelSpec, signal: Signal, first: Signal | None) -> bool:
    """Say whether a day speaks for retraining, by the triggers that are switched on.

    A champion of after an episode's beginning is held against what was promised before: its own promise may be half.
    """
    policy = spec.retraining
    if (signal.drifted and policy.on_drift) or (signal.degraded and policy.on_loss):
        return True
    if first is None or not policy.on_loss or signal.champion == first.champion:
        return False
    if signal.value is None or first.promised is None:
        return False
    worse = signal.value - first.promised if spec.training.metric in LOWER_IS_BETTER else first.promised - signal.value
    return worse > spec.monitoring.max_performance_drop * max(abs(first.promised), 1e-9)


def onset(spec: ModelSpec, signals: Sequence[Signal]) -> Signal | None:
    """Return the first signal of the episode that the last of some days, in order, belongs to; None: to none.

    ``out_of`` judged quiet days in a row end an episode; a change of champion does not, and until its performance has
    been measured nothing about the new one says that it is over. An episode whose distances or features have clearly
    grown, once its window is full of it, is another one from there on.
    """
    policy, full = spec.retraining, timedelta(days=spec.monitoring.window_days)
    first: Signal | None = None
    quiet, columns, distance, grown = 0, 0, 0.0, list[Signal]()
    for signal in signals:
        if speaks(spec, signal, first):
            quiet = 0
            if first is None:
                first, columns, distance, grown = signal, signal.columns, signal.distance, []
            elif signal.day < first.day + full:
                columns, distance = max(columns, signal.columns), max(distance, signal.distance)
            elif signal.columns >= max(_MANY_MORE * columns, columns + 2) or signal.distance > _MUCH_FARTHER * distance:
                grown = [s for s in grown if s.day > signal.day - timedelta(days=policy.out_of)] + [signal]
                if len(grown) >= policy.needed and distance:
                    first, grown = grown[0], []
                    columns, distance = signal.columns, signal.distance
        elif signal.judged and first is not None and (signal.champion == first.champion or signal.value is not None):
            quiet += 1
            if quiet >= policy.out_of:
                first = None
    return first
