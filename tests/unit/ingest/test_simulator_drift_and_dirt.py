from datetime import date, timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from small_model import small_fraud
from windsock.ingest.sources import simulator
from windsock.ingest.sources.delivery import fetch
from windsock.spec.sources import Dirt, Drift, SimulatorSource

FIRST, FROM = date(2026, 3, 1), date(2026, 4, 10)
DAY = date(2026, 4, 12)


def frame(*drift: Drift, day: date = DAY, customers: int = 600) -> pd.DataFrame:
    source = SimulatorSource(kind="simulator", customers=customers, terminals=2 * customers, drift=drift)
    return simulator.transactions(source, FIRST, day).to_pandas()


def delivered(folder: Path, kind: str, **more: Any) -> pa.Table:
    source = {"kind": "simulator", "customers": 300, "terminals": 600, "dirt": [{"day": DAY, "kind": kind}], **more}
    _, spec = small_fraud(folder, source=source)
    other = fetch(spec, DAY + timedelta(days=1))
    assert other.rows.equals(clean(folder, DAY + timedelta(days=1))), "dirt spoils its own day only"
    return fetch(spec, DAY).rows


def clean(folder: Path, day: date = DAY) -> pa.Table:
    _, spec = small_fraud(folder)
    return fetch(spec, day).rows


@pytest.mark.parametrize("kind", get_args(Drift.model_fields["kind"].annotation))
def test_drift_leaves_the_days_before_it_alone_and_changes_those_from_it_on(kind: str) -> None:
    drift = Drift(kind=kind, from_day=FROM, size=2)
    before = FROM - timedelta(days=1)
    assert frame(drift, day=before).equals(frame(day=before))
    assert not frame(drift, day=FROM).equals(frame(day=FROM))


def test_drift_of_amounts_scales_payments_and_the_fraud_rule_alike() -> None:
    old, new = frame(), frame(Drift(kind="amounts", from_day=FROM, size=2))
    assert (new.TX_FRAUD_SCENARIO == old.TX_FRAUD_SCENARIO).all()
    assert np.allclose(new.TX_AMOUNT, 2 * old.TX_AMOUNT)
    honest = new[new.TX_FRAUD == 0]
    assert (honest.TX_AMOUNT > 220).sum() > new.TX_FRAUD.sum(), "what was certain fraud is now mostly honest"


def test_a_new_fraud_pattern_adds_payments_that_look_like_none_before() -> None:
    old, new = frame(), frame(Drift(kind="fraud_pattern", from_day=FROM, size=2))
    added = new[new.TX_FRAUD_SCENARIO == 4]
    assert len(new) == len(old) + len(added)
    assert len(added) > 5
    assert (added.TX_FRAUD == 1).all()
    assert added.TX_AMOUNT.between(0.5, 5).all()
    assert (added.TX_DATETIME.dt.hour < 6).all()
    assert new.TX_DATETIME.is_monotonic_increasing
    assert new.TRANSACTION_ID.is_unique


def test_a_changed_terminal_mix_moves_payments_to_a_tenth_of_the_terminals() -> None:
    drift = Drift(kind="terminal_mix", from_day=FROM, size=2)
    days = [FROM + timedelta(days=n) for n in range(3)]
    old, new = (pd.concat([frame(*d, day=day, customers=5000) for day in days]) for d in ((), (drift,)))
    busiest = new.TERMINAL_ID.value_counts().index[:1000]
    assert new.TERMINAL_ID.isin(busiest).mean() > 0.5
    assert old.TERMINAL_ID.isin(busiest).mean() < 0.3
    assert (old.CUSTOMER_ID.to_numpy() == new.CUSTOMER_ID.to_numpy()).all()


def test_every_kind_of_dirt_is_made_and_is_the_same_each_time(tmp_path: Path) -> None:
    for kind in get_args(Dirt.model_fields["kind"].annotation):
        once, again = delivered(tmp_path, kind), delivered(tmp_path, kind)
        assert once.equals(again), kind
        assert not once.equals(clean(tmp_path)), kind


def test_dirt_that_costs_the_file_changes_its_columns(tmp_path: Path) -> None:
    good = clean(tmp_path)
    assert set(good.column_names) - set(delivered(tmp_path, "missing_column").column_names) == {"TX_AMOUNT"}
    assert delivered(tmp_path, "amount_as_text").schema.field("TX_AMOUNT").type == pa.string()
    extra = delivered(tmp_path, "extra_columns")
    assert extra.select(good.column_names).equals(good)
    assert set(extra.column_names) - set(good.column_names) == {"CHARGEBACK_DATE", "BATCH_NO"}


def test_dirt_that_costs_rows_stays_within_the_usual_budget(tmp_path: Path) -> None:
    good = clean(tmp_path)
    n = good.num_rows

    nulls = delivered(tmp_path, "null_keys")
    counts = {c: nulls[c].null_count for c in nulls.column_names if nulls[c].null_count}
    assert set(counts) == {"TRANSACTION_ID", "CUSTOMER_ID", "TERMINAL_ID"}
    assert 0 < sum(counts.values()) < 0.05 * n

    doubled = delivered(tmp_path, "duplicate_rows").to_pandas()
    assert 0 < doubled.duplicated().sum() == len(doubled) - n < 0.05 * n

    outside = delivered(tmp_path, "outside_day")["TX_DATETIME"].to_pandas().dt.date
    assert 0 < (outside != DAY).sum() < 0.05 * n
    assert set(outside) == {DAY - timedelta(days=1), DAY, DAY + timedelta(days=1)}

    negative = delivered(tmp_path, "negative_amounts")["TX_AMOUNT"].to_numpy()
    assert 0 < (negative < 0).sum() < 0.05 * n


def test_dirt_that_raises_an_alarm_keeps_the_schema(tmp_path: Path) -> None:
    good = clean(tmp_path)
    half, cents, none = (delivered(tmp_path, kind) for kind in ("half_day", "amount_in_cents", "zero_rows"))
    assert half.schema == cents.schema == none.schema == good.schema
    assert 0.4 < half.num_rows / good.num_rows < 0.5
    assert np.allclose(cents["TX_AMOUNT"].to_numpy(), 100 * good["TX_AMOUNT"].to_numpy())
    assert none.num_rows == 0
