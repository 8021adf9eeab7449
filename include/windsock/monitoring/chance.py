"""How large a difference chance makes: measured on the champion's own days, the way its world moves.

Shuffled rows say too little. The rows of an entity move together, and so do those of a day and of a season: with
twelve shops, or with hourly weather, one week differs from another by far more than two random halves of one of them.
So chance has three parts, each a root mean square of distances that meant nothing, with the number of independent looks
that it rests on:

- **rows**: samples of these sizes from the reference;
- **entities**: the same two stretches of days of the champion's training and holdout, dealt out anew entity by entity;
- **days**: one stretch of days as long as the window against another, all pairs of them within those days; where
  there are too few stretches for that, single days of the same weekday, and how much a day resembles the next.

And a floor: one day of the window may look like any other day of the champion's (a holiday like a Sunday).

A feature that looks back 30 days changes for 30 days until it has changed altogether; two stretches 10 days apart show
a third of that, so their part is raised.
"""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from windsock.distance import Cells, Places, Vector, shares_of
from windsock.served.resampling import swaps

DRAWS = 50
ROWS = "rows"
ODD_DAY = "a day that looks like another one"
_FEWEST_BLOCKS = 4
"""From so many stretches of the window's length on, they say how the world moves; below, single days do."""
_FEWEST_LOOKS = 6
"""Fewer looks count as so many: of two stretches of days nothing but the unbelievable would ever be seen."""
_MOST_DAYS = 120
"""Days compared with each other one by one; of a longer history every so many."""
_WEEK = 7
_CLEAR = 2.0
"""A single day is odd by what exceeds so many times the chance of its own rows."""


@dataclass(frozen=True)
class Past:
    """One column on the champion's own days; all arrays have one value a row."""

    places: Places
    day: Places
    """Ordinal of the row's day."""
    cluster: Places | None
    """Number of the row's entity, dense; None if the reference does not say it."""
    looks_back_days: int = 0
    """Days that the column's values reach back."""


@dataclass(frozen=True)
class Part:
    """One part of chance: a root mean square, from some independent looks."""

    size: float
    looks: float
    what: str


@dataclass(frozen=True)
class Chance:
    """What differences a column makes when nothing has changed."""

    parts: tuple[Part, ...]
    odd_day: float = 0.0

    def p_value(self, distance: float) -> float:
        """Return how likely chance makes a distance this large, by the part that makes it likeliest."""
        return max(_tail(distance - self._beneath(part), part) for part in self.parts)

    def limit(self, p_value: float) -> tuple[float, str]:
        """Return the distance that chance reaches with this probability, and which part of it does."""
        return max((self._beneath(part) + _reach(p_value, part), self._named(part)) for part in self.parts)

    def _beneath(self, part: Part) -> float:
        """Return what an odd day makes before a part of chance comes on top; days' own part holds odd days already."""
        return self.odd_day if part.what == ROWS else 0.0

    def _named(self, part: Part) -> str:
        return ODD_DAY if part.what == ROWS and self.odd_day else part.what


def _tail(distance: float, part: Part) -> float:
    if distance <= 0:
        return 1.0
    return float(2 * stats.t.sf(distance / part.size, part.looks)) if part.size > 0 else 0.0


def _reach(p_value: float, part: Part) -> float:
    return float(part.size * stats.t.isf(p_value / 2, part.looks))


def chance_of(
    cells: Cells, now: Vector, then: Vector, past: Past | None, window_days: int, rng: np.random.Generator
) -> Chance:
    """Measure chance for the comparison of two samples, given by their counts, shape ``(cells,)``."""
    n, m = now.sum(), then.sum()
    # The reference alone: rows of a changed world are no chance. Half a row of it stands for what the reference missed.
    shares = shares_of(then + 0.5 * shares_of(now))
    draws = [rng.multinomial(int(size), shares, DRAWS).astype(np.float64) for size in (n, m)]
    rows = float(np.mean(cells.distance(*draws) ** 2))
    a_row = rows / (1 / n + 1 / m)  # what one row on either side adds
    parts = [Part(np.sqrt(rows), np.inf, ROWS)]
    if past is None:
        return Chance(tuple(parts))
    odd_day = 0.0
    for part in _excesses(cells, past, window_days, a_row, rng):
        if part.what == ODD_DAY:
            odd_day = part.size
        else:
            size = float(np.sqrt(rows + max(part.size, 0.0)))
            parts.append(replace(part, size=size, looks=max(part.looks, _FEWEST_LOOKS)))
    return Chance(tuple(parts), odd_day)


