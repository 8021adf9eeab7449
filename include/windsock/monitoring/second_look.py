"""Changes that a column's own distance does not show: new values among many, and skewed numbers.

Of many categories only the most frequent are told apart, so new ones are lost among all others. And a few huge numbers
make a standard deviation within which all others can double: their ranks show it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_float_dtype

from windsock.distance import MAX_CATEGORIES, Cells, Method, Vector, cells_of, label_of, numbers_of
from windsock.monitoring.chance import Past
from windsock.monitoring.window import History

_NORMAL_MIDDLE = 1.349
"""Width of the middle half of normal values, in standard deviations."""
_SKEWED = 0.6
"""Share of that which the middle half of skewed values is narrower than."""
_COME_AND_GO = 0.005
"""Share of the rows of the later half of the champion's own days whose values the earlier half lacks."""
_MOST_RANKED = 50_000
"""Values of the reference that ranks are read from."""
_SPREAD_OF_RANKS = 12**-0.5
"""Standard deviation of ranks from 0 to 1."""


@dataclass(frozen=True)
class Look:
    """Another way to compare a column."""

    cells: Cells
    now: Vector
    """Counts of the recent rows, shape ``(cells,)``."""
    then: Vector
    """Those of the reference."""
    past: Past | None
    why: str
    """What has changed if the distance is more than chance."""

    @property
    def distance(self) -> float:
        """How far apart both sides are, in standard deviations if the method's distance is in such."""
        return float(self.cells.distance(self.now, self.then))


def look_at_ranks(
    current: pd.Series, reference: pd.Series, past_of: Callable[[Cells], Past | None], most: int
) -> Look | None:
    """Compare numbers by where they stand in the reference, in standard deviations of ranks; None: not skewed."""
    numbers = numbers_of(reference)
    then = np.sort(numbers[:: max(1, len(numbers) // _MOST_RANKED)])
    low, high = np.quantile(then, [0.25, 0.75])
    if not 0 < (high - low) / _NORMAL_MIDDLE < _SKEWED * then.std():
        return None
    points = cells_of("wasserstein", reference, current, numeric=True, cells=most).points
    assert points is not None
    ranks = np.searchsorted(then, points, side="right") / len(then)
    cells = Cells("wasserstein", points, np.diff(ranks) / _SPREAD_OF_RANKS)
    now, before = (cells.counts(cells.places(side))[0] for side in (current, reference))
    middle = [float(np.median(side)) for side in (numbers_of(current), numbers)]
    why = f"skewed, and its ranks moved: half of its values are up to {middle[0]:.3g} (usual: {middle[1]:.3g})"
    return Look(cells, now, before, past_of(cells), why)


def look_at_new_values(method: Method, current: pd.Series, history: History, name: str) -> Look | None:
    """Compare the shares of values that none of the champion's own days held; None: new ones are no news here.

    They are none where all values are told apart anyway, and where values come and go by themselves: ids of a shop that
    grows, days that lie behind. Of a closed set, a value counts as new on the one of these days that alone held it.
    """
    held = history.frame[name]
    # As the recent ones come: huge whole numbers lose their last digits on the way.
    own, known = _coded(pd.Series(numbers_of(held)) if is_float_dtype(current) else held)
    if len(known) <= MAX_CATEGORIES:
        return None
    there = own >= 0
    late = history.day > np.median(history.day)
    if not (there & ~late).any() or not (there & late).any():
        return None
    if np.isin(own[there & late], own[there & ~late], invert=True).mean() > _COME_AND_GO:
        return None
    on_days = np.unique(np.column_stack([own[there], history.day[there]]), axis=0)[:, 0]
    alone = np.bincount(on_days, minlength=len(known)) == 1
    places = np.where(there, alone[own], -1).astype(np.intp)
    recent, names = _coded(current)
    is_new = np.array([value not in known for value in names], dtype=np.intp)
    cells = Cells(method, categories={"known": 0})
    now, then = cells.counts(is_new[recent])[0], cells.counts(places)[0]
    shares = [float(counts[1] / counts.sum()) for counts in (now, then)]
    why = f"{shares[0]:.0%} of rows hold values that none of the champion's own days held (usual: {shares[1]:.0%})"
    return Look(cells, now, then, Past(places, history.day, history.cluster, history.looks_back_days.get(name, 0)), why)


def _coded(values: pd.Series) -> tuple[npt.NDArray[np.intp], dict[str, int]]:
    """Number a column's values as they are told apart, -1 where they are missing."""
    first, found = pd.factorize(values)
    names: dict[str, int] = {}
    numbers = np.array([names.setdefault(label_of(value), len(names)) for value in found], dtype=np.intp)
    return np.where(first < 0, -1, numbers[first] if len(numbers) else -1).astype(np.intp), names
