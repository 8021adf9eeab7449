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
    pytest.param(DieAt("windsock.store:Store.write_bytes"), False, id="before-the-first-file"),
    pytest.param(DieAt("windsock.tables:write_day", call=1, after=True), False, id="after-the-first-view"),
    pytest.param(DieAt("windsock.tables:write_day", call=2), False, id="before-the-last-view"),
    pytest.param(DieAt("windsock.tables:write_day", call=2, after=True), False, id="after-the-last-view"),
    pytest.param(DieAt("windsock.ledger:Ledger.publish"), False, id="before-the-record"),
    pytest.param(DieAt("windsock.store:Store.write_json", call=1, after=True), False, id="between-history-and-record"),
    pytest.param(DieAt("windsock.ledger:Ledger.publish", after=True), True, id="after-the-record"),
]
pytestmark = pytest.mark.kill


def payments(day: date, version: int = 0) -> list[Payment]:
    dice = random.Random(day.toordinal() * 10 + version)
    draw = dice.randrange
    return [(draw(86_400), draw(40), draw(40), draw(1, 30_000) / 100, int(n % 9 == 0)) for n in range(200)]


def run(settings) -> None:
    run_step("features", model="fraud", key=KEY, settings=settings)


def see(settings) -> dict:
    return snapshot(settings, "fraud", ["features"])


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
    assert before != after
    return settings, spec, before, after


@pytest.fixture
def fresh(world, tmp_path):
    """The same events in a store that has no feature table yet."""
    settings, _ = small_fraud(tmp_path)
    shutil.copytree(world[0].store, settings.store)
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


def test_a_kill_at_any_time_leaves_the_old_features_or_the_new_ones_and_a_rerun_gives_the_new_ones(world, replacing):
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
        assert see(settings) in (before, after), f"point {point}: a mixture"
        run(settings)
        assert see(settings) == after, f"point {point}: the rerun differs"
    assert killed >= points // 2, f"only {killed} of {points} kills came before the step was done"
    assert stray_files(settings) == []


@pytest.mark.parametrize(("place", "published"), PLACES)
def test_a_replaced_day_shows_its_new_features_only_once_the_record_is_written(world, replacing, place, published):
    settings, (_, spec, before, after) = replacing, world
    to_the_first_version(settings, spec, before)
    put_day(settings, spec, DAY, payments(DAY, 1))

    trial = Steps(settings, "fraud").run("features", KEY, die_at=place)

    assert trial.killed
    assert see(settings) == (after if published else before)
    run(settings)
    assert see(settings) == after


@pytest.mark.parametrize(("place", "published"), PLACES)
def test_a_first_day_that_was_killed_is_not_there_and_computed_by_a_rerun(world, fresh, place, published):
    before = world[2]

    trial = Steps(fresh, "fraud").run("features", KEY, die_at=place)

    assert trial.killed
    assert see(fresh) == (before if published else {})
    run(fresh)
    assert see(fresh) == before
    assert stray_files(fresh) == []
