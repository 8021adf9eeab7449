"""The ``monitor`` step on real features: quiet days, drifted days, and days on which little is there."""

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from monitored_days import DRIFT, HOLDOUT, IN_FORCE, LAST, WARM, crown, features_of, make_world, put_predictions

from windsock import tables
from windsock.days import day_range
from windsock.errors import NotReady
from windsock.ledger import DayRecord, Ledger
from windsock.monitoring import step
from windsock.monitoring.maturing import estimate
from windsock.monitoring.performance import Judgement, measure_performance
from windsock.monitoring.promise import Promise
from windsock.monitoring.scored import Past
from windsock.promotions import champion_on
from windsock.runs.run_folder import HOLDOUT_SCORES, RunFolder
from windsock.served.metrics import KNOWN_POSITIVE
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.steps import StepContext
from windsock.store import Store

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


def judged(world: World, day: date = LAST) -> Judgement:
    champion = champion_on(*world, day)
    assert champion is not None
    return measure_performance(*world, day, champion, np.random.default_rng(1))


def hold_out(world: World, days: tuple[date, date], *, skill: float, version: str = "1") -> None:
    """Give a version's run a holdout that shows how well its promise is known: scores by label and noise."""
    settings, _ = world
    records = Ledger.of(settings, "fraud", "ingest").between(*days).values()
    events, labels = (tables.read(Store.of(settings), records, name) for name in ("events", "labels"))
    assert events is not None
    assert labels is not None
    fraud = labels["TX_FRAUD"].to_numpy()
    scores = skill * fraud + (1 - skill) * np.random.default_rng(0).random(len(fraud))
    rows = pa.table(
        {
            "TRANSACTION_ID": events["TRANSACTION_ID"],
            "event_timestamp": events["TX_DATETIME"],
            "CUSTOMER_ID": events["CUSTOMER_ID"],
            "TX_FRAUD": fraud,
            "score": scores,
        }
    )
    RunFolder.named(Store.of(settings), "fraud", f"run-{version}").write_table(rows, HOLDOUT_SCORES)


def test_days_of_a_champion_that_was_replaced_are_judged_against_what_it_promised(
    copy_of: Callable[[], World],
) -> None:
    world, changed = copy_of(), DRIFT - timedelta(days=4)
    put_predictions(*world, day_range(IN_FORCE, changed - timedelta(days=1)), skill=0.9)
    crown(*world, reference=None, average_precision=0.9, version="2", in_force_from=changed)
    put_predictions(*world, day_range(changed, LAST), version="2", skill=0.0)

    judgement = judged(world)
    found = judgement.performance

    assert found is not None
    assert found["basis"] == "production"
    assert found["days"] == [str(d) for d in day_range(IN_FORCE, LAST - timedelta(days=7))]
    assert found["versions"].keys() == {"1", "2"}
    assert 0.6 < found["holdout"] < 0.9, "of both, by what each of them scored"
    of_days = {of["ds"]: of for of in judgement.scored_days}
    assert of_days[str(IN_FORCE)]["value"] > 0.9
    assert of_days[str(IN_FORCE)]["interval"][0] <= of_days[str(IN_FORCE)]["value"] <= 1
    assert of_days[str(changed)]["versions"] == ["2"]
    assert of_days[str(changed)]["value"] < 0.3


def test_rows_of_which_nothing_was_promised_neither_make_nor_hide_a_loss(copy_of: Callable[[], World]) -> None:
    world, changed = copy_of(), LAST - timedelta(days=10)
    crown(*world, reference=None, average_precision=0.5)
    put_predictions(*world, day_range(IN_FORCE, changed - timedelta(days=1)), skill=0.0)
    crown(*world, reference=None, average_precision=0.9, version="2", in_force_from=changed)
    put_predictions(*world, day_range(changed, LAST), version="2", skill=0.9)
    Store.of(world[0]).write_json({"holdout": {}}, "runs", "fraud", "run-2", "metrics.json")

    found = judged(world).performance

    assert found is not None
    assert (found["holdout"], found["degraded"]) == (0.5, True)
    assert found["loss"] > 0.5


