"""Drift: what changes in the process from a given day on, and how much.

- ``amounts``: all amounts are ``size`` times as large, and so is the amount over which
  every payment is a fraud. A model that learned the old amount calls honest payments frauds.
- ``fraud_pattern``: a new fraud appears, payments of a few coins at night with stolen card
  numbers at any terminal; about 25 × ``size`` a day, whatever the number of customers.
- ``terminal_mix``: a tenth of the terminals becomes 10 × ``size`` times as popular as the
  others, so that the terminals' counts change while the payments do not.

Several drifts add up: factors multiply, of several patterns the strongest counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from math import prod

from windsock.spec.data import Drift

PATTERN_SCENARIO = 4
PATTERN_DAYS = 7
"""Days for which a stolen card number is used."""
PATTERN_PAYMENTS = 1.5
"""Mean payments a day with one stolen card number."""
PATTERN_AMOUNT = (0.5, 5.0)
PATTERN_UNTIL_SECOND = 6 * 3600
CARDS_PER_SIZE = 2.4
FAVOURED_SHARE = 0.1
POPULARITY_PER_SIZE = 10.0


@dataclass(frozen=True)
class Pattern:
    """The new fraud in force on a day."""

    from_day: date
    cards_a_day: int


@dataclass(frozen=True)
class Effect:
    """What is different on one day."""

    amounts: float
    """Factor on all amounts."""
    mix: float
    """How many times as popular as the others the favoured terminals are; 1: as published."""
    pattern: Pattern | None


def effect_on(drifts: Iterable[Drift], day: date) -> Effect:
    """Sum up the drifts in force on one day."""
    begun = [d for d in drifts if d.from_day <= day]
    patterns = [Pattern(d.from_day, max(1, round(CARDS_PER_SIZE * d.size))) for d in begun if d.kind == "fraud_pattern"]
    return Effect(
        amounts=prod((d.size for d in begun if d.kind == "amounts"), start=1.0),
        mix=prod((POPULARITY_PER_SIZE * d.size for d in begun if d.kind == "terminal_mix"), start=1.0),
        pattern=max(patterns, key=lambda p: p.cards_a_day, default=None),
    )
