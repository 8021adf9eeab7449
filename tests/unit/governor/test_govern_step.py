"""The ``govern`` step on monitor records: what it records, and that reruns and replays are harmless."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from small_model import small_fraud
from windsock.errors import NotReady
from windsock.governor import step
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import StepContext

D0 = date(2026, 5, 1)
EAGER = {"needed": 2, "out_of": 3, "cool_down_days": 14, "fresh_days": 0}


@pytest.fixture
def model(tmp_path: Path) -> tuple[Settings, ModelSpec]:
    return small_fraud(tmp_path, retraining=EAGER)


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

    for n in (5, 6):
        monitored(model[0], n, drifted=True, champion="2")
    govern(model, 5)
    assert "cooling down" in govern(model, 6)["reasons"][0]


def test_without_a_champion_nothing_is_asked_for(model: tuple[Settings, ModelSpec]) -> None:
    monitored(model[0], 0, drifted=False, champion=None)

    assert govern(model, 0)["action"] == "none"
    assert record(model[0], 0).status == "no_champion"
