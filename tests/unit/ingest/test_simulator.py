import functools
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from shared_data import shared_data
from small_model import small_fraud
from windsock.ingest.sources import simulator
from windsock.ingest.sources.delivery import fetch
from windsock.spec.sources import SimulatorSource

FIRST = date(2026, 3, 1)
COLUMNS = {
    "TRANSACTION_ID": pa.int64(),
    "TX_DATETIME": pa.timestamp("us"),
    "CUSTOMER_ID": pa.int64(),
    "TERMINAL_ID": pa.int64(),
    "TX_AMOUNT": pa.float64(),
    "TX_TIME_SECONDS": pa.int64(),
    "TX_TIME_DAYS": pa.int64(),
    "TX_FRAUD": pa.int64(),
    "TX_FRAUD_SCENARIO": pa.int64(),
}
offsets = st.integers(0, 60)
seeds = st.integers(-5, 5)


def small(seed: int = 0, **more: Any) -> SimulatorSource:
    return SimulatorSource(kind="simulator", seed=seed, **{"customers": 120, "terminals": 240, **more})


def simulate(source: SimulatorSource, offset: int) -> pa.Table:
    return simulator.transactions(source, FIRST, FIRST + timedelta(days=offset))


def forget() -> None:
    simulator.make_profiles.cache_clear()
    simulator._drawn.cache_clear()
    simulator._popularity.cache_clear()


@functools.cache
def full_size() -> pd.DataFrame:
    """Return 60 full-size days after the 28 in which compromised terminals build up."""
    source = SimulatorSource(kind="simulator")
    return pa.concat_tables([simulate(source, n) for n in range(30, 90)]).to_pandas()


def test_a_day_has_exactly_the_handbooks_columns() -> None:
    schema = simulate(small(), 3).schema
    assert dict(zip(schema.names, schema.types, strict=True)) == COLUMNS


@given(seeds, offsets, st.lists(offsets, max_size=4))
@examples(25)
def test_a_day_alone_equals_the_same_day_after_others(seed: int, offset: int, others: list[int]) -> None:
    forget()
    alone = simulate(small(seed), offset)
    forget()
    for other in others:
        simulate(small(seed), other)
    assert simulate(small(seed), offset).equals(alone)


@given(st.lists(offsets, min_size=2, max_size=6, unique=True), seeds)
@examples(25)
def test_ids_are_unique_over_all_days_and_every_payment_lies_within_its_day(days: list[int], seed: int) -> None:
    tables = [simulate(small(seed), n) for n in days]
    for offset, table in zip(days, tables, strict=True):
        start = datetime(FIRST.year, FIRST.month, FIRST.day) + timedelta(days=offset)
        times = table["TX_DATETIME"].to_pylist()
        assert times == sorted(times)
        assert all(start <= t < start + timedelta(days=1) for t in times)
    ids = pa.concat_tables(tables)["TRANSACTION_ID"].to_pylist()
    assert len(set(ids)) == len(ids)


@given(seeds, seeds, offsets)
@examples(25)
def test_another_seed_or_another_day_gives_other_payments(one: int, two: int, offset: int) -> None:
    amounts = simulate(small(one), offset)["TX_AMOUNT"].to_pylist()
    if one != two:
        assert simulate(small(two), offset)["TX_AMOUNT"].to_pylist() != amounts
    assert simulate(small(one), offset + 1)["TX_AMOUNT"].to_pylist() != amounts


def test_what_a_day_holds_does_not_depend_on_the_first_day_but_for_what_was_compromised_before() -> None:
    early, late = (simulator.transactions(small(), first, date(2026, 4, 20)) for first in (FIRST, date(2026, 4, 15)))
    assert early["TX_DATETIME"].equals(late["TX_DATETIME"])
    assert early["TERMINAL_ID"].equals(late["TERMINAL_ID"])
    assert sum(early["TX_FRAUD"].to_pylist()) > sum(late["TX_FRAUD"].to_pylist())


