"""``prepare`` takes in what was delivered, names what must be computed, and refuses what only a person can explain."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from churn_model import COLUMNS, DAY, HEAD, USAGE, Churn, delivery
from windsock import promotions, tables
from windsock.days import day_range
from windsock.errors import SpecError
from windsock.features.frozen import definitions_of
from windsock.promotions import Promotion
from windsock.version_index import VersionInfo, record_version

AS_OF = DAY + timedelta(days=11)
FIRST_TRAINED, HOLDOUT = DAY + timedelta(days=2), (DAY + timedelta(days=8), DAY + timedelta(days=9))
"""As of the last day: lookback 2, window 4, gap 2, holdout 2, delay 2; without a ttl all days are read."""
EDITED = USAGE.replace("86399999999", "172799999999")
CALLS = HEAD + (
    "sum(calls) over (partition by customer_id order by epoch_us(seen_at) "
    "range between 86399999999 preceding and current row) as calls_1d from events"
)


def delivered(home: Path, since: date | None) -> Churn:
    """Let twelve days come in, with a column from some day on that nobody has declared."""
    churn = Churn.make(home)
    for day in day_range(DAY, AS_OF):
        calls = {"calls": pa.array([n % 5 for n in range(80)])} if since is not None and day >= since else {}
        churn.ingest(delivery(day, rows=80, more=calls), day)
    return churn


def reading(churn: Churn, column: str | Mapping[str, Any] = "int64") -> Churn:
    """Declare the column, and read it in the view."""
    return Churn.make(churn.home, CALLS, events__columns={**COLUMNS, "calls": column})


def prepare(churn: Churn) -> dict[str, Any]:
    return churn.unkeyed("prepare", as_of=str(AS_OF))


def nothing_of(churn: Churn, day: date) -> bool:
    events = tables.read_events(churn.store, churn.spec, [churn.record(day=day)])
    return bool(events["calls"].null_count)


def test_with_nothing_lacking_no_day_is_named_and_nothing_written(churn_days: Churn, tmp_path: Path):
    churn = churn_days.copied(tmp_path)
    prepare(churn)
    before = churn.files()
    said = prepare(churn)
    assert (said["days"], said["lacking"], said["live"]) == ([], {}, False)
    assert churn.files() == before


def test_a_column_that_was_dropped_is_taken_in_and_its_reader_s_days_are_named(tmp_path: Path):
    churn = reading(delivered(tmp_path, since=DAY))
    for day in day_range(DAY, AS_OF):
        churn.step("features", day)  # of rows that do not have it yet
    assert all(nothing_of(churn, day) for day in day_range(DAY, HOLDOUT[1]))

    said = prepare(churn)

    taken = [day for day in day_range(DAY, AS_OF) if not nothing_of(churn, day)]
    assert taken[0] == DAY
    assert taken[-1] >= HOLDOUT[1]
    # Those that look back on one of them are out of date.
    assert said["days"] == [str(day) for day in day_range(DAY, AS_OF)]
    assert said["lacking"][churn.table.name]["missing"] == ""
    for day in said["days"]:
        churn.step("features", date.fromisoformat(day))
    assert prepare(churn)["days"] == []
    run = churn.unkeyed("assemble", as_of=str(AS_OF))["run"]
    table = pa.parquet.read_table(Path(churn.settings.store, "runs", "churn", run, "train.parquet"))
    assert pc.sum(table["calls_1d"]).as_py() > 0


@pytest.mark.parametrize(
    ("since", "said"),
    [
        (None, r"no delivery has it so far\. Wait until it is delivered, and say `since:`"),
        (DAY + timedelta(days=5), r"write `calls: \{type: int64, .*since: 2026-03-06.*\}` under events\.columns"),
    ],
)
def test_a_column_that_days_never_had_is_refused_with_the_line_to_write(tmp_path: Path, since: date | None, said: str):
    churn = reading(delivered(tmp_path, since))
    with pytest.raises(SpecError, match=rf"model\.yaml: events\.columns\.calls: .*{said}"):
        prepare(churn)


def test_with_that_line_the_training_goes_on(tmp_path: Path):
    since = DAY + timedelta(days=5)
    churn = reading(delivered(tmp_path, since), {"type": "int64", "since": str(since)})
    assert prepare(churn)["days"] == [str(day) for day in day_range(DAY, AS_OF)]
    assert [nothing_of(churn, day) for day in (since - timedelta(days=1), since)] == [True, False]


def test_the_champion_s_definitions_are_asked_for_too_on_the_days_of_the_holdout(churn_days: Churn, tmp_path: Path):
    view = {"name": "usage", "entity": "customer", "sql": "usage.sql", "lookback_days": 2, "ttl_days": 1}
    churn = churn_days.copied(tmp_path, features__views=[view])
    made = VersionInfo("churn", "1", "run-1", DAY, definitions=definitions_of(churn.spec))
    record_version(churn.settings, made)
    entry = Promotion(0, "promote", "1", "run-1", None, DAY, DAY, "test")
    promotions.append(churn.settings, churn.spec, entry, after=None)
    champion_s = churn.table.name
    churn.write_sql(EDITED)
    for day in (FIRST_TRAINED, HOLDOUT[1]):  # delivered anew, with other rows
        churn.ingest(delivery(day, rows=190), day)

    lacking = prepare(churn)["lacking"]

    assert set(lacking) == {champion_s, churn.table.name}
    assert lacking[champion_s] == {"missing": "", "stale": str(HOLDOUT[1])}
    assert lacking[churn.table.name]["stale"] == ""
