"""Waiting in the triggerer: for all tasks together one look at a ledger, and each wakes once its own days are there."""

import asyncio
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from windsock.days import day_range
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock_airflow import waiting
from windsock_airflow.waiting import DaysTrigger

FIRST = date(2026, 3, 1)
MODELS, DAYS = [f"m{number}" for number in range(10)], day_range(FIRST, FIRST + timedelta(days=59))


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the looks at each model's ledger, which are quick ones."""
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    monkeypatch.delenv("WINDSOCK_STORE", raising=False)
    monkeypatch.setattr(waiting, "LOOK_S", 0.05)
    monkeypatch.setattr(waiting, "_looks", {})
    counted, list_days = Counter[str](), waiting._list_days

    def counting(model: str, stage: str) -> frozenset[str]:
        counted[model] += 1
        return list_days(model, stage)

    monkeypatch.setattr(waiting, "_list_days", counting)
    return counted


def record(model: str, day: date) -> None:
    Ledger.of(Settings.from_env(), model, "ingest").publish(DayRecord(str(day), "empty"))


async def wait(trigger: DaysTrigger) -> str:
    async for _ in trigger.run():
        pass
    return f"{trigger.model} {trigger.days[-1]}"


def test_ten_models_with_sixty_waiting_days_cost_one_look_a_model_and_each_wakes_when_its_own_day_comes(looks):
    async def world() -> set[str]:
        tasks = [asyncio.create_task(wait(DaysTrigger(m, "ingest", [str(d)], 3600))) for m in MODELS for d in DAYS]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in tasks)
        for model in MODELS[:2]:
            record(model, FIRST)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 2:
            done = {task for task in tasks if task.done()}
            await asyncio.sleep(0.05)
        most = (time.monotonic() - began) / waiting.LOOK_S + 2
        assert max(looks.values()) <= most, "sixty tasks share a look"
        for task in tasks:
            task.cancel()
        return {task.result() for task in done}

    began = time.monotonic()
    assert asyncio.run(world()) == {f"{model} {FIRST}" for model in MODELS[:2]}


def test_a_task_is_woken_for_all_of_its_days_or_when_it_has_slept_long_enough(looks):
    async def world() -> None:
        both = asyncio.create_task(wait(DaysTrigger("m", "ingest", [str(d) for d in DAYS[:2]], 3600)))
        await wait(DaysTrigger("m", "ingest", [str(DAYS[5])], 0.1))  # other things may have made it ready
        record("m", DAYS[0])
        await asyncio.sleep(0.2)
        assert not both.done()
        record("m", DAYS[1])
        await both

    asyncio.run(world())


def test_a_store_that_is_away_wakes_nobody(looks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    async def world() -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("WINDSOCK_STORE", str(tmp_path / "file"))
        task = asyncio.create_task(wait(DaysTrigger("m", "ingest", [str(FIRST)], 3600)))
        await asyncio.sleep(0.2)
        assert not task.done()
        monkeypatch.delenv("WINDSOCK_STORE")
        record("m", FIRST)
        await task

    asyncio.run(world())
    assert "could not be listed" in caplog.text