def test_customers_pay_only_at_terminals_within_reach() -> None:
    rng = simulator.generator(0, simulator.Purpose.PROFILES)
    customers = rng.uniform(0, 100, (120, 2))
    rng.uniform(5, 100, 120), rng.uniform(0, 4, 120)
    terminals = rng.uniform(0, 100, (240, 2))
    distance = np.sqrt(((customers[:, None] - terminals[None]) ** 2).sum(axis=2))
    profiles = simulator.make_profiles(0, 120, 240)

    for customer in range(120):
        found = profiles.nearby[profiles.starts[customer] : profiles.starts[customer + 1]]
        assert found.tolist() == np.flatnonzero(distance[customer] < 5).tolist()


@pytest.mark.parametrize(("customers", "terminals"), [(1, 1), (1, 5000), (3, 1), (50, 2)])
def test_tiny_worlds_work(customers: int, terminals: int) -> None:
    table = simulate(small(customers=customers, terminals=terminals), 30)
    assert table.schema.names == list(COLUMNS)


def test_amounts_are_cents_and_the_clock_columns_agree() -> None:
    frame = full_size()
    assert np.allclose(frame.TX_AMOUNT * 100, (frame.TX_AMOUNT * 100).round())
    assert (frame.TX_AMOUNT >= 0).all()
    assert (frame.TX_TIME_SECONDS // 86_400 == frame.TX_TIME_DAYS).all()
    since = (frame.TX_DATETIME - pd.Timestamp(FIRST)).dt.total_seconds()
    assert (since == frame.TX_TIME_SECONDS).all()


def test_frauds_are_what_their_scenario_says() -> None:
    frame = full_size()
    assert ((frame.TX_FRAUD_SCENARIO > 0) == frame.TX_FRAUD).all()
    assert set(frame.TX_FRAUD_SCENARIO) == {0, 1, 2, 3}
    assert frame.TX_AMOUNT[frame.TX_FRAUD_SCENARIO == 0].max() <= 220
    assert frame.TX_AMOUNT[frame.TX_FRAUD_SCENARIO == 1].min() > 220
    terminals = frame[frame.TX_FRAUD_SCENARIO == 2].groupby("TX_TIME_DAYS").TERMINAL_ID.nunique()
    assert terminals.between(25, 56).all()  # two a day for 28 days, some never visited on a day
    cards = frame[frame.TX_FRAUD_SCENARIO == 3].groupby("TX_TIME_DAYS").CUSTOMER_ID.nunique()
    assert cards.between(8, 42).all()  # three a day for 14 days, a third of their payments


def test_the_real_data_has_the_same_statistics() -> None:
    path = shared_data("fraud_handbook") / "transactions_2018-04-01_2018-08-14.parquet"
    real = pq.read_table(path, filters=[("TX_TIME_DAYS", ">=", 30)]).to_pandas()
    ours = full_size()

    def describe(frame: pd.DataFrame) -> dict[str, float]:
        share = frame.TX_FRAUD_SCENARIO.value_counts(normalize=True)
        hour = frame.TX_DATETIME.dt.hour
        return {
            "rows": len(frame) / frame.TX_TIME_DAYS.nunique(),
            "amount mean": frame.TX_AMOUNT.mean(),
            "amount sd": frame.TX_AMOUNT.std(),
            "amount median": frame.TX_AMOUNT.median(),
            "night": (hour <= 6).mean(),
            "hour sd": hour.std(),
            "terminals": frame.groupby("TX_TIME_DAYS").TERMINAL_ID.nunique().mean(),
            "scenario 1": share[1],
            "scenario 2": share[2],
            "scenario 3": share[3],
            "amount of scenario 3": frame.TX_AMOUNT[frame.TX_FRAUD_SCENARIO == 3].mean(),
        }

    expected, got = describe(real), describe(ours)
    loose = {"scenario 1": 0.4, "scenario 2": 0.2, "scenario 3": 0.2, "amount of scenario 3": 0.2}
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=loose.get(name, 0.06)), name


def test_fetch_gives_a_delivery_with_its_own_bytes(tmp_path: Path) -> None:
    _, spec = small_fraud(tmp_path)
    one, two = (fetch(spec, date(2026, 3, 9)) for _ in range(2))
    assert one.raw == two.raw
    assert one.content_hash == two.content_hash
    assert one.name == "2026-03-09.parquet"
    assert pq.read_table(pa.BufferReader(one.raw)).equals(one.rows)
