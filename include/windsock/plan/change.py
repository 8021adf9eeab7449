"""What a plan is made of: differences and what follows from each, days to compute, what stays as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from windsock.errors import SpecError

NOTHING, CHANGES = 0, 2
"""Exit codes of a plan: nothing follows from the edit; something does. What is refused has that of ``SpecError``."""

NEXT_TRAINING = "next training"
NO_EFFECT = "nothing"


@dataclass(frozen=True)
class Difference:
    """By how much a feature's values differ on one day, over the rows that both sides have."""

    feature: str
    rows: int
    differs: float | None
    """Share of the rows with another value; None: there is nothing to compare with."""
    before: float | None
    after: float | None
    """Means of the values; None of what is no number, or never known."""


@dataclass(frozen=True)
class Change:
    """One thing that differs, and what follows from it."""

    sign: Literal["+", "-", "~", "="]
    """Added, removed, another; ``=``: other text of the same meaning."""
    part: str
    """Where, as a path in the spec, or a view or feature by name."""
    before: str = ""
    after: str = ""
    effect: str = NO_EFFECT
    """When, or for what, it counts."""
    notes: tuple[str, ...] = ()
    diff: tuple[str, ...] = ()
    """Lines of a text that went (``-``) and came (``+``)."""
    refused: tuple[str, ...] = ()
    """Why it cannot go on like this, each with what to write."""
    values: tuple[Difference, ...] = ()
    """By how much values differ, where that was asked for."""


@dataclass(frozen=True)
class Days:
    """Days of one definition that the next training and its gate lack."""

    table: str
    """``<view>@<8 digits>``."""
    missing: tuple[date, ...]
    stale: tuple[date, ...]
    seconds: float | None = None
    """About how long they take together; None: nothing is known."""
    standing: int = 0
    """How many of them are lacking whether the edit is merged or not."""

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.missing) + len(self.stale)


@dataclass(frozen=True)
class ModelPlan:
    """What an edit of one model means."""

    model: str
    against: str
    """What it is compared with, in words."""
    store: str
    newest_day: date | None
    """Newest day that is ingested."""
    champion: str | None
    challenger: str | None
    changes: tuple[Change, ...]
    days: tuple[Days, ...]
    goes_on: tuple[str, ...]
    """What the champion goes on with."""
    notes: tuple[str, ...]
    """What could not be looked at, and what else is worth knowing."""

    @property
    def refused(self) -> tuple[str, ...]:
        """Every sentence that says why it cannot go on like this."""
        return tuple(sentence for change in self.changes for sentence in change.refused)

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        if self.refused:
            return SpecError.exit_code
        return CHANGES if any(change.sign != "=" for change in self.changes) else NOTHING


def worst(plans: Sequence[ModelPlan]) -> int:
    """Return what a command on several models ends with."""
    return max((plan.exit_code for plan in plans), default=NOTHING)
