"""Which columns can be compared, how, and how much two samples differ by chance alone.

A fixed threshold is meant for samples of thousands of rows. In small ones, and in columns
that are zero but for a few rows, chance makes larger differences than that; so a column
has drifted only if it differs by more than the threshold *and* by more than shuffling the
rows between the two samples ever did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

MIN_VALUES = 100
"""Fewer values on either side are not judged."""
MISSING_RISE = 0.1
"""Change in the share of missing values that counts as drift by itself."""
MAX_CATEGORIES = 30
"""The reference's most frequent categories are told apart; all others count as one."""
OTHER = "(other)"

_SHUFFLES = 50

Kind = Literal["numeric", "categorical"]
Method = Literal["wasserstein", "jensenshannon", "psi"]


@dataclass(frozen=True)
class Pair:
    """One column on both sides, missing values taken out and counted."""

    name: str
    kind: Kind
    current: pd.Series
    reference: pd.Series
    missing_current: float
    """Share of missing values, infinite ones included."""
    missing_reference: float
    rows: int
    """Rows of the smaller side, missing values included."""

    @property
    def too_few(self) -> str | None:
        """Say why the values cannot be compared, or None."""
        fewest = min(len(self.current), len(self.reference))
        if fewest >= MIN_VALUES:
            return None
        side = "recent days" if len(self.current) == fewest else "reference"
        return f"too few rows: the {side} hold {fewest} values, at least {MIN_VALUES} are needed"

    @property
    def missing_drifted(self) -> bool:
        """Whether the share of missing values alone is a drift."""
        return self.rows >= MIN_VALUES and abs(self.missing_current - self.missing_reference) > MISSING_RISE


def pair(name: str, current: pd.Series, reference: pd.Series, *, categorical: bool) -> Pair | str:
    """Prepare one column, or say why it cannot be compared.

    Args:
        name: Column.
        current: Recent values.
        reference: Values to compare with.
        categorical: Whether the spec calls it categorical; text and booleans always are.
    """
    import pandas as pd

    sides = [current, reference]
    known = [s for s in sides if s.notna().any()]
    if any(pd.api.types.is_datetime64_any_dtype(s) for s in known):
        return "holds times, which are not compared"
    numeric = all(pd.api.types.is_numeric_dtype(s) and not pd.api.types.is_bool_dtype(s) for s in known)
    kind: Kind = "numeric" if numeric and not categorical else "categorical"
    if numeric:
        sides = [pd.to_numeric(s).astype(float).replace([np.inf, -np.inf], np.nan) for s in sides]
    missing = [float(s.isna().mean()) if len(s) else 0.0 for s in sides]
    values = [s.dropna() for s in sides]
    if kind == "categorical":
        values = [s.map(_label).astype(object) for s in values]
        frequent = set(values[1].value_counts().index[:MAX_CATEGORIES])
        values = [s.where(s.isin(frequent), OTHER) for s in values]
    return Pair(name, kind, values[0], values[1], missing[0], missing[1], min(len(current), len(reference)))


def by_chance(columns: Pair, method: Method, rng: np.random.Generator) -> float:
    """Return the largest difference that shuffling rows between the two samples makes."""
    n, m = len(columns.current), len(columns.reference)
    if method == "wasserstein":
        return _wasserstein_by_chance(columns.current.to_numpy(), columns.reference.to_numpy(), rng)
    counts = _pooled_counts(columns)
    draws = rng.multivariate_hypergeometric(counts, n, size=_SHUFFLES)
    now, then = draws / n, (counts - draws) / m
    distance = _jensen_shannon if method == "jensenshannon" else _psi
    return float(distance(now, then).max())


def _label(value: object) -> str:
    """Write whole numbers alike, whether they came as 1, 1.0 or True."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _wasserstein_by_chance(
    current: npt.NDArray[np.float64], reference: npt.NDArray[np.float64], rng: np.random.Generator
) -> float:
    n, m = len(current), len(reference)
    pooled = np.sort(np.concatenate([current, reference]))
    steps = np.diff(pooled)
    widest = 0.0
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    for _ in range(_SHUFFLES):
        gap = np.cumsum(rng.permutation(weights))[:-1]
        widest = max(widest, float(np.abs(gap) @ steps))
    return widest / max(float(np.std(reference)), 0.001)  # normed as Evidently does


def _pooled_counts(columns: Pair) -> npt.NDArray[np.int64]:
    import pandas as pd

    both = pd.concat([columns.current, columns.reference])
    if columns.kind == "numeric" and columns.reference.nunique() > 20:
        return np.histogram(both, np.histogram_bin_edges(both, bins="sturges"))[0].astype(np.int64)
    return np.asarray(both.value_counts(sort=False), dtype=np.int64)


def _jensen_shannon(now: npt.NDArray[np.float64], then: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    from scipy.spatial.distance import jensenshannon

    return np.asarray(jensenshannon(now, then, axis=1))


def _psi(now: npt.NDArray[np.float64], then: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    now, then = np.maximum(now, 0.0001), np.maximum(then, 0.0001)
    return np.asarray(((then - now) * np.log(then / now)).sum(axis=-1))
