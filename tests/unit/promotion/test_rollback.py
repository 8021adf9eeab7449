from datetime import date
from pathlib import Path
from typing import Any

import pytest

from run_folders import make_run, with_mlflow
from small_model import small_fraud
from windsock.errors import DataContractError, SpecError
from windsock.promotion.rollback_step import stack_of
from windsock.promotions import Promotion, append, champion_on, current, history
from windsock.registry import versions
from windsock.registry.versions import alias_version
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step
from windsock.version_index import version_info

Fraud = tuple[Settings, ModelSpec]


@pytest.fixture
def fraud(tmp_path: Path) -> Fraud:
    settings, spec = small_fraud(tmp_path)
    return with_mlflow(settings), spec


def crowned(fraud: Fraud, *runs: str) -> None:
    """Make each run in turn champion."""
    settings, spec = fraud
    for n, run in enumerate(runs, 1):
        make_run(settings, spec, run, seed=n, rounds=3)
        version = run_step("register", model="fraud", settings=settings, options={"run": run})["version"]
        now = current(settings, spec)
        entry = Promotion(
            0, "promote", version, run, now.version if now else None, date(2026, 5, 2), date(2026, 5, 1), "test"
        )
        append(settings, spec, entry, after=now)


def rollback(fraud: Fraud, *, live: bool = True, origin: str = "manual", **options: Any) -> dict[str, Any]:
    return run_step("rollback", model="fraud", settings=fraud[0], live=live, origin=origin, options=options)


def test_the_previous_champion_returns_whole_with_its_run_folder(fraud: Fraud) -> None:
    crowned(fraud, "r1", "r2")

    result = rollback(fraud, reason="too many complaints", by="ann")

    assert (result["version"], result["previous"]) == ("1", "2")
    entry = current(*fraud)
    assert entry is not None
    assert (entry.kind, entry.run, entry.reason, entry.by) == ("rollback", "r1", "too many complaints", "ann")
    assert alias_version(*fraud, "champion") == "1"
    assert champion_on(*fraud, date(2026, 5, 2)).version == "1"  # type: ignore[union-attr]


def test_rolling_back_twice_walks_further_down_and_not_up_again(fraud: Fraud) -> None:
    crowned(fraud, "r1", "r2", "r3")

    assert rollback(fraud, origin="a")["version"] == "2"
    assert rollback(fraud, origin="b")["version"] == "1"
    with pytest.raises(SpecError, match="nothing to roll back to: version 1 is the first champion"):
        rollback(fraud, origin="c")


def test_a_retried_rollback_does_not_go_down_twice(fraud: Fraud) -> None:
    crowned(fraud, "r1", "r2", "r3")

    first, again = rollback(fraud, origin="manual__1"), rollback(fraud, origin="manual__1")

    assert first["seq"] == again["seq"] == 4
    assert current(*fraud).version == "2"  # type: ignore[union-attr]


def test_a_former_champion_can_be_named(fraud: Fraud) -> None:
    crowned(fraud, "r1", "r2", "r3")

    assert rollback(fraud, to_version="1")["version"] == "1"
    assert stack_of(history(*fraud)) == ["1"]


def test_what_was_never_champion_must_go_through_the_gate(fraud: Fraud) -> None:
    crowned(fraud, "r1", "r2")

    with pytest.raises(SpecError, match=r"version 9 was never champion.*Former champions: 1\..*fraud_promote"):
        rollback(fraud, to_version="9")
    with pytest.raises(SpecError, match="version 2 is the champion already"):
        rollback(fraud, to_version="2")


def test_before_the_first_promotion_there_is_nothing_to_roll_back(fraud: Fraud) -> None:
    with pytest.raises(SpecError, match="no version has ever been promoted"):
        rollback(fraud)


def test_a_version_that_does_not_load_is_not_put_in_force(fraud: Fraud) -> None:
    crowned(fraud, "r1", "r2")
    versions._load.cache_clear()
    text = Path(fraud[0].store, version_info(*fraud, "1").run_folder, "model", "model.txt")
    text.write_text("tree\nspoiled")

    with pytest.raises(DataContractError, match="somebody changed them"):
        rollback(fraud)
    assert current(*fraud).version == "2"  # type: ignore[union-attr]


def test_replays_roll_nothing_back(fraud: Fraud) -> None:
    crowned(fraud, "r1", "r2")

    with pytest.raises(SpecError, match="is a replay"):
        rollback(fraud, live=False, origin="backfill__1")
