"""Choosing how far back to learn: the spec's own parameters with each length of the window, on the same judged days.

The longest window is taken unless a shorter one is better on average and in most folds, as a found parameter set must
be: with few folds, the best of several is mostly luck. Each length is the beginning of a search, whose first trial it
is: the chosen one's goes on from there.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windsock.search.search import choose
from windsock.search.study import Trial
from windsock.search.trials import Search
from windsock.served.metrics import better

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WindowChoice:
    """Which length was chosen, and from what."""

    days: int
    metric: str
    compared: Mapping[int, Trial | None]
    """Length to how the spec's own parameters did; None: the folds do not suffice to tell."""

    def to_json(self) -> dict[str, Any]:
        """Return what inputs and seed decide, as plain JSON types."""
        found = {
            str(length): None if trial is None else {"score": trial.score, "folds": list(trial.folds)}
            for length, trial in self.compared.items()
        }
        return {"days": self.days, "metric": self.metric, "compared": found}


def of_window(search: Search, length: int) -> Search:
    """Return the search within one length of the window; its checkpoints lie apart from those of other lengths."""
    kept = search.checkpoints.sub(f"window-{length}") if search.checkpoints is not None else None
    return replace(search, folds=search.windows[length], checkpoints=kept)


def choose_window(search: Search) -> WindowChoice:
    """Compare the lengths; of several processes that share a search each waits for the others' trials.

    Raises:
        SpecError: The spec's own parameters are refused.
        UpstreamUnavailable: The shared study's database is away.
    """
    metric = search.spec.training.metric
    # Where there is little history, several lengths are the same days: of those the longest.
    lengths = sorted({tuple(folds): length for length, folds in sorted(search.windows.items())}.values())
    compared = {length: _own(of_window(search, length)) for length in lengths} if len(lengths) > 1 else {}
    chosen = best_window(metric, compared) if compared else lengths[-1]
    if compared:
        known = [f"{n} days {t.score:.4g}" for n, t in compared.items() if t is not None and t.score is not None]
        said = f"{metric} on the folds: {', '.join(known) or 'cannot be told'}"
        log.info("%s: a window of %d days is chosen; %s", search.spec.name, chosen, said)
    return WindowChoice(chosen, metric, compared)


def best_window(metric: str, compared: Mapping[int, Trial | None]) -> int:
    """Return the longest length, or the best of those that beat it on average and in most folds."""
    chosen = longest = max(compared)
    own = compared[longest]
    if own is None or own.score is None:
        return longest
    best = own.score
    for length, trial in sorted(compared.items(), reverse=True):
        if trial is None or trial.score is None:
            continue
        if better(metric, trial.score, best) and 2 * _wins(metric, trial.folds, own.folds) > len(own.folds):
            chosen, best = length, trial.score
    return chosen


def _wins(metric: str, ours: Sequence[float | None], theirs: Sequence[float | None]) -> int:
    pairs = zip(ours, theirs, strict=True)
    return sum(a is not None and b is not None and better(metric, a, b) for a, b in pairs)


def _own(search: Search) -> Trial | None:
    """Return how the spec's own parameters do."""
    first = replace(search, estimator=search.estimator.model_copy(update={"trials": 1}), watch=None)
    return next(iter(choose(first).trials), None)
