"""How far apart two samples of one column lie, computed from counts in cells.

A column is cut into cells once; a sample is then a row of counts. Distances of thousands of pairs of samples (recent
days and reference, one week of the training window and another) are arithmetic on such rows, so the cost of a night
does not grow with the number of comparisons, and a million rows need no sorting. Up to ``cells`` different values
nothing is lost; beyond, cells end at quantiles and at even steps, and the distance is within 5 % of that of all rows.

A Wasserstein distance is in standard deviations of the reference, whatever the column's own size.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

Method = Literal["wasserstein", "jensenshannon", "psi"]
Vector = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

MAX_CATEGORIES = 30
"""The reference's most frequent categories are told apart; all others count as one."""
_EXACT_UP_TO = 20
"""Numbers with so few different values are counted by value, not in ranges (``jensenshannon`` and ``psi``)."""
_LEAST_SHARE = 0.0001
"""Share that stands for an empty cell in ``psi``."""
_ROUND_OFF = 1e-12
"""A spread below this share of a column's size is its numbers' last digits."""


@dataclass(frozen=True)
class Cells:
    """One column, cut into cells."""

    method: Method
    points: Vector | None = None
    """Upper ends of the cells of numbers; None: the cells are categories."""
    widths: Vector | None = None
    """What lies between the points, in standard deviations of the reference (``wasserstein``)."""
    categories: Mapping[Hashable, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many cells; categories have one more, for all others."""
        return len(self.points) if self.points is not None else len(self.categories) + 1

    def places(self, values: pd.Series) -> Places:
        """Return the cell of each value; -1 where it is missing."""
        if self.points is None:
            labels, unique = pd.factorize(values)
            others = len(self.categories)
            cells = np.array([self.categories.get(label_of(value), others) for value in unique], dtype=np.intp)
            return np.where(labels < 0, -1, cells[labels] if len(cells) else -1).astype(np.intp)
        numbers = numbers_of(values)
        found = np.minimum(np.searchsorted(self.points, numbers), len(self.points) - 1)
        return np.where(np.isnan(numbers), -1, found).astype(np.intp)

    def counts(self, places: Places, group: Places | None = None, groups: int = 1) -> Vector:
        """Count places by cell, shape ``(groups, cells)``; missing values count nowhere."""
        kept = places >= 0
        flat = places[kept] if group is None else group[kept] * self.count + places[kept]
        counted = np.bincount(flat, minlength=groups * self.count)
        return counted.reshape(groups, self.count).astype(np.float64)

    def distance(self, one: Vector, other: Vector) -> Vector:
        """Return distances of samples given by their counts, shape ``(..., cells)``; they broadcast.

        A ``psi`` comes as its square root, which, like the other distances, falls with the root of the rows.
        """
        a, b = (shares_of(counts) for counts in (one, other))
        if self.method == "wasserstein" and self.widths is not None:
            return np.asarray(np.abs(np.cumsum(a - b, axis=-1)[..., :-1]) @ self.widths)
        if self.method == "psi":
            a, b = np.maximum(a, _LEAST_SHARE), np.maximum(b, _LEAST_SHARE)
            return np.asarray(np.sqrt(((a - b) * np.log(a / b)).sum(axis=-1)))
        middle = (a + b) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [np.where(x > 0, x * np.log(x / middle), 0.0).sum(axis=-1) for x in (a, b)]
        return np.asarray(np.sqrt(np.maximum(parts[0] + parts[1], 0) / 2))

    def value(self, distance: float) -> float:
        """Return a distance as the spec's threshold counts it."""
        return distance**2 if self.method == "psi" else distance


def cells_of(method: Method, reference: pd.Series, current: pd.Series, *, numeric: bool, cells: int) -> Cells:
    """Cut a column into cells by both of its sides; neither holds missing values."""
    if not numeric:
        counted = reference.value_counts()
        counted = counted.groupby([label_of(value) for value in counted.index], sort=False).sum()
        frequent = counted.sort_values(ascending=False, kind="stable").index[:MAX_CATEGORIES]
        return Cells(method, categories={value: place for place, value in enumerate(frequent)})
    then, now = (numbers_of(side) for side in (reference, current))
    pooled = np.concatenate([_thinned(then, cells), _thinned(now, cells)])
    points = np.unique(pooled)
    if method == "wasserstein":
        points = np.unique(_thinned(points, cells))
        return Cells(method, points, np.diff(points) / then.std())
    if reference.nunique() > _EXACT_UP_TO:
        points = np.histogram_bin_edges(pooled, bins="sturges")[1:]
    return Cells(method, points)


def is_constant(numbers: Vector) -> bool:
    """Say whether numbers are one value, but for their last digits."""
    return bool(np.ptp(numbers) <= _ROUND_OFF * np.abs(numbers).max()) if len(numbers) else True


def numbers_of(values: pd.Series) -> Vector:
    """Return a column as numbers; what is missing or infinite is NaN."""
    plain = values if pd.api.types.is_numeric_dtype(values) else pd.to_numeric(values)
    return finite_or_nan(plain.to_numpy(dtype=np.float64, na_value=np.nan))


def finite_or_nan(numbers: Vector) -> Vector:
    """Return numbers of any shape with NaN for what is infinite; the very array if nothing is."""
    finite = np.isfinite(numbers)
    return numbers if finite.all() else np.where(finite, numbers, np.nan)


def label_of(value: Any) -> str:
    """Write whole numbers alike, whether they came as 1, 1.0 or True."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def shares_of(counts: Vector) -> Vector:
    """Return the share of each cell, from counts of shape ``(..., cells)``; zeros for a sample without values."""
    total = counts.sum(axis=-1, keepdims=True)
    return np.asarray(counts / np.where(total > 0, total, 1.0))


def _thinned(values: Vector, size: int) -> Vector:
    """Return all values, or so many points: quantiles, and even steps from end to end."""
    if len(values) <= size:
        return values
    # A stride over a million rows is as good as all of them for choosing where cells end; the ends themselves are kept.
    sample = np.sort(values[:: max(1, len(values) // (8 * size))])
    middle = sample[np.linspace(0, len(sample) - 1, size // 2).astype(np.intp)]
    # Even steps besides: between the last quantiles of a heavy tail lies most of what a distance is made of.
    return np.concatenate([middle, np.linspace(values.min(), values.max(), size - size // 2)])
