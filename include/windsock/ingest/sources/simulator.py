"""Simulator: card transactions of the published fraud handbook, any day by itself.

Customers pay at terminals near them, some payments are frauds, as in the simulator of the
*Reproducible Machine Learning for Credit Card Fraud Detection* handbook. Where that one draws
everything in one long sequence, this one draws each day from (seed, purpose, day), so that a day
needs no other day. One thing differs by this: a card compromised for 14 days has each of its
payments faked with probability one third, where the handbook picks exactly a third of all of them.

From a given day on a drift changes the process; several add up:

- ``amounts``: all amounts are ``size`` times as large, and so is the amount over which
  every payment is a fraud. A model that learned the old amount calls honest payments frauds.
- ``fraud_pattern``: a new fraud appears, payments of a few coins at night with stolen card
  numbers at any terminal; about 25 × ``size`` a day, whatever the number of customers.
- ``terminal_mix``: a tenth of the terminals becomes 10 × ``size`` times as popular as the
  others, so that the terminals' counts change while the payments do not.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum
from functools import lru_cache
from itertools import chain
from math import prod

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import KDTree

from windsock.days import start_of
from windsock.ingest.sources.delivery import Delivery
from windsock.ingest.sources.dirt import spoil
from windsock.spec import ModelSpec
from windsock.spec.sources import Drift, SimulatorSource

GRID = 100.0
"""Side of the square that customers and terminals lie in."""
RADIUS = 5.0
"""A customer uses terminals nearer than this."""
DAY_SECONDS = 86_400
TIME_STD_SECONDS = 20_000
LARGE_AMOUNT = 220.0
"""Scenario 1: a payment over this amount is a fraud."""
TERMINALS_A_DAY, TERMINAL_DAYS = 2, 28
"""Scenario 2: terminals compromised each day, and for how long."""
CUSTOMERS_A_DAY, CUSTOMER_DAYS = 3, 14
"""Scenario 3: cards compromised each day, and for how long."""
FAKED_SHARE, FAKED_FACTOR = 1 / 3, 5.0
IDS_A_DAY = 1_000_000
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


class Purpose(IntEnum):
    """What random numbers are drawn for: each purpose and day has a stream of its own."""

    PROFILES = 0
    PAYMENTS = 1
    TERMINALS = 2
    CUSTOMERS = 3
    FAKES = 4
    PATTERN_CUSTOMERS = 5
    PATTERN_PAYMENTS = 6
    POPULARITY = 7
    DIRT = 8


def generator(seed: int, purpose: Purpose, day: date | None = None) -> np.random.Generator:
    """Return the random stream of one purpose on one day."""
    return np.random.default_rng([seed % 2**64, purpose, 0 if day is None else day.toordinal()])


@dataclass(frozen=True)
class Profiles:
    """Who pays how, and where: fixed by seed and sizes.

    ``nearby[starts[c]:starts[c + 1]]`` are the terminals within reach of customer ``c``.
    """

    mean_amount: NDArray[np.float64]
    payments_a_day: NDArray[np.float64]
    nearby: NDArray[np.int64]
    starts: NDArray[np.int64]


@dataclass
class Payments:
    """A day's payments in the making; arrays of shape ``(payments,)``."""

    second: NDArray[np.int64]
    customer: NDArray[np.int64]
    terminal: NDArray[np.int64]
    amount: NDArray[np.float64]
    scenario: NDArray[np.int64]


def fetch(spec: ModelSpec, source: SimulatorSource, day: date) -> Delivery:
    """Simulate one day, with the drift and the dirt that the spec plants.

    Before the spec's first day there are no compromised terminals and cards.
    """
    rows = transactions(source, spec.first_day, day)
    for planted in source.dirt:
        if planted.day == day:
            rows = spoil(rows, planted.kind, generator(source.seed, Purpose.DIRT, day))
    return Delivery.of_rows(rows, name=f"{day}.parquet", origin=f"simulator, seed {source.seed}")


