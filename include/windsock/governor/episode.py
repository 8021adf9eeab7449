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


def measured_by(spec: ModelSpec, in_force: date) -> date:
    """Return the day by which a champion in force since a day has been measured, if it ever is.

    Then labels are there for all the days that are judged; where they are too few, they are so on later days too.
    """
    return in_force + timedelta(days=spec.label.delay_days + spec.monitoring.performance_days)


@dataclass(frozen=True)
class Episode:
    """The same drift, night after night."""

    first: Signal
    root: Signal
    """The first signal of what it has grown out of, without a quiet time between; else its own."""


@dataclass
class _Base:
    """What an episode was like for a champion in its first window: what it grows from."""

    champion: str | None
    until: date
    """The first day of which the window says nothing of the time before."""
    seen: bool = False
    """Whether a night of it was judged."""
    drifted: bool = False
    columns: int = 0
    distance: float = 0.0

    def take(self, signal: Signal) -> None:
        """Count a night of the first window."""
        self.drifted |= signal.drifted
        self.columns, self.distance = max(self.columns, signal.columns), max(self.distance, signal.distance)

    def is_outgrown(self, signal: Signal) -> bool:
        """Say whether a night drifted clearly farther, or in clearly more features, or where nothing had."""
        if not self.drifted:
            return signal.drifted
        if not self.distance:  # nothing is known of it
            return False
        many = signal.columns >= max(_MANY_MORE * self.columns, self.columns + 2)
        return many or signal.distance > _MUCH_FARTHER * self.distance


def episode(spec: ModelSpec, signals: Sequence[Signal]) -> Episode | None:
    """Return the episode that the last of some days, in order, belongs to; None: to none.

    ``out_of`` judged quiet days in a row end an episode; a change of champion does not, and until its performance has
    been measured, or should have been, nothing about the new one says that it is over. An episode whose distances or
    features have clearly grown, once its window is full of it, is another one from there on. A new champion has another
    reference: what grows is measured by what it saw first.
    """
    policy, full = spec.retraining, timedelta(days=spec.monitoring.window_days)
    found: Episode | None = None
    base, since, quiet, grown = _Base(None, date.min), date.min, 0, list[Signal]()
    for signal in signals:
        if signal.champion is None:
            continue
        if found is not None and signal.champion != base.champion:
            base, since, grown = _Base(signal.champion, signal.day + full), signal.day, []
        if signal.judged and not base.seen:
            base.seen, base.until = True, signal.day + full
        if speaks(spec, signal, found.first if found is not None else None):
            quiet = 0
            if found is None:
                found, base, grown = Episode(signal, signal), _Base(signal.champion, signal.day + full, seen=True), []
            if signal.day < base.until:
                base.take(signal)
            elif base.is_outgrown(signal):
                grown = [s for s in grown if s.day > signal.day - timedelta(days=policy.out_of)] + [signal]
                if len(grown) >= policy.needed:
                    base = _Base(signal.champion, signal.day + full, seen=True)
                    found, grown = Episode(grown[0], found.root), []
                    base.take(signal)
        elif signal.judged and found is not None and _says_it_is_over(found, signal, measured_by(spec, since)):
            quiet += 1
            if quiet >= policy.out_of:
                found = None
    return found


def _says_it_is_over(found: Episode, quiet: Signal, due: date) -> bool:
    return quiet.champion == found.first.champion or quiet.value is not None or quiet.day >= due
