"""A live delivery that is broken against the days before it is held, until a person says why it is right."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from delivered import DAY, PAYMENT, Inbox, transactions, with_column
from kill import snapshot
from shared_data import shared_data
from windsock.column_break import Column
from windsock.errors import DayRejected
from windsock.steps import run_step

TODAY = DAY + timedelta(days=8)
EVENTS = {"time": "TX_DATETIME", "key": "TRANSACTION_ID", "columns": {**PAYMENT, "SHOP": "string"}}
HELD = "TX_AMOUNT: is 100 times what it was"


def delivery(rows: int = 400, day: date = TODAY, missing: int = 0, shops: int = 5) -> pa.Table:
    names = [None if n < missing else f"shop {n % shops}" for n in range(rows)]
    return transactions(rows, day).append_column("SHOP", pa.array(names, pa.string()))


def in_other_unit(table: pa.Table, factor: float) -> pa.Table:
    return with_column(table, "TX_AMOUNT", pc.multiply(table["TX_AMOUNT"], factor))


def take(inbox: Inbox, table: pa.Table, day: date = TODAY, live: bool = True, **options: Any) -> dict[str, Any]:
    inbox.deliver(table, day)
    return run_step("ingest", model="fraud", key=str(day), settings=inbox.settings, live=live, options=options)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Inbox:
    """Eight days as they should be."""
    inbox = Inbox(tmp_path_factory.mktemp("held"), events=EVENTS)
    for n in range(8):
        day = DAY + timedelta(days=n)
        take(inbox, delivery(400 + n, day), day, live=False)
    return inbox


def copy_of(usual: Inbox, home: Path, **overrides: Any) -> Inbox:
    """Return an installation of its own with these days."""
    shutil.copytree(usual.settings.store, home / "store")
    return Inbox(home, events=EVENTS, **overrides)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        pytest.param(delivery(40), "TRANSACTION_ID: 40 rows, where no day had fewer than 400", id="a-tenth-of-rows"),
        pytest.param(delivery(4100), "TRANSACTION_ID: 4,100 rows, where no day had more than 407", id="ten-times-rows"),
        pytest.param(in_other_unit(delivery(), 100), HELD, id="in-cents"),
        pytest.param(in_other_unit(delivery(), 0.001), "TX_AMOUNT: is a 1,000th of what it was", id="in-thousands"),
        pytest.param(delivery(missing=380), "SHOP: is missing in 95% of rows (usual: 0%)", id="mostly-missing"),
        pytest.param(delivery(missing=400), "SHOP: is missing in 100% of rows (usual: 0%)", id="all-missing"),
        pytest.param(delivery(shops=1), "SHOP: is shop 0 in all rows", id="one-value"),
    ],
)
def test_what_a_sender_broke_is_held_and_says_how_it_is_let_in(usual: Inbox, table: pa.Table, sentence: str) -> None:
    before = snapshot(usual.settings, "fraud", ["ingest"])

    with pytest.raises(DayRejected) as held:
        take(usual, table)

    assert f"{sentence} (rule 'a day is like the 8 before it', validation.hold)." in str(held.value)
    assert "-o accept_worse=true -o reason=..." in str(held.value)
    assert snapshot(usual.settings, "fraud", ["ingest"]) != before, "the refusal is on record"
    assert usual.record(TODAY).status == "rejected"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(delivery(), id="a-usual-day"),
        pytest.param(delivery(60), id="a-quiet-holiday"),
        pytest.param(delivery(3000), id="a-sale"),
        pytest.param(in_other_unit(delivery(), 2), id="amounts-doubled"),
        pytest.param(in_other_unit(delivery(), 7), id="amounts-seven-times"),
        pytest.param(delivery(missing=180), id="nearly-half-missing"),
        pytest.param(delivery(shops=9), id="new-shops"),
    ],
)
def test_a_changed_world_is_not_held(usual: Inbox, tmp_path: Path, table: pa.Table) -> None:
    assert take(copy_of(usual, tmp_path), table)["status"] == "published"


@pytest.mark.parametrize(
    ("live", "day", "overrides"),
    [
        pytest.param(False, TODAY, {}, id="a-backfill"),
        pytest.param(True, DAY + timedelta(days=6), {}, id="a-young-model"),
        pytest.param(True, TODAY, {"validation": {"hold": False}}, id="a-model-that-says-so"),
    ],
)
def test_what_asks_for_days_as_they_are_gets_them(
    usual: Inbox, tmp_path: Path, live: bool, day: date, overrides: dict[str, Any]
) -> None:
    inbox = copy_of(usual, tmp_path, **overrides)

    assert take(inbox, in_other_unit(delivery(day=day), 100), day, live)["status"] == "published"


def test_what_a_person_has_let_in_is_usual_from_then_on(usual: Inbox, tmp_path: Path) -> None:
    inbox, cents = copy_of(usual, tmp_path), in_other_unit(delivery(), 100)
    with pytest.raises(DayRejected, match=HELD):
        take(inbox, cents)

    take(inbox, cents, accept_worse=True, reason="cents for good", by="ann")

    accepted = inbox.record(TODAY).detail["accepted_worse"]  # type: ignore[union-attr]
    assert (accepted["by"], accepted["reason"], accepted["instead_of"]) == ("ann", "cents for good", None)
    assert HELD in accepted["lost"][0]
    assert not take(inbox, cents)["changed"], "run again, by the clock say, it is the day in force"
    for n in range(1, 9):
        day = TODAY + timedelta(days=n)
        assert take(inbox, in_other_unit(delivery(day=day), 100), day)["status"] == "published"
    back = TODAY + timedelta(days=9)
    with pytest.raises(DayRejected, match="TX_AMOUNT: is a 100th of what it was"):
        take(inbox, delivery(day=back), back)


def test_of_real_days_the_faults_of_a_weather_station_are_broken_and_clear_days_and_holidays_are_not() -> None:
    rows = pd.read_parquet(shared_data("bike_sharing") / "data.parquet")
    rows = rows[rows["timestamp"] >= "2012-07-15"].drop(columns=["instant", "dteday"])
    day = rows["timestamp"].to_numpy().astype("datetime64[D]")
    found = set()
    for now in np.unique(day)[14:]:
        before = (day >= now - np.timedelta64(14, "D")) & (day < now)
        for name in rows.columns.drop("timestamp"):
            past = rows.loc[before, name]
            if Column(name, past, past, day[before].astype(np.int64)).break_of(rows.loc[day == now, name]):
                found.add((str(now), name))

    assert found == {("2012-08-17", "atemp"), ("2012-12-29", "atemp")}


def test_a_column_that_is_rarely_anything_else_may_hold_one_value_for_a_day(tmp_path: Path) -> None:
    events = {**EVENTS, "columns": {**PAYMENT, "ABROAD": "bool"}}
    inbox = Inbox(tmp_path, events=events)

    def rare(day: date, abroad: int) -> pa.Table:
        return transactions(400, day).append_column("ABROAD", pa.array([n < abroad for n in range(400)]))

    for n in range(8):
        day = DAY + timedelta(days=n)
        take(inbox, rare(day, 1 + n % 3), day, live=False)

    assert take(inbox, rare(TODAY, 0))["status"] == "published"