def transactions(source: SimulatorSource, first_day: date, day: date) -> pa.Table:
    """Simulate one clean day; from ``first_day`` (day 0 of ``TX_TIME_DAYS``) on, terminals and cards get compromised.

    Returns:
        The handbook's nine columns, sorted by time; amounts rounded to cents.
    """
    profiles = make_profiles(source.seed, source.customers, source.terminals)
    now = effect_on(source.drift, day)
    payments = _pay(source, profiles, now, day)
    payments.scenario[payments.amount > LARGE_AMOUNT * now.amounts] = 1
    for since in _recent(first_day, day, TERMINAL_DAYS):
        hit = _drawn(source.seed, Purpose.TERMINALS, since, source.terminals, TERMINALS_A_DAY)
        payments.scenario[np.isin(payments.terminal, hit)] = 2
    rng = generator(source.seed, Purpose.FAKES, day)
    for since in _recent(first_day, day, CUSTOMER_DAYS):
        hit = _drawn(source.seed, Purpose.CUSTOMERS, since, source.customers, CUSTOMERS_A_DAY)
        faked = np.isin(payments.customer, hit) & (rng.random(len(payments.customer)) < FAKED_SHARE)
        payments.amount[faked] = np.round(payments.amount[faked] * FAKED_FACTOR, 2)
        payments.scenario[faked] = 3
    if now.pattern is not None:
        _add_pattern(payments, source, now.pattern, first_day, day)
    return _to_table(payments, source, first_day, day)


@dataclass(frozen=True)
class Effect:
    """What is different on one day."""

    amounts: float
    """Factor on all amounts."""
    mix: float
    """How many times as popular as the others the favoured terminals are; 1: as published."""
    pattern: Drift | None
    """The new fraud in force."""


def effect_on(drifts: Iterable[Drift], day: date) -> Effect:
    """Sum up the drifts in force on one day: factors multiply, of several patterns the strongest counts."""
    begun = [d for d in drifts if d.from_day <= day]
    return Effect(
        amounts=prod((d.size for d in begun if d.kind == "amounts"), start=1.0),
        mix=prod((POPULARITY_PER_SIZE * d.size for d in begun if d.kind == "terminal_mix"), start=1.0),
        pattern=max((d for d in begun if d.kind == "fraud_pattern"), key=_cards_a_day, default=None),
    )


@lru_cache(maxsize=8)
def make_profiles(seed: int, customers: int, terminals: int) -> Profiles:
    """Draw customers and terminals, and find each customer's terminals."""
    rng = generator(seed, Purpose.PROFILES)
    at_customer = rng.uniform(0, GRID, (customers, 2))
    mean_amount = rng.uniform(5, 100, customers)
    payments_a_day = rng.uniform(0, 4, customers)
    at_terminal = rng.uniform(0, GRID, (terminals, 2))
    near = KDTree(at_customer).query_ball_tree(KDTree(at_terminal), RADIUS)
    starts = np.cumsum([0, *map(len, near)])
    nearby = np.fromiter(chain.from_iterable(map(sorted, near)), np.int64, starts[-1])
    return Profiles(mean_amount, payments_a_day, nearby, starts)


def _pay(source: SimulatorSource, profiles: Profiles, now: Effect, day: date) -> Payments:
    rng = generator(source.seed, Purpose.PAYMENTS, day)
    customer = np.repeat(np.arange(source.customers), rng.poisson(profiles.payments_a_day))
    second = rng.normal(DAY_SECONDS / 2, TIME_STD_SECONDS, len(customer)).astype(np.int64)
    mean = profiles.mean_amount[customer]
    amount = rng.normal(mean, mean / 2)
    redrawn = rng.uniform(0, 2 * mean)
    choice = rng.random(len(customer))
    # All payments draw all their numbers, used or not: dropping one must not shift the others.
    amount = np.where(amount < 0, redrawn, amount)
    starts = profiles.starts
    inside = (second > 0) & (second < DAY_SECONDS) & (starts[customer + 1] > starts[customer])
    customer, second, choice = customer[inside], second[inside], choice[inside]
    if now.mix == 1.0:
        width = starts[customer + 1] - starts[customer]
        terminal = profiles.nearby[starts[customer] + (choice * width).astype(np.int64)]
    else:
        weight = _popularity(source.seed, source.customers, source.terminals, now.mix)
        total = np.concatenate([[0.0], np.cumsum(weight)])
        low, high = total[starts[customer]], total[starts[customer + 1]]
        place = np.searchsorted(total, low + choice * (high - low), side="right") - 1
        terminal = profiles.nearby[np.clip(place, starts[customer], starts[customer + 1] - 1)]
    amount = np.round(np.round(amount[inside], 2) * now.amounts, 2)
    return Payments(second, customer, terminal, amount, np.zeros(len(customer), np.int64))


