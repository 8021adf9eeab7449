"""The bell: whoever changes something rings, and the scheduler's pause is over."""

import asyncio
import multiprocessing
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from windsock_airflow import warm_executor
from windsock_airflow.bell import BELL_VARIABLE, Bell, RingAfterChange, ring
from windsock_airflow.warm_executor import WarmLocalExecutor

LONG_SECONDS = 60.0


def test_a_ring_ends_the_wait_and_many_rings_are_one(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")
    threading.Timer(0.1, ring, [str(tmp_path / "bell")]).start()

    assert bell.wait(LONG_SECONDS)
    for _ in range(3):
        ring(str(tmp_path / "bell"))
    assert bell.wait(LONG_SECONDS)
    assert not bell.wait(0.01)


def test_a_ring_is_kept_for_whoever_comes_to_wait(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")
    ring(str(tmp_path / "bell"))

    assert bell.wait(LONG_SECONDS)


def test_ringing_where_nobody_waits_is_no_failure(tmp_path: Path) -> None:
    ring(str(tmp_path / "no-bell"))
    path = tmp_path / "bell"
    Bell(path)
    for _ in range(70_000):  # more than a pipe holds
        ring(str(path))


def test_the_bell_is_for_its_owner_and_takes_the_place_of_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    path.write_text("left by somebody")

    Bell(path)
    Bell(path)  # a scheduler that is started again finds it

    assert stat.S_ISFIFO(path.stat().st_mode)
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("method", "path", "rings"),
    [
        ("POST", "/api/v2/dags/fraud_train/dagRuns", True),
        ("PATCH", "/api/v2/dags/fraud_train", True),
        ("PATCH", "/execution/task-instances/0199/state", True),
        ("PATCH", "/execution/task-instances/0199/run", False),
        ("PUT", "/execution/task-instances/0199/heartbeat", False),
        ("POST", "/execution/xcoms/d/r/t/k", False),
        ("GET", "/api/v2/dags", False),
        ("GET", "/execution/task-instances/0199/state", False),
    ],
)
def test_the_api_server_rings_after_what_may_let_the_scheduler_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, rings: bool
) -> None:
    bell = Bell(tmp_path / "bell")
    monkeypatch.setenv(BELL_VARIABLE, str(tmp_path / "bell"))
    rang_before_the_end = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        rang_before_the_end.append(bell.wait(0))

    asyncio.run(RingAfterChange(app)({"type": "http", "method": method, "path": path}, None, None))  # type: ignore[arg-type]

    assert rang_before_the_end == [False], "the transaction must be over"
    assert bell.wait(0) is rings


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WarmLocalExecutor:
    """An executor as after its start, without workers."""
    monkeypatch.setattr(warm_executor, "_LONGEST_PAUSE_SECONDS", LONG_SECONDS)
    executor = WarmLocalExecutor(parallelism=1)
    executor.activity_queue, executor.result_queue = multiprocessing.SimpleQueue(), multiprocessing.SimpleQueue()
    executor.workers, executor._unread_messages = {}, multiprocessing.Value("I")
    executor._bell, executor._last_event = Bell(tmp_path / "bell"), time.monotonic() - 10 * LONG_SECONDS
    return executor


def test_the_scheduler_pauses_until_it_is_rung_for_and_looks_often_for_a_while(
    executor: WarmLocalExecutor, tmp_path: Path
) -> None:
    threading.Timer(0.1, ring, [str(tmp_path / "bell")]).start()

    executor.sync()
    executor.sync()  # would take a minute otherwise

    assert time.monotonic() - executor._last_event < LONG_SECONDS


def test_a_result_of_a_worker_ends_the_pause(executor: WarmLocalExecutor) -> None:
    key = ("dag", "task", "run", 1, -1)
    executor.running.add(key)  # type: ignore[arg-type]
    threading.Timer(0.1, executor.result_queue.put, [(key, "success", None)]).start()

    executor.sync()

    assert executor.running == set()


def test_after_a_look_that_gave_work_away_there_is_no_pause(executor: WarmLocalExecutor) -> None:
    executor._process_workloads([])

    executor.sync()


def test_airflow_asks_the_executor_for_results_in_each_look(executor: WarmLocalExecutor) -> None:
    asked = []
    executor.sync = lambda: asked.append(True)  # type: ignore[method-assign]

    executor.heartbeat()

    assert asked == [True], "else the scheduler, told not to sleep by itself, would never pause"
