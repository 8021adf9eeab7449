"""The warm executor imports what it can and touches a private method only if it knows it."""

import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.executors.local_executor import LocalExecutor
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.sdk.execution_time.supervisor import WatchedSubprocess
from airflow.utils.state import TaskInstanceState

from windsock_airflow import warm_executor


@pytest.fixture
def original() -> Iterator[Any]:
    before = WatchedSubprocess._service_subprocess
    yield before
    WatchedSubprocess._service_subprocess = before  # type: ignore[method-assign]


def test_a_module_that_cannot_be_imported_is_only_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(warm_executor.MODULES_VARIABLE, "colorsys, no.such.module")
    sys.modules.pop("colorsys", None)

    with caplog.at_level(logging.WARNING):
        failed = warm_executor.warm_up()

    assert failed == ["no.such.module"]
    assert "no.such.module" in caplog.text
    assert "colorsys" in sys.modules


def test_the_list_holds_the_ml_stack_and_windsocks_own_steps_but_not_its_commands() -> None:
    names = set(warm_executor._modules())

    assert {"mlflow", "feast", "great_expectations", "evidently", "lightgbm", "duckdb", "pandas"} <= names
    assert {"windsock.tables", "windsock.spec.load"} <= names
    assert not any(name.startswith(("windsock.cli", "windsock_local.stack", "windsock_local.demo")) for name in names)


def test_a_slot_is_given_back_at_once_when_the_sockets_are_closed(
    original: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def recorder(self: Any, max_wait_time: float, raise_on_timeout: bool = False, expect_signal: Any = None) -> None:
        waits.append(max_wait_time)

    monkeypatch.setattr(WatchedSubprocess, "_service_subprocess", recorder)

    assert warm_executor.shorten_slot_hold()
    assert warm_executor.shorten_slot_hold(), "wrapping twice is the same as once"
    process = SimpleNamespace(_open_sockets={"a socket": "logs"})
    WatchedSubprocess._service_subprocess(process, 1.0)  # type: ignore[arg-type]
    process._open_sockets = {}
    WatchedSubprocess._service_subprocess(process, max_wait_time=1.0)  # type: ignore[arg-type]

    assert waits == [1.0, 0.01]


def test_this_airflow_is_one_whose_supervisor_we_know(original: Any) -> None:
    assert warm_executor.shorten_slot_hold()
    assert WatchedSubprocess._service_subprocess is not original


def test_an_unknown_supervisor_is_left_alone(original: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: Any, deadline: float) -> None:
        return None

    monkeypatch.setattr(WatchedSubprocess, "_service_subprocess", other)

    assert not warm_executor.shorten_slot_hold()
    assert WatchedSubprocess._service_subprocess is other


def test_an_unknown_airflow_version_is_left_alone(original: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_executor, "airflow_version", "3.4.0")

    assert not warm_executor.shorten_slot_hold()
    assert WatchedSubprocess._service_subprocess is original


def test_the_end_of_an_earlier_process_is_not_taken_for_that_of_a_task_in_hand_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor = warm_executor.WarmLocalExecutor(parallelism=2)
    monkeypatch.setattr(LocalExecutor, "_process_workloads", lambda self, workloads: None)
    monkeypatch.setattr(LocalExecutor, "_check_workers", lambda self: None)
    done, failed = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED
    waiting, other = (TaskInstanceKey("dag", task, "run", 1, -1) for task in ("waiting", "other"))

    def hand_over(*keys: TaskInstanceKey) -> None:
        executor._process_workloads([SimpleNamespace(key=key) for key in keys])

    def reported(*ends: tuple[TaskInstanceKey, TaskInstanceState]) -> dict[Any, Any]:
        for key, state in ends:
            executor.change_state(key, state)
        return {key: state for key, (state, _) in executor.get_event_buffer().items()}

    hand_over(waiting, other)
    hand_over(waiting)  # before the end of its process was seen
    assert reported((waiting, done)) == {}
    assert reported((other, failed), (waiting, failed)) == {other: failed, waiting: failed}
    hand_over(waiting)
    assert reported((waiting, done)) == {waiting: done}, "seen before it is in hand again, as ever"

    hand_over(waiting)
    executor.workers = {1: SimpleNamespace(is_alive=lambda: False)}  # type: ignore[dict-item]
    executor._check_workers()
    hand_over(waiting)
    assert reported((waiting, done)) == {waiting: done}, "nobody tells what a worker that was killed had in hand"