@lru_cache(maxsize=8)
def _popularity(seed: int, customers: int, terminals: int, mix: float) -> NDArray[np.float64]:
    """Return the weight of each entry of ``Profiles.nearby`` when a tenth of the terminals is favoured."""
    favoured = generator(seed, Purpose.POPULARITY).random(terminals) < FAVOURED_SHARE
    weight: NDArray[np.float64] = np.where(favoured, mix, 1.0)[make_profiles(seed, customers, terminals).nearby]
    return weight


def _cards_a_day(pattern: Drift) -> int:
    return max(1, round(CARDS_PER_SIZE * pattern.size))


def _add_pattern(payments: Payments, source: SimulatorSource, pattern: Drift, first_day: date, day: date) -> None:
    """Add the new fraud: bursts of tiny payments at night, at any terminal, with stolen card numbers."""
    cards = [
        _drawn(source.seed, Purpose.PATTERN_CUSTOMERS, since, source.customers, _cards_a_day(pattern))
        for since in _recent(max(first_day, pattern.from_day), day, PATTERN_DAYS)
    ]
    rng = generator(source.seed, Purpose.PATTERN_PAYMENTS, day)
    stolen = np.unique(np.concatenate(cards)) if cards else np.zeros(0, np.int64)
    customer = np.repeat(stolen, rng.poisson(PATTERN_PAYMENTS, len(stolen)))
    n = len(customer)
    payments.second = np.concatenate([payments.second, rng.integers(1, PATTERN_UNTIL_SECOND, n)])
    payments.customer = np.concatenate([payments.customer, customer])
    payments.terminal = np.concatenate([payments.terminal, rng.integers(0, source.terminals, n)])
    payments.amount = np.concatenate([payments.amount, np.round(rng.uniform(*PATTERN_AMOUNT, n), 2)])
    payments.scenario = np.concatenate([payments.scenario, np.full(n, PATTERN_SCENARIO)])


def _recent(first_day: date, day: date, days: int) -> list[date]:
    """List the days whose compromises are still in force."""
    return [day - timedelta(days=n) for n in reversed(range(days)) if day - timedelta(days=n) >= first_day]


@lru_cache(maxsize=4096)
def _drawn(seed: int, purpose: Purpose, day: date, among: int, n: int) -> NDArray[np.int64]:
    """Return which terminals or customers get compromised on one day."""
    chosen: NDArray[np.int64] = generator(seed, purpose, day).choice(among, min(n, among), replace=False)
    return chosen


def _to_table(payments: Payments, source: SimulatorSource, first_day: date, day: date) -> pa.Table:
    order = np.argsort(payments.second, kind="stable")
    second, scenario = payments.second[order], payments.scenario[order]
    index = (day - first_day).days
    ids_a_day = IDS_A_DAY
    while ids_a_day < 10 * source.customers:  # the mean day has two payments a customer
        ids_a_day *= 10
    times = np.datetime64(start_of(day), "us") + second.astype("timedelta64[s]")
    return pa.table(
        {
            "TRANSACTION_ID": index * ids_a_day + np.arange(len(order)),
            "TX_DATETIME": pa.array(times, pa.timestamp("us")),
            "CUSTOMER_ID": payments.customer[order],
            "TERMINAL_ID": payments.terminal[order],
            "TX_AMOUNT": payments.amount[order],
            "TX_TIME_SECONDS": index * DAY_SECONDS + second,
            "TX_TIME_DAYS": np.full(len(order), index),
            "TX_FRAUD": (scenario > 0).astype(np.int64),
            "TX_FRAUD_SCENARIO": scenario,
        }
    )
