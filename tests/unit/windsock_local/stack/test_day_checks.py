"""Doctor, status and models say which days are lacking, what is paused over them, and who waits."""

import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest

from small_model import small_fraud
from windsock.cli import main
from windsock.days import day_range, utc_now
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.store import Store
from windsock.upkeep.waits import Wait, note
from windsock_local.stack import day_checks
from windsock_local.stack.day_checks import DagFacts, check_gaps

TODAY = utc_now().date()
GAP = TODAY - timedelta(days=3)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The small model, with one day ingested by none."""
    made, _ = small_fraud(tmp_path, first_day=str(TODAY - timedelta(days=40)))
    monkeypatch.setenv("WINDSOCK_HOME", str(made.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(made.models[0]))
    for day in day_range(TODAY - timedelta(days=8), TODAY - timedelta(days=1)):
        if day != GAP:
            settle(made, "fraud", day, "ingest", "score")
    return made


def settle(settings: Settings, model: str, day: date, *stages: str) -> None:
    for stage in stages:
        Ledger.of(settings, model, stage).publish(DayRecord(str(day), "empty"))


def findings(settings: Settings) -> list[str]:
    return [" | ".join(finding) for finding in check_gaps(settings)]


def test_doctor_names_gaps_and_models_without_a_spec_and_is_glad_without_them(settings: Settings):
    settle(settings, "churn2", GAP, "ingest")
    gap, stray = findings(settings)
    assert gap.startswith(f"warning | fraud: not settled by now: ingest of 1 days: {GAP}")
    assert "churn2: days of it stand in the store, but no spec is of it" in stray
    settle(settings, "fraud", GAP, "ingest", "score")
    shutil.rmtree(Path(settings.store, "churn2"))
    assert findings(settings) == ["ok | every due day of every model is settled"]


def test_doctor_names_paused_dags_a_clock_far_ahead_and_a_watch_that_is_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    settle(settings, "fraud", GAP, "ingest", "score")
    far = utc_now() + timedelta(days=500)
    dags = {
        "fraud_ingest": DagFacts(True, far),
        "fraud_score": DagFacts(False, None),
        "fraud_monitor": DagFacts(False, far),
    }
    monkeypatch.setattr(day_checks, "dag_facts", lambda _: dags)
    paused, ahead, watch = findings(settings)
    assert "fraud_ingest: paused, although days of the model stand in the store" in paused
    assert f"fraud_monitor: its next run is at {far:%Y-%m-%d}" in ahead
    assert "nobody makes up for lost days" in watch


def test_models_and_status_say_what_is_lacking_and_who_waits_for_what(
    settings: Settings, capsys: pytest.CaptureFixture[str]
):
    wait = Wait("features", str(GAP), "fraud_features", "r", True, "A day is missing.")
    note(Store.of(settings), "fraud", wait)
    for command in (["models"], ["status"]):
        main(command)
        said = " ".join(capsys.readouterr().out.split())
        assert f"fraud: not settled by now: ingest of 1 days: {GAP}" in said
        assert f"fraud: features of {GAP} waits since" in said
        assert "A day is missing." in said
    main(["models", "--json"])
    assert f'"lacking": "{GAP}"' in capsys.readouterr().out
