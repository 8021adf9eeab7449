"""The ``monitor`` step on real features: quiet days, drifted days, and days on which little is there."""

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from monitored_days import DRIFT, HOLDOUT, IN_FORCE, LAST, crown, features_of, make_world, put_predictions

from windsock.days import day_range
from windsock.errors import NotReady
from windsock.ledger import DayRecord, Ledger
from windsock.monitoring import step
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.steps import StepContext

World = tuple[Settings, ModelSpec]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    settings, spec = make_world(folder)
    crown(settings, spec, reference=features_of(settings, spec, *HOLDOUT))
    put_predictions(settings, spec, day_range(IN_FORCE, LAST))
    return folder


@pytest.fixture
def copy_of(finished: Path, tmp_path: Path) -> Callable[[], World]:
    """Give a world of its own to a test that changes it."""

    def copied() -> World:
        shutil.copytree(finished, tmp_path / "w")
        return opened(tmp_path / "w")

    return copied


def opened(folder: Path) -> World:
    settings = Settings.from_env({"WINDSOCK_HOME": str(folder), "WINDSOCK_MODELS": str(folder / "models")})
    return settings, get_spec(settings, "fraud")


def monitor(world: World, day: date) -> DayRecord:
    step.run(StepContext(*world, key=day.isoformat(), origin="test"))
    record = Ledger.of(world[0], "fraud", "monitor").get(day)
    assert record is not None
    return record


def detail(world: World, day: date) -> dict[str, Any]:
    return dict(monitor(world, day).detail)


def test_days_like_the_reference_are_quiet(finished: Path) -> None:
    for day in (IN_FORCE, IN_FORCE + timedelta(days=3), DRIFT - timedelta(days=1)):
        found = detail(opened(finished), day)

        assert not found["drifted"], found["summary"]
        assert found["judged"]
        assert found["drifted_share"] < 0.2, "with 600 terminals, what two compromised ones a day do still builds up"
        assert found["rows"]["current"] > 3000
        assert not found["prediction"]["drifted"]


def test_doubled_amounts_are_drift_within_two_days_and_named(finished: Path) -> None:
    found = detail(opened(finished), DRIFT + timedelta(days=1))

    assert found["drifted"]
    assert found["drift"]["TX_AMOUNT"]["drifted"]
    assert found["drift"]["TX_AMOUNT"]["method"] == "wasserstein"
    assert found["drift"]["TX_DURING_WEEKEND"] == {
        "method": "jensenshannon",
        "value": found["drift"]["TX_DURING_WEEKEND"]["value"],
        "threshold": 0.1,
        "drifted": False,
        "missing": {"current": 0.0, "reference": 0.0},
    }
    assert "TX_AMOUNT (wasserstein" in found["summary"]


def test_the_report_is_kept_as_page_and_numbers(finished: Path) -> None:
    world = opened(finished)
    result = step.run(StepContext(*world, key=LAST.isoformat()))

    page = Path(world[0].store, result["report"])
    assert page.read_text(encoding="utf-8").count("<html") >= 1
    assert "TX_AMOUNT" in (page.parent / "drift.json").read_text(encoding="utf-8")


def test_a_rerun_finds_the_same_and_publishes_nothing_new(finished: Path) -> None:
    world = opened(finished)

    assert monitor(world, LAST) == monitor(world, LAST)


def test_a_day_that_is_not_scored_yet_is_waited_for(finished: Path) -> None:
    with pytest.raises(NotReady, match=r"ingest and score of 2026-05-05 is not done yet"):
        monitor(opened(finished), LAST + timedelta(days=1))


def test_a_rejected_day_is_monitored_without_its_rows(copy_of: Callable[[], World]) -> None:
    world = copy_of()
    after = LAST + timedelta(days=1)
    Ledger.of(world[0], "fraud", "ingest").publish(DayRecord(after.isoformat(), "rejected"))

    found = detail(world, after)

    assert found["judged"]
    assert found["days"] == "2026-04-29..2026-05-04"
    assert any("2026-05-05" in note for note in found["notes"])
    assert any("not whole weeks" in note for note in found["notes"])


def test_before_the_first_champion_nothing_is_judged(finished: Path) -> None:
    world = opened(finished)
    day = IN_FORCE - timedelta(days=1)
    Ledger.of(world[0], "fraud", "score").publish(DayRecord(day.isoformat(), "no_champion"))

    record = monitor(world, day)

    assert record.status == "no_champion"
    assert not record.detail["drifted"]
    assert record.detail["champion"] is None


def test_a_champion_without_a_reference_gives_a_note_and_no_alarm(copy_of: Callable[[], World]) -> None:
    world = copy_of()
    Path(world[0].store, "runs", "fraud", "run-1", "reference.parquet").unlink()

    found = detail(world, LAST)

    assert not found["drifted"]
    assert "drift was not judged" in found["summary"]
    assert any("reference.parquet" in note for note in found["notes"])


def test_performance_counts_only_labels_known_by_the_day(copy_of: Callable[[], World]) -> None:
    world = copy_of()
    put_predictions(*world, day_range(IN_FORCE, LAST), skill=0.9)

    found = detail(world, LAST)["performance"]

    assert found["days"] == [str(d) for d in day_range(IN_FORCE, LAST - timedelta(days=7))]
    assert found["value"] > 0.95
    assert not found["degraded"]
    assert detail(world, IN_FORCE + timedelta(days=6))["performance"] is None


def test_performance_is_untouched_by_what_becomes_known_later(copy_of: Callable[[], World]) -> None:
    world = copy_of()
    put_predictions(*world, day_range(IN_FORCE, LAST), skill=0.9)
    before = detail(world, LAST)["performance"]
    put_predictions(*world, day_range(LAST - timedelta(days=6), LAST), skill=0.0)

    assert detail(world, LAST)["performance"] == before


def test_useless_predictions_are_a_loss_and_a_week_of_ordinary_luck_is_not(copy_of: Callable[[], World]) -> None:
    world = copy_of()
    put_predictions(*world, day_range(IN_FORCE, LAST), skill=0.0)

    lost = detail(world, LAST)

    assert lost["degraded"], lost["performance"]
    assert lost["performance"]["interval"][1] < 0.6
    assert "average_precision fell from 0.6" in lost["summary"]


def test_another_versions_predictions_are_not_the_champions(copy_of: Callable[[], World]) -> None:
    world = copy_of()
    put_predictions(*world, day_range(IN_FORCE, LAST), version="2", skill=0.0)

    found = detail(world, LAST)

    assert found["performance"] is None
    assert found["prediction"]["value"] is None
    assert not found["degraded"]
    assert found["judged"], "features are compared all the same"
