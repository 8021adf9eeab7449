"""SIGKILL of the features step, at random points and at exact places, of a first and of a replaced day."""

import random
import shutil
from datetime import date, timedelta

import pytest

from examples import number_of
from feature_days import Payment, put_day, put_days
from kill import DieAt, Steps, snapshot, stray_files
from small_model import small_fraud
from windsock.steps import run_step

FIRST = date(2026, 3, 1)
DAY = FIRST + timedelta(days=9)
KEY = str(DAY)
PLACES = [
    pytest.param(DieAt("windsock.store:Store.write_bytes"), 0, id="before-the-first-file"),
    pytest.param(DieAt("windsock.tables:write_day", after=True), 0, id="after-the-first-rows"),
    pytest.param(DieAt("windsock.store:Store.write_json", after=True), 0, id="between-the-first-history-and-record"),
    pytest.param(DieAt("windsock.ledger:Ledger.publish", after=True), 1, id="after-the-first-record"),
    pytest.param(DieAt("windsock.tables:write_day", call=2), 1, id="before-the-last-rows"),
    pytest.param(DieAt("windsock.store:Store.write_json", call=3, after=True), 1, id="between-the-last-two-files"),
    pytest.param(DieAt("windsock.ledger:Ledger.publish", call=2, after=True), 2, id="after-the-last-record"),
]
"""Where to die, and how many definitions have published their day by then."""
pytestmark = pytest.mark.kill


def payments(day: date, version: int = 0) -> list[Payment]:
    dice = random.Random(day.toordinal() * 10 + version)
    draw = dice.randrange
    return [(draw(86_400), draw(40), draw(40), draw(1, 30_000) / 100, int(n % 9 == 0)) for n in range(200)]


def run(settings) -> None:
    run_step("features", model="fraud", key=KEY, settings=settings)


def see(settings) -> dict:
    """Return the day of each definition, by its table."""
    seen = snapshot(settings, "fraud", ["features"])
    return {name.removesuffix(f"/{KEY}"): found for name, found in seen.items() if name.endswith(KEY)}


def published(seen: dict, before: dict, after: dict) -> int:
    """Count the definitions whose day is the new one; each of the others is as it was, or not there yet."""
    new = [table for table, found in seen.items() if found == after[table]]
    assert {table: found for table, found in seen.items() if table not in new} == {
        table: found for table, found in before.items() if table not in new
    }
    return len(new)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Ten days of events; the features of the last are there in one version, and what they become in another."""
    home = tmp_path_factory.mktemp("kills")
    settings, spec = small_fraud(home)
    put_days(settings, spec, {FIRST + timedelta(days=n): payments(FIRST + timedelta(days=n)) for n in range(10)})
    calm, _ = small_fraud(tmp_path_factory.mktemp("calm"))
    shutil.copytree(settings.store, calm.store)
    run(calm)
    before = see(calm)
    put_day(calm, spec, DAY, payments(DAY, 1))
    run(calm)
    after = see(calm)
    assert len(before) == len(after) == 2
    assert all(before[table] != after[table] for table in before)
    return settings, spec, before, after


@pytest.fixture
def fresh(world, tmp_path):
    """The same events in a store whose definitions are known, and have no rows of the day yet."""
    settings, _ = small_fraud(tmp_path)
    shutil.copytree(world[0].store, settings.store)
    run_step("features", model="fraud", key=str(FIRST), settings=settings)
    return settings


def to_the_first_version(settings, spec, before) -> None:
    put_day(settings, spec, DAY, payments(DAY))
    run(settings)
    assert see(settings) == before


@pytest.fixture(scope="module")
def replacing(world, tmp_path_factory):
    """A store whose day is computed in turns from the one and the other version of its events."""
    settings, _ = small_fraud(tmp_path_factory.mktemp("replacing"))
    shutil.copytree(world[0].store, settings.store)
    return settings


def test_a_kill_at_any_time_leaves_each_definition_its_old_rows_or_the_new_ones_and_a_rerun_the_new_ones(
    world, replacing
):
    settings, (_, spec, before, after) = replacing, world
    steps, dice, killed = Steps(settings, "fraud"), random.Random(2), 0
    points = number_of(10)
    usual = []
    for _ in range(2):
        to_the_first_version(settings, spec, before)
        put_day(settings, spec, DAY, payments(DAY, 1))
        usual.append(steps.run("features", KEY).seconds)
        assert see(settings) == after
    for point in range(points):
        to_the_first_version(settings, spec, before)
        put_day(settings, spec, DAY, payments(DAY, 1))
        killed += steps.run("features", KEY, kill_after=min(usual) * (point + dice.random()) / points).killed
        published(see(settings), before, after)
        run(settings)
        assert see(settings) == after, f"point {point}: the rerun differs"
    assert killed >= points // 2, f"only {killed} of {points} kills came before the step was done"
    assert stray_files(settings) == []


@pytest.mark.parametrize(("place", "done"), PLACES)
def test_a_replaced_day_shows_a_definition_s_new_rows_only_once_its_record_is_written(world, replacing, place, done):
    settings, (_, spec, before, after) = replacing, world
    to_the_first_version(settings, spec, before)
    put_day(settings, spec, DAY, payments(DAY, 1))

    trial = Steps(settings, "fraud").run("features", KEY, die_at=place)

    assert trial.killed
    assert published(see(settings), before, after) == done
    run(settings)
    assert see(settings) == after


@pytest.mark.parametrize(("place", "done"), PLACES)
def test_a_first_day_that_was_killed_is_not_there_and_computed_by_a_rerun(world, fresh, place, done):
    before = world[2]

    trial = Steps(fresh, "fraud").run("features", KEY, die_at=place)

    assert trial.killed
    assert published(see(fresh), {}, before) == done
    run(fresh)
    assert see(fresh) == before
    assert stray_files(fresh) == []
