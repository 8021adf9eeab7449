"""SIGKILL of the ingest step, at points all over its time and at exact places, then a rerun."""

from datetime import date
from pathlib import Path

import pytest

from examples import number_of
from kill import DieAt, Steps, snapshot, stray_files
from small_model import small_fraud
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.steps import run_step
from windsock.store import Store

KEY = "2026-03-03"


def _source(seed: int, dirt: list[dict] | None = None) -> dict:
    return {"kind": "simulator", "seed": seed, "customers": 300, "terminals": 600, "dirt": dirt or []}


NULLS = [{"day": KEY, "kind": "null_keys"}]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store with one published day; its source has since changed, so that a rerun replaces the day."""
    home = tmp_path_factory.mktemp("kills")
    settings, _ = small_fraud(home, source=_source(0), first_day="2026-03-03")
    run_step("ingest", model="fraud", key=KEY, settings=settings, live=False)
    before = snapshot(settings, "fraud", ["ingest"])
    calm = tmp_path_factory.mktemp("calm")
    unkilled, _ = small_fraud(calm, source=_source(1, NULLS), first_day="2026-03-03")
    run_step("ingest", model="fraud", key=KEY, settings=unkilled, live=False)
    after = snapshot(unkilled, "fraud", ["ingest"])
    assert before != after
    return settings, before, after


def _deliver(settings, seed: int, dirt: list[dict] | None = None) -> None:
    small_fraud(settings.home, source=_source(seed, dirt), first_day="2026-03-03")


@pytest.mark.kill
def test_a_kill_at_any_time_leaves_the_old_day_or_the_new_one_and_a_rerun_gives_the_new_one(world):
    settings, before, after = world
    steps = Steps(settings, "fraud")
    usual = []
    for _ in range(2):
        _deliver(settings, 0)
        run_step("ingest", model="fraud", key=KEY, settings=settings, live=False)
        _deliver(settings, 1, NULLS)
        usual.append(steps.run("ingest", KEY).seconds)
        assert snapshot(settings, "fraud", ["ingest"]) == after
    killed, points = 0, number_of(10)
    for point in range(points):
        _deliver(settings, 0)
        run_step("ingest", model="fraud", key=KEY, settings=settings, live=False)
        assert snapshot(settings, "fraud", ["ingest"]) == before
        _deliver(settings, 1, NULLS)
        trial = steps.run("ingest", KEY, kill_after=min(usual) * (point + 0.5) / points)
        killed += trial.killed
        seen = snapshot(settings, "fraud", ["ingest"])
        assert seen in (before, after), f"point {point}: a mixture"
        run_step("ingest", model="fraud", key=KEY, settings=settings, live=False)
        assert snapshot(settings, "fraud", ["ingest"]) == after, f"point {point}: the rerun differs"
    assert killed >= points // 2, f"only {killed} of {points} kills came before the step was done"
    assert stray_files(settings) == []


@pytest.mark.kill
@pytest.mark.parametrize(
    ("place", "published"),
    [
        pytest.param(DieAt("windsock.ingest.step:keep_raw", after=True), False, id="after-the-raw-copy"),
        pytest.param(DieAt("windsock.tables:write_day", call=1), False, id="before-the-first-table"),
        pytest.param(DieAt("windsock.tables:write_day", call=1, after=True), False, id="after-the-first-table"),
        pytest.param(DieAt("windsock.tables:write_day", call=2, after=True), False, id="after-the-second-table"),
        pytest.param(DieAt("windsock.tables:write_day", call=3, after=True), False, id="after-the-last-table"),
        pytest.param(DieAt("windsock.ledger:Ledger.publish"), False, id="before-the-record"),
        pytest.param(
            DieAt("windsock.store:Store.write_json", call=1, after=True), False, id="between-history-and-record"
        ),
        pytest.param(DieAt("windsock.ledger:Ledger.publish", after=True), True, id="after-the-record"),
    ],
)
def test_a_kill_at_an_exact_place_changes_what_readers_see_only_once_the_record_is_written(world, place, published):
    settings, before, after = world
    _deliver(settings, 0)
    run_step("ingest", model="fraud", key=KEY, settings=settings, live=False)
    _deliver(settings, 1, NULLS)

    trial = Steps(settings, "fraud").run("ingest", KEY, die_at=place)

    assert trial.killed
    assert snapshot(settings, "fraud", ["ingest"]) == (after if published else before)
    run_step("ingest", model="fraud", key=KEY, settings=settings, live=False)
    assert snapshot(settings, "fraud", ["ingest"]) == after


@pytest.mark.kill
@pytest.mark.parametrize(
    ("place", "published"),
    [
        pytest.param(DieAt("windsock.ingest.step:keep_raw", after=True), False, id="after-the-raw-copy"),
        pytest.param(DieAt("windsock.tables:write_day", call=2, after=True), False, id="after-the-tables"),
        pytest.param(
            DieAt("windsock.store:Store.write_json", call=1, after=True), False, id="between-history-and-record"
        ),
        pytest.param(DieAt("windsock.ledger:Ledger.publish", after=True), True, id="after-the-record"),
    ],
)
def test_a_kill_while_a_day_takes_in_a_column_leaves_it_without_or_whole_and_a_rerun_gives_it_whole(
    tmp_path, place, published
):
    calm, settings = (_with_a_column_declared_late(tmp_path / name) for name in ("calm", "killed"))
    before = snapshot(settings, "fraud", ["ingest"])
    assert run_step("ingest", model="fraud", key=KEY, settings=calm, live=False)["recovered"] == ["batch"]
    after = snapshot(calm, "fraud", ["ingest"])

    trial = Steps(settings, "fraud").run("ingest", KEY, die_at=place)

    assert trial.killed
    assert snapshot(settings, "fraud", ["ingest"]) == (after if published else before)
    if not published:
        run_step("ingest", model="fraud", key=KEY, settings=settings, live=False)
        assert snapshot(settings, "fraud", ["ingest"]) == after != before


def _with_a_column_declared_late(home: Path) -> Settings:
    """Publish a day, then declare a column that its delivery had, while its source would deliver other rows by now."""
    dirt = [{"day": KEY, "kind": "extra_columns"}]
    settings, spec = small_fraud(home, source=_source(0, dirt), first_day=KEY)
    run_step("ingest", model="fraud", key=KEY, settings=settings, live=False)
    events = spec.events.model_dump(mode="json")
    events["columns"]["batch"] = {"type": "int64", "from": "BATCH_NO"}
    return small_fraud(home, source=_source(1, dirt), first_day=KEY, events=events)[0]


@pytest.mark.kill
def test_a_kill_while_a_refusal_is_recorded_loses_neither_the_file_nor_its_reasons(tmp_path):
    dirt = [{"day": KEY, "kind": "missing_column"}]
    settings, _ = small_fraud(tmp_path, source=_source(0, dirt), first_day="2026-03-03")
    steps = Steps(settings, "fraud")

    assert steps.run("ingest", KEY, die_at=DieAt("windsock.ledger:Ledger.publish")).killed
    assert Ledger.of(settings, "fraud", "ingest").get(date.fromisoformat(KEY)) is None

    again = steps.run("ingest", KEY)

    assert "DayRejected" in again.error
    record = Ledger.of(settings, "fraud", "ingest").get(date.fromisoformat(KEY))
    assert record.status == "rejected"
    folder = record.detail["source"]["raw"]
    store = Store.of(settings)
    assert store.read_json(folder, "reasons.json")["reasons"] == list(record.detail["reasons"])
    assert store.exists(folder, record.detail["source"]["name"])
