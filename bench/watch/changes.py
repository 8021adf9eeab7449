"""Changes that are planted in a world: what is done from a day on, and what a night must say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from bench.watch.nights import Night
from bench.watch.worlds import FIRST_DAY, LABEL_DELAY, Data, World, make_data, ordinals, paid, simulated, since_then
from windsock.spec.sources import Drift

AHEAD = 9
"""Days after a change that are looked at."""
Values = np.ndarray[Any, Any]
Replace = Callable[[Values, np.random.Generator], Values]
"""From the values of the changed days to those that come instead."""
Plant = Callable[[World, Data, int, int], Data]
"""From a world, its data, a seed and the first changed day to what happens instead."""


@dataclass(frozen=True)
class Change:
    """One kind of change."""

    name: str
    world: str
    plant: Plant
    right: Callable[[Night], bool]
    """Whether a night says it, and names the right cause."""
    lag: int = 0
    """Days until a window can hold a whole day of it: labels, and views over labelled days, come later."""


def all_changes(size: Mapping[str, int]) -> tuple[Change, ...]:
    """List every change; ``size`` is the handbook's number of customers and terminals."""

    def drift(kind: str, factor: float) -> Plant:
        def plant(world: World, data: Data, seed: int, since: int) -> Data:
            on = Drift.model_validate(
                {"kind": kind, "size": factor, "from_day": str(FIRST_DAY + timedelta(days=since))}
            )
            return since_then(
                data, paid(world.spec, simulated(seed, size, on), since + AHEAD + 1, since), since, world.spec
            )

        return plant

    amount = "TX_AMOUNT"
    return (
        Change("amounts doubled", "handbook", drift("amounts", 2.0), _drifted(amount)),
        Change("amounts in cents", "handbook", _events(amount, _times(100)), _broken(amount, "factor")),
        Change("amount constant", "handbook", _events(amount, _always(50.0)), _broken(amount, "constant")),
        Change(
            "a tenth of the terminals 20 times as popular (views end 7 days before)",
            "handbook",
            drift("terminal_mix", 2.0),
            lambda night: any("TERMINAL_ID_NB" in name for name in night.moved),
            lag=LABEL_DELAY,
        ),
        Change(
            "other frauds: as many, of other payments, inputs unchanged",
            "handbook",
            _labels(_dealt_anew),
            lambda night: night.degraded and night.concept,
            lag=LABEL_DELAY,
        ),
        Change(
            "three times the label rate",
            "handbook",
            _labels(_three_times),
            lambda night: night.labels_alarm and "rate of positive labels" in night.said,
            lag=LABEL_DELAY,
        ),
        Change("one column of 500 by 2 sd", "500 columns", _events("c0", _plus(2.0)), _drifted("c0")),
        Change("90 % null", "strong week", _events("items", _mostly_null), _broken("items", "missing")),
        Change("a new category in 20 % of rows", "strong week", _events("channel", _new_category), _drifted("channel")),
    )


def _drifted(name: str) -> Callable[[Night], bool]:
    return lambda night: night.drift.drifted and name in night.moved and name in night.said


def _broken(name: str, what: str) -> Callable[[Night], bool]:
    return lambda night: (name, what) in night.broken and name in night.said


def _events(column: str, change: Replace) -> Plant:
    """Change a column of the events from a day on."""

    def plant(world: World, data: Data, seed: int, since: int) -> Data:
        day = ordinals(data.events[world.spec.events.time])
        kept = data.events.filter(pa.array(day <= since + AHEAD))
        at = day[day <= since + AHEAD] >= since
        old = kept[column].to_numpy(zero_copy_only=False)
        new = old.astype(object)
        new[at] = change(old[at], np.random.default_rng([seed, 1]))
        place = kept.column_names.index(column)
        return replace(data, events=kept.set_column(place, column, pa.array(new, kept.schema.field(column).type)))

    return plant


def _labels(change: Replace) -> Plant:
    """Change the labels of the events from a day on."""

    def plant(world: World, data: Data, seed: int, since: int) -> Data:
        spec, rng = world.spec, np.random.default_rng([seed, 2])
        day = ordinals(data.labels["event_time"])
        kept = data.labels.filter(pa.array(day <= since + AHEAD))
        day, label = day[day <= since + AHEAD], kept[spec.label.column].to_numpy().copy()
        for changed in range(since, since + AHEAD + 1):
            label[day == changed] = change(label[day == changed], rng)
        events = data.events.filter(pa.array(ordinals(data.events[spec.events.time]) <= since + AHEAD))
        columns = {name: events[name] for name in spec.events.columns}
        return make_data(spec, columns, label)

    return plant


def _times(factor: float) -> Replace:
    return lambda old, _: old * factor


def _plus(shift: float) -> Replace:
    return lambda old, _: old + shift


def _always(value: float) -> Replace:
    return lambda old, _: np.full(len(old), value)


def _dealt_anew(label: Values, rng: np.random.Generator) -> Values:
    return rng.permutation(label)


def _three_times(label: Values, rng: np.random.Generator) -> Values:
    more = rng.random(len(label)) < 2 * label.mean() / (1 - label.mean())
    return np.maximum(label, more.astype(label.dtype))


def _mostly_null(old: Values, rng: np.random.Generator) -> Values:
    return np.where(rng.random(len(old)) < 0.9, None, old.astype(object))


def _new_category(old: Values, rng: np.random.Generator) -> Values:
    return np.where(rng.random(len(old)) < 0.2, "kiosk", old.astype(object))
