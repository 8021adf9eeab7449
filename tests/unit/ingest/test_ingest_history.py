"""Alarms from comparing a day with the days before it."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from delivered import DAY, PAYMENT, Inbox, transactions, with_column

TODAY = DAY + timedelta(days=8)


@pytest.fixture(scope="module")
def inbox(tmp_path_factory):
    inbox = Inbox(tmp_path_factory.mktemp("history"))
    for n in range(8):
        inbox.ingest(transactions(400 + n, DAY + timedelta(days=n)), DAY + timedelta(days=n))
    return inbox


def _alarms(inbox, table):
    result = inbox.ingest(table, TODAY, accept_worse=True, reason="other tests deliver this day too")
    usual = ("table:", "CUSTOMER_ID: 50 over", "TERMINAL_ID: 80 over")  # the full-size suite on a small day
    return [w for w in result["warnings"] if not w.startswith(usual)]


def test_a_usual_day_raises_none(inbox):
    assert _alarms(inbox, transactions(404, TODAY)) == []


def test_half_a_day_raises_volume_and_silent_hours(inbox):
    alarms = _alarms(inbox, transactions(404, TODAY).slice(0, 190))

    assert any(
        a.startswith("TRANSACTION_ID: 190 rows break the rule 'within 40% of the recent median' (404") for a in alarms
    )
    assert any(a.startswith("TX_DATETIME: 12 of 24 hours without any event") and "12:00 UTC" in a for a in alarms)


def test_amounts_in_cents_raise_the_mean(inbox):
    table = transactions(404, TODAY)
    cents = [100 * v for v in table["TX_AMOUNT"].to_pylist()]

    alarms = _alarms(inbox, with_column(table, "TX_AMOUNT", cents))

    assert any(a.startswith("TX_AMOUNT: the mean") and "404 rows" in a and "recent mean" in a for a in alarms)


def test_entities_not_seen_lately_are_counted_with_an_example(inbox):
    table = transactions(404, TODAY)
    customers = [900 + n % 3 for n in range(20)] + table["CUSTOMER_ID"].to_pylist()[20:]

    alarms = _alarms(inbox, with_column(table, "CUSTOMER_ID", customers))

    (alarm,) = [a for a in alarms if "seen in the last" in a]
    assert alarm.startswith("CUSTOMER_ID: 20 of 404 rows")
    assert "3 new values, e.g. 900" in alarm


def test_days_after_the_day_are_not_looked_at(inbox):
    later = TODAY + timedelta(days=1)
    inbox.ingest(transactions(4000, later), later)

    assert _alarms(inbox, transactions(404, TODAY)) == []


def test_little_history_raises_nothing(tmp_path):
    inbox = Inbox(tmp_path)
    for n in range(2):
        inbox.ingest(transactions(400, DAY + timedelta(days=n)), DAY + timedelta(days=n))
    result = inbox.ingest(transactions(40, DAY + timedelta(days=2)), DAY + timedelta(days=2))

    assert not any("recent" in w for w in result["warnings"])


def test_a_jump_of_nulls_in_a_column_that_may_be_null_is_told(tmp_path):
    columns = {
        **PAYMENT,
        "TIP": "double",
    }
    inbox = Inbox(tmp_path, events={"time": "TX_DATETIME", "key": "TRANSACTION_ID", "columns": columns})
    for n in range(4):
        day = DAY + timedelta(days=n)
        tips = pa.array([None if n == 3 and i % 2 else 1.0 for i in range(400)])
        result = inbox.ingest(transactions(400, day).append_column("TIP", tips), day)

    assert any(w.startswith("TIP: 200 of 400 values are null") for w in result["warnings"])


def test_columns_around_zero_and_young_models_raise_no_mean_and_a_shift_of_both_does(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"Z{n}" for n in range(20)]
    columns = {
        **PAYMENT,
        **dict.fromkeys(names, "double"),
    }
    inbox = Inbox(tmp_path, events={"time": "TX_DATETIME", "key": "TRANSACTION_ID", "columns": columns})
    told = {}
    for n in range(9):
        table = transactions(60, DAY + timedelta(days=n))
        amounts = table["TX_AMOUNT"].to_numpy() * {3: 1.7, 8: 100}.get(n, 1)
        table = with_column(table, "TX_AMOUNT", amounts)
        for name in names:
            table = table.append_column(name, [rng.normal(2 if (n, name) == (8, "Z7") else 0, 1, 60)])
        said = inbox.ingest(table, DAY + timedelta(days=n))["warnings"]
        told[n] = [w.split(":")[0] for w in said if "recent mean" in w]

    assert {n: some for n, some in told.items() if some} == {8: ["TX_AMOUNT", "Z7"]}


def test_ids_that_begin_anew_are_told(inbox):
    table = transactions(404, TODAY)
    ids = transactions(404, DAY)["TRANSACTION_ID"].to_pylist()[:40] + table["TRANSACTION_ID"].to_pylist()[40:]

    (alarm,) = _alarms(inbox, with_column(table, "TRANSACTION_ID", ids))

    assert alarm.startswith("TRANSACTION_ID: 40 of 404 rows break the rule 'unique within all days'")