def _excesses(cells: Cells, past: Past, window_days: int, a_row: float, rng: np.random.Generator) -> Iterator[Part]:
    """Yield what entities and days add to the mean square of chance (as ``size``), and the floor."""
    days, number = np.unique(past.day, return_inverse=True)
    if len(days) < 2:
        return
    width = min(window_days, len(days) // 2)
    if past.cluster is not None and (clusters := int(past.cluster.max()) + 1) > 1:
        early, late = (number >= len(days) - 2 * width) & (number < len(days) - width), number >= len(days) - width
        a, b = (cells.counts(past.places[at], past.cluster[at], clusters) for at in (early, late))
        seen = int(((a.sum(axis=1) > 0) & (b.sum(axis=1) > 0)).sum())
        if seen > 1:
            dealt = float(np.mean(cells.distance(*swaps(a, b, DRAWS, rng)) ** 2))
            apart = float(days[-width:].mean() - days[-2 * width : -width].mean())
            yield Part(
                (dealt - a_row * (1 / a.sum() + 1 / b.sum())) * _whole(past, window_days, apart), seen - 1, "entities"
            )
    daily = cells.counts(past.places, number.astype(np.intp), len(days))
    blocks = [block for block in _blocks(days, window_days) if daily[block].sum() > 0]
    kept = np.flatnonzero(daily.sum(axis=1) > 0)[:: -(-len(days) // _MOST_DAYS)]
    if len(kept) < 2:
        return
    pairs = _pairs(cells, daily[kept], days[kept].astype(np.float64), a_row)
    if len(blocks) >= _FEWEST_BLOCKS:
        stretches = np.stack([daily[block].sum(axis=0) for block in blocks])
        of_blocks = _pairs(cells, stretches, np.array([days[block].mean() for block in blocks]), a_row)
        yield Part(of_blocks.excess * _whole(past, window_days, float(of_blocks.apart.mean())), len(blocks) - 1, "days")
    else:
        alike = pairs.apart % _WEEK == 0
        of_days = pairs.where(alike) if alike.any() else pairs
        looks = len(kept) // 2 if alike.any() else len(kept) - 1
        worth = independent(window_days, pairs.alike_next_day) / window_days
        yield Part(of_days.excess / (window_days * worth), looks * worth, "days")
    oddest = int(np.argmax(pairs.square - _CLEAR**2 * pairs.noise))
    if pairs.square[oddest] > _CLEAR**2 * pairs.noise[oddest]:
        one, other = (shares_of(daily[kept[side[oddest]]]) for side in (pairs.first, pairs.second))
        mixed = ((window_days - 1) * one + other) / window_days, ((window_days - 1) * other + one) / window_days
        yield Part(float(max(cells.distance(mixed[0], one), cells.distance(mixed[1], other))), np.inf, ODD_DAY)


@dataclass(frozen=True)
class Pairs:
    """Distances of all pairs of some samples; all arrays have one value a pair."""

    square: Vector
    noise: Vector
    """What the rows alone add to the square."""
    apart: Vector
    """Days between the two."""
    first: Places
    second: Places

    @property
    def excess(self) -> float:
        """Mean of the squares beyond what rows make."""
        return float((self.square - self.noise).mean())

    @property
    def alike_next_day(self) -> float:
        """How much a day resembles the next one, from 0 to 1: what moves by itself lasts for days.

        Days six and eight apart differ by as much of the week as days one apart, but no longer hang together.
        """
        near, far = (self.where(np.isin(self.apart, lags)) for lags in ((1,), (_WEEK - 1, _WEEK + 1)))
        if not len(near.square) or not len(far.square) or far.excess <= 0:
            return 0.0
        return float(np.clip(1 - near.excess / far.excess, 0.0, 0.95))

    def where(self, mask: npt.NDArray[np.bool_]) -> "Pairs":
        """Return some of the pairs."""
        return Pairs(*(values[mask] for values in astuple(self)))


def independent(days: int, alike_next_day: float) -> float:
    """Return how many independent days so many days in a row are worth; at least one."""
    return max(1.0, days * (1 - alike_next_day) / (1 + alike_next_day))


def _pairs(cells: Cells, counted: Vector, at: Vector, a_row: float) -> Pairs:
    """Compare each of some samples, counts of shape ``(samples, cells)``, with each other one."""
    first, second = np.triu_indices(len(counted), 1)
    square = np.concatenate([cells.distance(counted[i], counted[i + 1 :]) ** 2 for i in range(len(counted) - 1)])
    rows = counted.sum(axis=1)
    return Pairs(square, a_row * (1 / rows[first] + 1 / rows[second]), np.abs(at[first] - at[second]), first, second)


def _blocks(days: npt.NDArray[np.int64], width: int) -> list[npt.NDArray[np.intp]]:
    """Cut days into stretches as long as the window, counted from the newest day; less than half of one is left out."""
    back = (days[-1] - days) // width
    found = [np.flatnonzero(back == b) for b in range(int(back.max()) + 1)]
    return [block for block in found if 2 * len(block) > width]


def _whole(past: Past, window_days: int, apart_days: float) -> float:
    """Return by how much to raise a mean square of two stretches that share some of what the column looks back on."""
    shared = past.looks_back_days + window_days if past.looks_back_days else 0
    return max(1.0, shared / max(apart_days, 1.0))
