"""The ``govern`` step on monitor records: what it records, and that reruns and replays are harmless."""

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from small_model import small_fraud
from windsock.cli import main
from windsock.errors import NotReady
from windsock.governor import step
from windsock.governor.answers import answers_to, note_no_approval
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import Promotion, append, current
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import StepContext
from windsock.store import Store
from windsock.version_index import VersionInfo, record_version

D0 = date(2026, 5, 1)
LABEL = {"column": "TX_FRAUD", "task": "binary", "delay_days": 0}
EAGER = {"needed": 2, "out_of": 3, "cool_down_days": 14, "fresh_days": 0, "recovery_days": 4, "recovery_trainings": 3}


@pytest.fixture
def model(tmp_path: Path) -> tuple[Settings, ModelSpec]:
    return small_fraud(tmp_path, label=LABEL, retraining=EAGER)


def monitored(settings: Settings, n: int, *, drifted: bool, champion: str | None = "1") -> None:
    detail = {
        "champion": champion,
        "champion_since": D0.isoformat() if champion else None,
        "drifted": drifted,
        "degraded": False,
        "judged": True,
        "summary": "3 of 15 features drifted" if drifted else "no drift",
    }
    day = D0 + timedelta(days=n)
    Ledger.of(settings, "fraud", "monitor").publish(DayRecord(day.isoformat(), "published", detail=detail))


def govern(model: tuple[Settings, ModelSpec], n: int, *, live: bool = True) -> dict[str, Any]:
    key = (D0 + timedelta(days=n)).isoformat()
    return step.run(StepContext(*model, key=key, live=live, origin="test"))


def record(settings: Settings, n: int) -> DayRecord:
    found = Ledger.of(settings, "fraud", "decisions").get(D0 + timedelta(days=n))
    assert found is not None
    return found


def test_a_day_that_was_not_monitored_is_waited_for(model: tuple[Settings, ModelSpec]) -> None:
    with pytest.raises(NotReady, match="2026-05-01 has not been monitored yet"):
        govern(model, 0)


def test_drift_leads_to_one_request_with_its_reasons(model: tuple[Settings, ModelSpec]) -> None:
    for n in range(5):
        monitored(model[0], n, drifted=n >= 1)

    results = [govern(model, n) for n in range(5)]

    assert [r["action"] for r in results] == ["none", "wait", "retrain", "suppress", "suppress"]
    asked = results[2]
    assert (asked["retrain"], asked["as_of"], asked["dedupe_key"]) == (True, "2026-05-03", "1@2026-05-02")
    assert not asked["repeated"]
    assert "3 of 15 features drifted" in asked["reasons"]
    assert record(model[0], 2).detail["requested"] == "1@2026-05-02"


def test_deciding_a_day_again_changes_nothing_and_says_that_it_is_a_repeat(model: tuple[Settings, ModelSpec]) -> None:
    for n in range(5):
        monitored(model[0], n, drifted=True)
        govern(model, n)
    before = [record(model[0], n) for n in range(5)]

    again = {n: govern(model, n) for n in (3, 0, 1, 4, 2)}

    assert [record(model[0], n) for n in range(5)] == before
    assert [n for n in again if again[n]["retrain"]] == [1]
    assert again[1]["repeated"]


def test_a_replay_never_asks_and_never_forgets_a_request(model: tuple[Settings, ModelSpec]) -> None:
    for n in range(3):
        monitored(model[0], n, drifted=True)
    replayed = [govern(model, n, live=False) for n in range(3)]
    assert [r["retrain"] for r in replayed] == [False] * 3
    assert replayed[2]["reasons"][0].startswith("replayed")

    live = [govern(model, n) for n in range(3)]
    assert [r["retrain"] for r in live] == [False, True, False]
    kept = record(model[0], 1)

    assert not govern(model, 1, live=False)["retrain"]
    assert record(model[0], 1) == kept


def test_a_changed_finding_does_not_erase_a_request_that_was_made(model: tuple[Settings, ModelSpec]) -> None:
    for n in range(2):
        monitored(model[0], n, drifted=True)
        govern(model, n)
    monitored(model[0], 1, drifted=False)

    assert govern(model, 1)["action"] == "none"
    assert record(model[0], 1).detail["requested"] == "1@2026-05-01"

    for n in (3, 4):
        monitored(model[0], n, drifted=True, champion="2")
    govern(model, 3)
    assert "this drift was asked about on 2026-05-02, and no training exists" in govern(model, 4)["reasons"][0]


