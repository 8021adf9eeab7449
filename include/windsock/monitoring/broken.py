"""Broken columns of the window, against the champion's own days, by the rules of ``windsock.column_break``.

Values of a broken column on a day are left out of the comparison. While the newest day has one, the night neither
starts nor ends a drift: the governor waits, and people are told. A sender that means it (cents from now on, for good)
needs a training by hand, whose champion has the new days as its reference.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from windsock.column_break import FACTORS, FEWEST, GONE, NEAR, Break, Column
from windsock.distance import finite_or_nan
from windsock.monitoring.window import Samples
from windsock.served.metrics import SCORE

_AT_ONCE = 10_000_000
"""Values of one side that are copied at a time."""


@dataclass(frozen=True)
class Breaks:
    """What is broken in the window."""

    newest: tuple[Break, ...] = ()
    """On its newest day."""
    examined: bool = False
    """Whether that day has enough rows to say."""
    left_out: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """Column to a mask of recent rows whose values of it are those of a broken day."""


def find_breaks(rows: Samples) -> Breaks:
    """Find broken columns, day by day.

    Without days in the reference nothing is called broken: what its days are like is not known.
    """
    if rows.history is None or rows.day is None or not len(rows.day):
        return Breaks()
    days, number = np.unique(rows.day, return_inverse=True)
    places = [np.flatnonzero(number == n) for n in range(len(days))]
    newest, left_out = list[Break](), dict[str, npt.NDArray[np.bool_]]()
    for name in _conspicuous(rows, places):
        column = Column(name, rows.reference[name], rows.history.frame[name], rows.history.day)
        found = [column.break_of(rows.current[name].iloc[at]) for at in places]
        bad = [at for at, broken in zip(places, found, strict=True) if broken is not None]
        if bad:
            left_out[name] = np.isin(np.arange(len(rows.day)), np.concatenate(bad))
        if found[-1] is not None:
            newest.append(found[-1])
    return Breaks(tuple(newest), len(places[-1]) >= FEWEST, left_out)


def _conspicuous(rows: Samples, places: Sequence[npt.NDArray[np.intp]]) -> list[str]:
    """List the columns to look at: of numbers, those of which a day is mostly missing, constant or a factor off.

    Many at once, as most of hundreds of columns are none of it; of a million rows a few.
    """
    names = [name for name in rows.current.columns if name != SCORE and name not in rows.left_out]
    sides = rows.current, rows.reference
    plain = [name for name in names if all(side[name].dtype.kind in "iuf" for side in sides)]
    width = max(1, _AT_ONCE // max(1, *map(len, sides)))
    seen = {
        name
        for first in range(0, len(plain), width)
        for name in _odd(plain[first : first + width], rows.current, rows.reference, places)
    }
    return [name for name in names if name in seen or name not in plain]


def _odd(
    names: list[str], current: pd.DataFrame, reference: pd.DataFrame, places: Sequence[npt.NDArray[np.intp]]
) -> list[str]:
    now, then = (finite_or_nan(side[names].to_numpy(dtype=np.float64)) for side in (current, reference))
    odd = np.zeros(len(names), dtype=bool)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column may be missing altogether
        usual = _typical_sizes(then)
        for at in places:
            day = now[at]
            odd |= (np.isnan(day).mean(axis=0) >= GONE) | (np.nanmin(day, axis=0) == np.nanmax(day, axis=0))
            times = np.log10(_typical_sizes(day) / usual)
            odd |= abs(times) >= np.log10(min(FACTORS) * (1 - NEAR))
    return [name for name, found in zip(names, odd, strict=True) if found]


def _typical_sizes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the median size of what is not zero, of each column."""
    sizes = np.abs(values)
    return np.asarray(np.nanmedian(np.where(sizes > 0, sizes, np.nan), axis=0))
