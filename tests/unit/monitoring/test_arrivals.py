"""Labels that stop, come late or turn another way: each is told of for what it is, and ordinary weeks are not."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from examples import number_of
from small_model import small_fraud
from windsock import tables
from windsock.ledger import DayRecord, Ledger
from windsock.monitoring.arrivals import watch_labels
from windsock.monitoring.scored import Past
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

DAY = date(2026, 5, 31)
DAYS, ROWS, RATE = 28, 4000, 0.01
DELAY = 7
World = tuple[Settings, ModelSpec]


@pytest.fixture(scope="module")
def in_files(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model whose labels come in files of their own."""
    label = {
        "column": "TX_FRAUD",
        "task": "binary",
        "delay_days": DELAY,
        "files": {"url": "labels/{ds}.csv", "key": "TRANSACTION_ID"},
    }
    return small_fraud(tmp_path_factory.mktemp("files"), label=label)


def past(world: World, seed: int = 1, *, rate=None, late=None, stop: date | None = None) -> Past:
    """Make four weeks of events and their labels.

    ``rate`` and ``late`` give a day its share of positives, and by how many days more half of these are labelled
    later; from ``stop`` on no label arrives.
    """
    rng, settings, spec = np.random.default_rng(seed), *world
    first = DAY - timedelta(days=DELAY + spec.monitoring.performance_days - 1)
    days = [DAY - timedelta(days=DAYS - 1 - n) for n in range(DAYS)]
    # A day's luck is its own, as compromised terminals and customers come and go.
    shares = np.array([rate(day) if rate else RATE for day in days]) * rng.gamma(60, 1 / 60, DAYS)
    fraud = (rng.random((DAYS, ROWS)) < shares[:, None]).ravel()
    more = np.repeat([late(day) if late else 0 for day in days], ROWS) * (fraud & (rng.random(DAYS * ROWS) < 0.5))
    starts = np.repeat(np.array(days, "datetime64[us]"), ROWS)
    times = starts + np.tile(np.arange(ROWS) * np.timedelta64(20, "s"), DAYS)
    known = starts + (DELAY + 1 + more) * np.timedelta64(1, "D") - np.timedelta64(1, "us")
    keys = np.arange(DAYS * ROWS)
    there = known < np.datetime64(stop or DAY + timedelta(days=1), "us")
    events = pa.table({"TRANSACTION_ID": keys, "event_timestamp": times, "CUSTOMER_ID": keys % 300})
    labels = pa.table({"TRANSACTION_ID": keys, "TX_FRAUD": fraud.astype(int), "event_time": times, "known_at": known})
    return Past(settings, spec, DAY, days[0], first, {}, events, labels.filter(pa.array(there)))


def test_ordinary_weeks_raise_no_alarm(in_files: World) -> None:
    alarms = [watch_labels(past(in_files, seed))["why"] for seed in range(number_of(60))]

    assert [why for why in alarms if why] == []


def test_labels_that_stop_are_missed_once_half_of_the_judged_days_lack_theirs(in_files: World) -> None:
    found = watch_labels(past(in_files, stop=DAY - timedelta(days=3)))

    assert (found["alarm"], found["unfinished"]) == (True, True)
    assert found["why"].startswith("labels are missing: 43% of the rows up to 2026-05-24 had theirs after 7 days")
    assert "100% is usual" in found["why"]


def test_frauds_that_are_labelled_much_later_are_told_of_when_fewer_come_and_again_when_they_come(
    in_files: World,
) -> None:
    begun = watch_labels(past(in_files, late=lambda day: 40 * (day > DAY - timedelta(days=DELAY + 7))))
    assert begun["why"].startswith("the rate of positive labels of the 7 matured days is 0.00")
    assert begun["why"].endswith("either there are fewer, or their labels come later")

    come = watch_labels(past(in_files, late=lambda day: 10))
    assert (come["alarm"], come["unfinished"]) == (True, True)
    assert "labels come late" in come["why"]
    assert "half of those 17 days or more" in come["why"]


