"""What passes as a warning day after day is said once, with its likely cause."""

import logging
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from delivered import DAY, Inbox, transactions, with_column
from windsock.days import start_of
from windsock.ingest.lasting import likely_cause, newly, set_aside_daily
from windsock.ledger import DayRecord
from windsock.steps import run_step

ROWS = 480


def _shifted(day, hours):
    """Return a day's file that a sender cut ``hours`` ahead of UTC."""
    table = transactions(ROWS, day)
    return with_column(table, "TX_DATETIME", pc.subtract(table["TX_DATETIME"], pa.scalar(timedelta(hours=hours))))


def _said(inbox, day, table, **run):
    inbox.deliver(table, day)
    result = run_step("ingest", model="fraud", key=str(day), settings=inbox.settings, **{"live": False, **run})
    return [w for w in result["warnings"] if w.startswith("EVERY DAY")]


def test_a_file_cut_by_local_day_is_said_once_in_ten_days_with_its_time_zone(tmp_path, caplog):
    inbox = Inbox(tmp_path)
    days = [DAY + timedelta(days=n) for n in range(10)]
    with caplog.at_level(logging.ERROR, logger="windsock.ingest.records"):
        said = {n: s for n, day in enumerate(days) if (s := _said(inbox, day, _shifted(day, 1)))}

    assert list(said) == [6]
    (sentence,) = said[6]
    assert "4.17% to 4.17% of them on each of the last 7 days, 140 in all, 140 by the rule 'TX_DATETIME" in sentence
    whole = "holds a whole day in UTC+1, from 2026-03-06 23:00 to 2026-03-07 22:57 UTC; say so by source.timezone."
    assert whole in sentence
    assert [record.levelname for record in caplog.records if "EVERY DAY" in record.getMessage()] == ["ERROR"]


def test_what_a_backfill_said_is_said_again_on_the_first_live_day(tmp_path):
    inbox = Inbox(tmp_path)
    days = [DAY + timedelta(days=n) for n in range(10)]
    said = [len(_said(inbox, d, _shifted(d, 1), origin="backfill__x")) for d in days[:8]]
    said += [len(_said(inbox, d, _shifted(d, 1), live=True, origin="scheduled__x")) for d in days[8:]]

    assert said == [0, 0, 0, 0, 0, 0, 1, 0, 1, 0]


def _records(shares, rule="TX_AMOUNT between 0 and 9"):
    return [
        DayRecord(str(DAY + timedelta(days=n)), "published", detail={"delivered": 1000, "quarantined": {rule: share}})
        for n, share in enumerate(shares)
    ]


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([10] * 7, True),
        ([10] * 8, False),
        ([9, *[50] * 6], False),
        ([50, 9, *[50] * 6], False),
        ([50, 9, *[50] * 7], True),
        ([0] * 20, False),
        ([10] * 6, False),
    ],
)
def test_only_a_share_that_lasts_for_a_week_is_said_and_only_on_its_last_day(shares, said):
    rule = set_aside_daily(0.05, harmless=["unknown event"])

    assert bool(newly(rule, _records(shares), live=True)) is said
    for harmless in ("duplicate copy", "unknown event"):
        assert newly(rule, _records(shares, harmless), live=True) == []


@pytest.mark.parametrize(
    ("hours", "zone"), [(1, "UTC+1,"), (-5, "UTC-5,"), (5.5, "UTC+5:30,"), (-9.5, "UTC-9:30,"), (14, "UTC+14,")]
)
def test_the_time_zone_of_a_local_day_is_named_whatever_single_times_say(tmp_path, hours, zone):
    inbox, times = Inbox(tmp_path), _shifted(DAY, hours)["TX_DATETIME"].to_pylist()
    times[200:203] = [datetime(1970, 1, 1), datetime(9999, 1, 1), None]

    assert zone in likely_cause(inbox.spec, DAY, pa.chunked_array([pa.array(times, pa.timestamp("us"))]))


def test_other_causes_are_told_apart(tmp_path):
    spec, times = Inbox(tmp_path).spec, transactions(ROWS)["TX_DATETIME"].to_pylist()

    def cause(first):
        return likely_cause(spec, DAY, pa.chunked_array([pa.array(first + times[len(first) :], pa.timestamp("us"))]))

    assert cause([]) == cause([start_of(DAY) - timedelta(days=9)]) == ""
    assert "events of earlier days come late; the oldest" in cause(
        [start_of(DAY) - timedelta(days=n) for n in range(9)]
    )
    assert "clock of a sender" in cause([start_of(DAY) + timedelta(days=n) for n in range(1, 20)])