def test_without_a_champion_nothing_is_asked_for(model: tuple[Settings, ModelSpec]) -> None:
    monitored(model[0], 0, drifted=False, champion=None)

    assert govern(model, 0)["action"] == "none"
    assert record(model[0], 0).status == "no_champion"


def trained(model: tuple[Settings, ModelSpec], key: str, n: int, version: str | None, passed: bool | None) -> str:
    """Leave what a training leaves that answers a request: lineage, and its version and verdict if it came so far."""
    settings, spec = model
    store, day = Store.of(settings), D0 + timedelta(days=n)
    run = f"{day}-asset-triggered-{version or 'none'}"
    store.write_json({"request": key}, "runs", spec.name, run, "lineage.json")
    if version is not None:
        record_version(settings, VersionInfo(spec.name, version, run, day))
    if passed is not None:
        store.write_json({"passed": passed}, "runs", spec.name, run, "gate.json")
    return run


def test_what_became_of_each_request_is_read_from_the_store_and_leads_to_the_next(
    model: tuple[Settings, ModelSpec],
) -> None:
    settings, spec = model
    for n in range(14):
        monitored(settings, n, drifted=True, champion="1" if n < 10 else "3")

    results = {n: govern(model, n) for n in range(3)}
    trained(model, "1@2026-05-01", 1, None, None)
    results |= {n: govern(model, n) for n in range(3, 7)}  # the training began and came to nothing: asked again
    trained(model, "1@2026-05-01#2", 5, "2", passed=False)
    results |= {n: govern(model, n) for n in range(7, 10)}  # the gate refused its challenger: asked again
    run = trained(model, "1@2026-05-01#3", 9, "3", passed=True)
    entry = Promotion(0, "promote", "3", run, None, D0 + timedelta(days=10), D0 + timedelta(days=9), "test")
    append(settings, spec, entry, after=current(settings, spec))
    results |= {n: govern(model, n) for n in range(10, 14)}

    assert [n for n, r in results.items() if r["retrain"]] == [1, 5, 9]
    assert [results[n]["dedupe_key"] for n in (1, 5, 9)] == ["1@2026-05-01", "1@2026-05-01#2", "1@2026-05-01#3"]
    assert "no training exists for it" in results[2]["reasons"][0]
    assert "its training 2026-05-02-asset-triggered-none has not become a version" in results[4]["reasons"][0]
    assert "version 2 was trained and refused by the gate" in results[8]["reasons"][0]
    assert "version 3 went into force on 2026-05-11" in results[10]["reasons"][0]
    assert results[13]["action"] == "wait", "what was promoted is measured first"
    assert "before its cure has been measured" in results[13]["reasons"][0]


def a_drift_with_a_version_that_passed(model: tuple[Settings, ModelSpec]) -> None:
    """Eight nights of one, of which three are decided, and what the request of the second led to."""
    for n in range(8):
        monitored(model[0], n, drifted=True)
    for n in range(3):
        govern(model, n)
    trained(model, "1@2026-05-01", 1, "2", passed=True)


def test_a_training_by_hand_as_of_an_earlier_day_hides_no_answer(model: tuple[Settings, ModelSpec]) -> None:
    settings, spec = model
    a_drift_with_a_version_that_passed(model)
    record_version(settings, VersionInfo(spec.name, "3", "2026-04-20-by-hand", D0 - timedelta(days=11)))

    assert "version 2 was trained: it has been neither promoted nor refused" in govern(model, 5)["reasons"][0]
    Store.of(settings).write_bytes(b"{", spec.name, "versions", "3.json")
    assert "version 2 was trained" in govern(model, 6)["reasons"][0], "a damaged version keeps no night undecided"


def test_what_a_person_rejects_or_a_newer_version_supersedes_is_answered_and_the_recovery_goes_on(
    model: tuple[Settings, ModelSpec],
) -> None:
    settings, spec = model
    a_drift_with_a_version_that_passed(model)
    assert govern(model, 5)["action"] == "escalate", "the question waits"
    note_no_approval(settings, spec, "2", "rejected by a person")

    asked = govern(model, 6)
    assert (asked["action"], asked["dedupe_key"]) == ("retrain", "1@2026-05-01#2")
    (answer,) = answers_to(settings, spec, {D0 + timedelta(days=1): "1@2026-05-01"}).values()
    assert (answer.state, answer.why) == ("refused", "rejected by a person")