def test_each_day_says_how_far_its_labels_have_come(finished: Path) -> None:
    found = judged(opened(finished)).scored_days

    states = [of["state"] for of in found]
    assert [of["ds"] for of in found] == [str(d) for d in day_range(IN_FORCE, LAST)]
    matured = (LAST - IN_FORCE).days - 6
    assert states == ["final"] * matured + ["absent"] * 7
    assert all(of["labelled"] == of["rows"] > 0 for of in found[:matured])
    assert [of["value"] for of in found[matured:]] == [None] * 7, "nothing is made up for days without labels"


def test_a_loss_without_drift_is_called_one_of_the_concept_and_with_drift_one_of_the_inputs(
    copy_of: Callable[[], World],
) -> None:
    world, before = copy_of(), DRIFT - timedelta(days=1)
    put_predictions(*world, day_range(WARM + timedelta(days=6), before))  # by the amount alone

    found = detail(world, before)
    assert (found["degraded"], found["drifted"], found["cause"]) == (True, False, "concept")
    assert "average_precision fell from 0.6" in found["summary"]
    assert found["summary"].endswith("what they mean for the label has changed (concept drift)")

    put_predictions(*world, day_range(WARM + timedelta(days=6), LAST), skill=0.0)
    found = detail(world, LAST)
    assert (found["degraded"], found["drifted"], found["cause"]) == (True, True, "inputs")


def test_a_promise_that_rests_on_little_is_not_taken_at_its_word(copy_of: Callable[[], World]) -> None:
    world = copy_of()
    put_predictions(*world, day_range(IN_FORCE, LAST), skill=0.45)
    value = (judged(world).performance or {})["value"]
    promise = {"holdout": {"average_precision": value / 0.7}}  # 30 % are lost
    Store.of(world[0]).write_json(promise, "runs", "fraud", "run-1", "metrics.json")
    exact = judged(world).performance
    hold_out(world, HOLDOUT, skill=0.45)
    wide = judged(world).performance

    assert exact is not None
    assert wide is not None
    assert exact["loss"] == wide["loss"] == pytest.approx(0.3, abs=0.01)
    assert exact["promise_interval"] == [exact["holdout"]] * 2
    assert wide["promise_interval"][0] < wide["promise_interval"][1]
    assert exact["interval"] == wide["interval"]


def test_what_may_be_expected_of_days_without_labels_is_an_estimate_that_comes_near(
    copy_of: Callable[[], World],
) -> None:
    world = copy_of()
    put_predictions(*world, day_range(IN_FORCE, LAST), skill=0.45)
    hold_out(world, HOLDOUT, skill=0.45)

    tonight, later = judged(world, LAST - timedelta(days=7)).estimate, judged(world).performance

    assert tonight is not None
    assert later is not None
    assert tonight["days"] == f"{IN_FORCE}..{LAST - timedelta(days=7)}"
    assert tonight["value"] == pytest.approx(later["value"], abs=0.12)
    assert "blind to" in tonight["by"]


def test_where_all_that_has_no_label_yet_is_of_known_positives_nothing_is_estimated(
    copy_of: Callable[[], World],
) -> None:
    settings, spec = world = copy_of()
    put_predictions(*world, day_range(IN_FORCE, LAST), skill=0.45)
    hold_out(world, HOLDOUT, skill=0.45)
    past = Past.of(settings, spec, LAST)
    past.__dict__["scored"] = past.scored.set_column(
        past.scored.column_names.index(KNOWN_POSITIVE), KNOWN_POSITIVE, pa.repeat(True, past.scored.num_rows)
    )
    assert estimate(past, "1", Promise.of(Store.of(settings), spec, "run-1")) is None
