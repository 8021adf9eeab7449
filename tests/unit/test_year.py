"""A day and a cleaning cost no more after years than at the beginning; ``bench/year.py`` lives through a whole year."""

from datetime import timedelta
from pathlib import Path

import pytest
from bench.counted_bucket import CountedBucket
from bench.year import FIRST_DAY, MODEL, Year

from windsock import promotions
from windsock.features.frozen import definitions_of
from windsock.ledger import DayRecord, Ledger
from windsock.maintenance import step
from windsock.promotions import Promotion
from windsock.steps import run_step
from windsock.version_index import VersionInfo, record_version

ROUTINE = ("ingest", "features", "materialize", "score", "monitor", "govern", "maintain")


LOOKBACK = 28
"""Days, fewer than there are before those that a test lives through."""


def requests_of_a_day(home: Path, past: int) -> dict[str, int]:
    """Return what each step of a day asks a bucket that holds so many days, and as many promotions as weeks."""
    year = Year(home, ROUTINE[:-1], live=False, first_day=FIRST_DAY - timedelta(days=past), lookback_days=LOOKBACK)
    # The first day never came, or the profile of a model's first days would look for published ones among these.
    for n in range(1, past):
        day = FIRST_DAY - timedelta(days=n)
        for stage in ("ingest", "score"):
            record = DayRecord(str(day), "rejected" if stage == "ingest" else "no_champion", detail={"stage": stage})
            Ledger(year.store, MODEL, stage).publish(record)
    spec = year.spec
    record_version(year.settings, VersionInfo(MODEL, "1", "run-1", FIRST_DAY, definitions=definitions_of(spec)))
    for n in range(past // 7):  # they take force after all that this test lives through
        day = FIRST_DAY + timedelta(days=100 + n)
        entry = Promotion(0, "promote", "1", "run-1", None, day, day, "test")
        promotions.append(year.settings, spec, entry, after=promotions.current(year.settings, spec))
    for n in range(3):
        year.live(n)
    CountedBucket.today = 60  # all that has been is old by now
    run_step("maintain", model=MODEL, settings=year.settings)
    asked = {}
    year.deliver(3)
    for name in ROUTINE:
        before = CountedBucket.requests()
        key = str(FIRST_DAY + timedelta(days=3)) if name != "maintain" else None
        run_step(name, model=MODEL, key=key, live=False, settings=year.settings)
        asked[name] = CountedBucket.requests() - before
    return asked


def test_each_step_asks_a_bucket_as_often_after_a_year_as_in_the_first_weeks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "rebuild_docs", lambda cleaning: True)
    monkeypatch.setattr(step, "utc_now", CountedBucket.now)  # put back at the end
    early, late = (requests_of_a_day(tmp_path / str(past), past) for past in (30, 400))
    pages_and_note = 6  # a list request for each thousand names; one object holds all promotions
    assert {name: n for name, n in late.items() if n > early[name] + pages_and_note} == {}, early
    assert sum(late[name] for name in ROUTINE[:-1]) <= 150, late