def test_nights_that_were_not_monitored_are_said(model: tuple[Settings, ModelSpec]) -> None:
    monitored(model[0], 0, drifted=True)
    for n in range(4):
        Ledger.of(model[0], "fraud", "score").publish(DayRecord(str(D0 + timedelta(days=n)), "published"))
    monitored(model[0], 3, drifted=True)

    decided = govern(model, 3)

    assert decided["action"] == "wait"
    assert decided["reasons"][-1] == "not monitored, and so not counted: 2026-05-02..2026-05-03"
    assert record(model[0], 3).detail["missing_nights"] == ["2026-05-02", "2026-05-03"]


def test_a_request_is_repeated_under_its_own_name_when_an_earlier_night_is_monitored_after_it(
    model: tuple[Settings, ModelSpec],
) -> None:
    for n in (2, 3):
        monitored(model[0], n, drifted=True)
        govern(model, n)
    monitored(model[0], 1, drifted=True)

    again = govern(model, 3)

    assert (again["retrain"], again["repeated"], again["onset"]) == (True, True, "2026-05-02")
    assert again["dedupe_key"] == record(model[0], 3).detail["requested"] == "1@2026-05-03"
    monitored(model[0], 4, drifted=True)
    assert govern(model, 4)["action"] == "suppress"


def test_a_decision_says_by_which_settings_and_numbers_it_was_made(tmp_path: Path) -> None:
    hashes = []
    for folder, policy in (("a", EAGER), ("b", EAGER), ("c", {**EAGER, "recovery_trainings": 1})):
        model = small_fraud(tmp_path / folder, label=LABEL, retraining=policy)
        monitored(model[0], 0, drifted=True)
        govern(model, 0)
        detail = record(model[0], 0).detail
        hashes.append(detail["settings"])
        assert detail["numbers"]["signals"] == 1

    assert hashes[0] == hashes[1] != hashes[2]


def test_an_episode_is_found_however_far_back_it_began(model: tuple[Settings, ModelSpec]) -> None:
    for n in range(0, 150, 3):
        monitored(model[0], n, drifted=True)

    assert govern(model, 147)["onset"] == "2026-05-01"


def test_half_a_cure_that_lasts_for_months_is_still_of_the_drift_that_it_was_for(
    model: tuple[Settings, ModelSpec],
) -> None:
    settings = model[0]
    for n in range(150):
        monitored(settings, n, drifted=n < 3, champion="1" if n < 3 else "2")
        ledger, value = Ledger.of(settings, "fraud", "monitor"), {"loss": 0.0, "basis": "re-scored"}
        night = ledger.get(D0 + timedelta(days=n))
        assert night is not None
        measured = (
            {"promised": 0.6, "performance": {**value, "value": 0.6}}
            if n < 3
            else {"promised": 0.45, "performance": {**value, "value": 0.44}}
        )
        ledger.publish(replace(night, detail={**night.detail, **measured}))
        decided = govern(model, n)
    assert (decided["action"], decided["onset"]) == ("escalate", "2026-05-01")


