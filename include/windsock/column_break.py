"""What it means that a column of a day is broken, told apart from a changed world: nobody should learn from it.

A column of a day is broken if, against *every* one of the days that it is compared with,

- it is missing, or infinite, in far more rows (at least :data:`GONE` of them, and :data:`GONE_RISE` above the worst of
  those days);
- it holds one value only, where no day nearly did and chance would not;
- it holds other kinds of values (text for numbers);
- its numbers are 10, 100 or 1,000 times as large or as small, and are the usual ones again once that is taken back;
  they are nearer to that than to any of those days.

Ingest holds a live delivery with such a column (``ingest.held``); the monitor looks at what came in all the same
(``monitoring.broken``).
"""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import infer_dtype, is_bool_dtype, is_datetime64_any_dtype, is_float_dtype, is_numeric_dtype

from windsock.distance import Vector, cells_of, is_constant, numbers_of

FEWEST = 20
"""Rows of a day from which on a column of it can be called broken."""
GONE, GONE_RISE = 0.5, 0.4
FACTORS = (10.0, 100.0, 1000.0)
NEAR = 0.15
"""How near to such a factor the ratio of typical sizes must be, as a share of it."""
_FITS = 0.25
"""Distance up to which numbers, the factor taken back, are the reference's again, in its standard deviations."""
_BY_CHANCE = 1e-6
_NEARLY_ONE = 0.9
"""Share of a day's values that are one value, from which on a day of nothing else may follow."""
_CELLS = 500


@dataclass(frozen=True)
class Break:
    """One column of one day that is not what it was."""

    column: str
    what: Literal["missing", "constant", "type", "factor"]
    sentence: str

    def as_json(self) -> dict[str, str]:
        """Return the break as records keep it."""
        return asdict(self)


class Column:
    """What a column is like on the days that others are compared with: rows of all of them, and each row's day."""

    def __init__(self, name: str, reference: pd.Series, past: pd.Series, day: npt.NDArray[np.intp]) -> None:
        self.name = name
        self.past = past = _finite(past)
        self.day = day
        reference = _finite(reference)
        self.missing = float(reference.isna().mean()) if len(reference) else 0.0
        self.known = reference.dropna()
        self.numeric = is_numeric_dtype(self.known) and not is_bool_dtype(self.known)
        numbers = numbers_of(self.known) if self.numeric else np.empty(0)
        self.numbers = numbers[~np.isnan(numbers)]
        self.size = _typical(self.numbers)

    def break_of(self, values: pd.Series) -> Break | None:
        """Return what is broken in the values of one day, or None."""
        if len(values) < FEWEST or not len(self.known):
            return None
        values, given = _finite(values), values
        gone = float(values.isna().mean())
        if gone >= GONE and gone > self.missing + GONE_RISE and gone > self._worst_missing() + GONE_RISE:
            how = "missing" if given.isna().sum() == values.isna().sum() else "missing or infinite"
            return Break(
                self.name, "missing", f"{self.name} is {how} in {gone:.0%} of rows (usual: {self.missing:.0%})"
            )
        known = values.dropna()
        if len(known) < FEWEST:
            return None
        if "numbers" in (kinds := {_kind_of(known), _kind_of(self.known)}) and len(kinds) > 1:
            return Break(self.name, "type", f"{self.name} holds {_kind_of(known)} (usual: {_kind_of(self.known)})")
        if self._only_one(known):
            return Break(self.name, "constant", f"{self.name} is {known.iloc[0]!s} in all rows")
        factor = self._factor(known) if self.numeric and not is_bool_dtype(known) else None
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
        # The rows of a day are alike, as the weather of its hours is: chance by rows says too little.
        by_day = self._by_day(len(known))
        return bool(by_day) and max(float(of.value_counts(normalize=True).iloc[0]) for of in by_day) < _NEARLY_ONE

    def _factor(self, known: pd.Series) -> float | None:
        """Return by what power of ten a day's numbers are off, if they are the reference's but for that."""
        numbers = numbers_of(known)
        numbers = numbers[~np.isnan(numbers)]
        size = _typical(numbers)
        if not size or not self.size or is_constant(self.numbers):
            return None
        for factor in (*FACTORS, *(1 / f for f in FACTORS)):
            if abs(size / self.size / factor - 1) <= NEAR and self._is_nearer_to(factor, size):
                back, given = (self._distance(side) for side in (numbers / factor, numbers))
                return factor if back <= _FITS and back < given / 2 else None
        return None

    def _is_nearer_to(self, factor: float, size: float) -> bool:
        """Say whether a day is nearer to that factor than to what each of the days was."""
        sizes = [_typical(numbers_of(of)) for of in self._by_day(FEWEST)]
        return all(of_day and abs(np.log(size / of_day)) > abs(np.log(factor)) / 2 for of_day in sizes)

    def _by_day(self, rows: int) -> list[pd.Series]:
        """Return the values of each day that has so many of them, or :data:`FEWEST`."""
        known = self.past.notna().to_numpy()
        by_day = self.past[known].groupby(self.day[known])
        return [values for _, values in by_day if len(values) >= min(FEWEST, rows)]

    def _distance(self, numbers: Vector) -> float:
        sides = [pd.Series(side) for side in (numbers, self.numbers)]
        cells = cells_of("wasserstein", sides[1], sides[0], numeric=True, cells=_CELLS)
        return float(cells.distance(*(cells.counts(cells.places(side))[0] for side in sides)))


def _finite(values: pd.Series) -> pd.Series:
    """Count what is infinite as missing, as all that compares columns does."""
    return values.where(np.isfinite(values)) if is_float_dtype(values) else values


def _kind_of(known: pd.Series) -> Literal["numbers", "times", "text"]:
    """Name what a column without its missing values holds; flags are numbers, 0 and 1.

    A column of flags is one of objects as soon as some are missing.
    """
    if is_numeric_dtype(known) or infer_dtype(known) == "boolean":
        return "numbers"
    return "times" if is_datetime64_any_dtype(known) else "text"


def _typical(numbers: Vector) -> float:
    """Return the median size of what is not zero; 0 if nothing is."""
    sizes = np.abs(numbers[numbers != 0])
    return float(np.median(sizes)) if len(sizes) else 0.0
