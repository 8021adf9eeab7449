"""Broken data, told apart from a changed world: nobody should learn from a column that a sender broke.

A column of a day is broken if, against *every* one of the champion's own days,

- it is missing in far more rows (at least :data:`GONE` of them, and :data:`GONE_RISE` above the worst of those days);
- it holds one value only, where no day did and chance would not;
- it holds other kinds of values (text for numbers);
- its numbers are 10, 100 or 1,000 times as large or as small, and are the reference's again once that is taken back.

Values of a broken column on a day are left out of the comparison. While the newest day has one, the night neither
starts nor ends a drift: the governor waits, and people are told. A sender that means it (cents from now on, for good)
needs a training by hand, whose champion has the new days as its reference.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_numeric_dtype

from windsock.monitoring.distance import Vector, cells_of, is_constant, numbers_of
from windsock.monitoring.window import Samples
from windsock.served.metrics import SCORE

FEWEST = 20
"""Rows of a day from which on a column of it can be called broken."""
GONE, GONE_RISE = 0.5, 0.4
FACTORS = (10.0, 100.0, 1000.0)

_NEAR = 0.15
"""How near to such a factor the ratio of typical sizes must be, as a share of it."""
_FITS = 0.25
"""Distance up to which numbers, the factor taken back, are the reference's again, in its standard deviations."""
_BY_CHANCE = 1e-6
_CELLS = 500
_AT_ONCE = 10_000_000
"""Values of one side that are copied at a time."""


@dataclass(frozen=True)
class Break:
    """One column of one day that is not what it was."""

    column: str
    what: Literal["missing", "constant", "type", "factor"]
    sentence: str

    def as_json(self) -> dict[str, str]:
        """Return the break as records keep it."""
        return asdict(self)


@dataclass(frozen=True)
class Breaks:
    """What is broken in the window."""

    newest: tuple[Break, ...] = ()
    """On its newest day."""
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
        column = _Column(name, rows.reference[name], rows.history.frame[name], rows.history.day)
        found = [column.break_of(rows.current[name].iloc[at]) for at in places]
        bad = [at for at, broken in zip(places, found, strict=True) if broken is not None]
        if bad:
            left_out[name] = np.isin(np.arange(len(rows.day)), np.concatenate(bad))
        if found[-1] is not None:
            newest.append(found[-1])
    return Breaks(tuple(newest), left_out)


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
    now, then = (side[names].to_numpy(dtype=np.float64) for side in (current, reference))
    odd = np.zeros(len(names), dtype=bool)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column may be missing altogether
        usual = _typical_sizes(then)
        for at in places:
            day = now[at]
            odd |= (np.isnan(day).mean(axis=0) >= GONE) | (np.nanmin(day, axis=0) == np.nanmax(day, axis=0))
            times = np.log10(_typical_sizes(day) / usual)
            odd |= abs(times) >= np.log10(min(FACTORS) * (1 - _NEAR))
    return [name for name, found in zip(names, odd, strict=True) if found]


def _typical_sizes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return :func:`_typical` of each column."""
    sizes = np.abs(values)
    return np.asarray(np.nanmedian(np.where((sizes > 0) & np.isfinite(sizes), sizes, np.nan), axis=0))


class _Column:
    """What a column is like on the champion's own days."""

    def __init__(self, name: str, reference: pd.Series, past: pd.Series, day: npt.NDArray[np.intp]) -> None:
        self.name = name
        self.past = past
        self.day = day
        self.missing = float(reference.isna().mean()) if len(reference) else 0.0
        self.known = reference.dropna()
        self.numeric = is_numeric_dtype(self.known) and not pd.api.types.is_bool_dtype(self.known)
        numbers = numbers_of(self.known) if self.numeric else np.empty(0)
        self.numbers = numbers[~np.isnan(numbers)]
        self.size = _typical(self.numbers)

    def break_of(self, values: pd.Series) -> Break | None:
        """Return what is broken in the values of one day, or None."""
        if len(values) < FEWEST or not len(self.known):
            return None
        gone = float(values.isna().mean())
        if gone >= GONE and gone > self.missing + GONE_RISE and gone > self._worst_missing() + GONE_RISE:
            return Break(
                self.name, "missing", f"{self.name} is missing in {gone:.0%} of rows (usual: {self.missing:.0%})"
            )
        known = values.dropna()
        if len(known) < FEWEST:
            return None
        if is_numeric_dtype(known) != is_numeric_dtype(self.known):
            return Break(self.name, "type", f"{self.name} holds {known.dtype} values (usual: {self.known.dtype})")
        if self._only_one(known):
            return Break(self.name, "constant", f"{self.name} is {known.iloc[0]!s} in all rows")
        factor = self._factor(known) if self.numeric and not pd.api.types.is_bool_dtype(known) else None
        if factor is not None:
            times = f"{factor:,.0f} times" if factor > 1 else f"a {round(1 / factor):,}th of"
            return Break(self.name, "factor", f"{self.name} is {times} what it was")
        return None

    def _worst_missing(self) -> float:
        return float(self.past.isna().groupby(self.day).mean().max())

    def _only_one(self, known: pd.Series) -> bool:
        """Say whether a day holds one value, where no day did and chance would not."""
        if not (is_constant(numbers_of(known)) if self.numeric else known.nunique() == 1):
            return False
        most = float(self.known.value_counts(normalize=True).iloc[0])
        if most ** len(known) > _BY_CHANCE:
            return False
        by_day = self.past.dropna().groupby(self.day[self.past.notna().to_numpy()])
        return not bool((by_day.nunique()[by_day.size() >= min(FEWEST, len(known))] <= 1).any())

    def _factor(self, known: pd.Series) -> float | None:
        """Return by what power of ten a day's numbers are off, if they are the reference's but for that."""
        numbers = numbers_of(known)
        numbers = numbers[~np.isnan(numbers)]
        size = _typical(numbers)
        if not size or not self.size or is_constant(self.numbers):
            return None
        for factor in (*FACTORS, *(1 / f for f in FACTORS)):
            if abs(size / self.size / factor - 1) <= _NEAR:
                back, given = (self._distance(side) for side in (numbers / factor, numbers))
                return factor if back <= _FITS and back < given / 2 else None
        return None

    def _distance(self, numbers: Vector) -> float:
        sides = [pd.Series(side) for side in (numbers, self.numbers)]
        cells = cells_of("wasserstein", sides[1], sides[0], numeric=True, cells=_CELLS)
        return float(cells.distance(*(cells.counts(cells.places(side))[0] for side in sides)))


def _typical(numbers: Vector) -> float:
    """Return the median size of what is not zero; 0 if nothing is."""
    sizes = np.abs(numbers[numbers != 0])
    return float(np.median(sizes)) if len(sizes) else 0.0