@pytest.fixture
def commanded(model: tuple[Settings, ModelSpec], monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, ModelSpec]:
    """The model as commands find it, with a drift whose first challenger was refused and whose second is in force."""
    settings, spec = model
    monkeypatch.setenv("WINDSOCK_HOME", str(settings.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(settings.home / "models"))
    monkeypatch.setenv("COLUMNS", "200")
    for n in range(9):
        monitored(settings, n, drifted=n >= 1)
        govern(model, n)
        if n == 2:
            run = trained(model, "1@2026-05-02", 2, "2", passed=False)
            checks = [{"name": "floor", "passed": False, "why": "average_precision 0.3 is below 0.4."}]
            verdict = {"passed": False, "checks": checks}
            Store.of(settings).write_json(verdict, "runs", spec.name, run, "gate.json")
        if n == 6:
            run = trained(model, "1@2026-05-02#2", 6, "3", passed=True)
            entry = Promotion(0, "promote", "3", run, None, D0 + timedelta(days=7), D0 + timedelta(days=6), "passed it")
            append(settings, spec, entry, after=current(settings, spec))
    return model


def test_explain_tells_what_led_to_a_decision_in_order(
    commanded: tuple[Settings, ModelSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "fraud", "--day", "2026-05-08"]) == 0

    said = capsys.readouterr().out.splitlines()
    assert said[0] == "fraud 2026-05-08: suppress"
    assert said[1].startswith("  this drift was asked about on 2026-05-07, and version 3 went into force on 2026-05-08")
    assert any(line.startswith("  by settings ") and line.endswith(", as today's") for line in said)
    story = [line for line in said if line.startswith("2026-")]
    assert story == [
        "2026-05-02  first signal, about version 1: 3 of 15 features drifted",
        "2026-05-03  asked for a training (1@2026-05-02)",
        "2026-05-03  training 2026-05-03-asset-triggered-2: version 2, refused: average_precision 0.3 is below 0.4.",
        "2026-05-07  asked for a training (1@2026-05-02#2)",
        "2026-05-07  training 2026-05-07-asset-triggered-3: version 3, passed the gate",
        "2026-05-08  version 3 in force (promote: passed it)",
    ]
    assert main(["explain", "fraud", "--day", "2026-05-08", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["events"]) == len(story)

    assert main(["explain", "fraud", "--day", "2026-06-08"]) == 64
    assert "Decided are 9 days from 2026-05-01 to 2026-05-09" in capsys.readouterr().err


def test_policy_decides_recorded_nights_by_other_settings_and_changes_nothing(
    commanded: tuple[Settings, ModelSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.of(commanded[0])
    files = {name: store.read_bytes("fraud", name) for name in store.files("fraud")}
    nights = ["policy", "fraud", "--from", "2026-05-01", "--to", "2026-05-09"]

    assert main([*nights, "--json"]) == 0
    same = json.loads(capsys.readouterr().out)
    assert [row["replayed"] for row in same] == [row["recorded"] for row in same]

    assert main([*nights, "--set", "needed=3", "--set", "recovery_trainings=1", "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert [row["day"] for row in other if row["replayed"] == "retrain"] == ["2026-05-04"]
    assert main([*nights, "--set", "needed=3", "--set", "recovery_trainings=1"]) == 0
    assert "Requests: 2 recorded, 1 by these settings." in capsys.readouterr().out
    assert {name: store.read_bytes("fraud", name) for name in store.files("fraud")} == files

    assert main([*nights, "--set", "neded=3"]) == 64
    assert "Did you mean 'needed'?" in capsys.readouterr().err
    assert main([*nights, "--set", "needed=9"]) == 64
    assert "no retraining would ever start" in capsys.readouterr().err


def test_policy_by_the_settings_of_then_is_the_record_whatever_has_become_of_requests_since(
    commanded: tuple[Settings, ModelSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    trained(commanded, "1@2026-05-02#2", 6, "3", passed=False)  # known by now, and not when the nights were decided
    monitored(commanded[0], 9, drifted=True)
    govern(commanded, 9, live=False)

    assert main(["policy", "fraud", "--from", "2026-05-01", "--to", "2026-05-10", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["replayed"] for row in rows[:-1]] == [row["recorded"] for row in rows[:-1]]
    assert (rows[-1]["recorded"], rows[-1]["replayed"]) == ("suppress (in a backfill)", "suppress")

    monitored(commanded[0], 2, drifted=False)  # corrected after it had asked: the request stays, and later nights know
    govern(commanded, 2)
    assert main(["policy", "fraud", "--from", "2026-05-01", "--to", "2026-05-10", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["replayed"] for row in rows] == [str(row["recorded"]).partition(" ")[0] for row in rows]


def test_explain_calls_half_a_cure_a_signal(
    model: tuple[Settings, ModelSpec], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = model[0]
    monkeypatch.setenv("WINDSOCK_HOME", str(settings.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(settings.home / "models"))
    ledger = Ledger.of(settings, "fraud", "monitor")
    for n in range(6):
        monitored(settings, n, drifted=n < 3, champion="1" if n < 3 else "2")
        night, value = ledger.get(D0 + timedelta(days=n)), 0.6 if n < 3 else 0.3
        assert night is not None
        performance = {"loss": 0.0, "basis": "re-scored", "value": value}
        ledger.publish(replace(night, detail={**night.detail, "promised": 0.6, "performance": performance}))
        govern(model, n)

    assert main(["explain", "fraud", "--day", "2026-05-06"]) == 0
    assert "no signal" not in capsys.readouterr().out