def said_again(found: Past, again: pa.Table) -> Past:
    """Return the same days with further labels."""
    labels = pa.concat_tables([found.labels, again.cast(found.labels.schema)])
    return Past(found.settings, found.spec, found.day, found.since, found.first, {}, found.events, labels)


def later(labels: pa.Table, days: int, value: int) -> pa.Table:
    """Return labels that say something else, or the same, some days later."""
    known = pc.add(labels["known_at"], pa.scalar(timedelta(days=days), pa.duration("us")))
    labels = labels.set_column(labels.column_names.index("known_at"), "known_at", known)
    return labels.set_column(1, "TX_FRAUD", pa.repeat(value, labels.num_rows))


def test_a_positive_that_is_said_again_later_is_not_late_however_long_ago_its_event_was(tmp_path: Path) -> None:
    label = {
        "column": "TX_FRAUD",
        "task": "binary",
        "delay_days": DELAY,
        "files": {"url": "labels/{ds}.csv", "key": "TRANSACTION_ID"},
    }
    world = small_fraud(tmp_path, label=label)
    found = past(world)
    frauds = found.labels.filter(pc.equal(found.labels["TX_FRAUD"], 1))
    assert not watch_labels(said_again(found, later(frauds, 10, 1)))["alarm"]

    old = frauds.slice(0, 60)
    for name, days in (("event_time", 60), ("known_at", 60)):
        moved = pc.subtract(old[name], pa.scalar(timedelta(days=days), pa.duration("us")))
        old = old.set_column(old.column_names.index(name), name, moved)
    again = said_again(found, later(old, 76, 1))
    assert "labels come late" in watch_labels(again)["why"], "nothing is known of a first word"
    store, day = Store.of(world[0]), DAY - timedelta(days=80)
    output = tables.write_day(store, "fraud", "labels", day, old)
    Ledger(store, "fraud", "labels").publish(DayRecord(str(day), "published", {"labels": output}))
    assert not watch_labels(again)["alarm"]


def test_rates_are_of_the_labels_that_were_in_force_when_their_day_matured(in_files: World) -> None:
    found = past(in_files, rate=lambda day: RATE * (4 if day > DAY - timedelta(days=DELAY + 2) else 1))
    plain = watch_labels(found)
    first_no = later(found.labels, -3, 0)
    provisional = watch_labels(said_again(found, first_no))
    assert plain["alarm"]
    assert (provisional["rate"], provisional["why"]) == (plain["rate"], plain["why"])

    calm = past(in_files)
    suspected = watch_labels(said_again(calm, later(calm.labels, -3, 1)))
    assert (suspected["rate"], suspected["alarm"]) == (watch_labels(calm)["rate"], False)


def test_a_rate_that_triples_is_seen_on_the_first_or_second_day_that_has_matured(in_files: World) -> None:
    def night(seed: int, days: int) -> dict[str, Any]:
        changed = DAY - timedelta(days=DELAY + days - 1)
        return watch_labels(past(in_files, seed, rate=lambda day: RATE * (3 if day >= changed else 1)))

    nights = [(night(seed, 1), night(seed, 2)) for seed in range(number_of(60))]

    assert np.mean([first["alarm"] or second["alarm"] for first, second in nights]) >= 0.95
    assert not any(found["unfinished"] for both in nights for found in both), "there are more of them"
    assert nights[0][0]["why"].startswith("the rate of positive labels of the newest matured day is 0.027, where")


def test_a_label_that_comes_with_its_event_is_missed_where_it_is_empty(tmp_path: Path, in_files: World) -> None:
    whole = past(in_files)
    column = Past(*small_fraud(tmp_path), whole.day, whole.since, whole.first, {}, whole.events, whole.labels[:0])

    found = watch_labels(column)

    assert found["why"] == "labels are missing: 0% of the rows up to 2026-05-24 had theirs after 7 days"
