"""What looks after something in Airflow's scheduler runs there, and not in the tasks that are forked from it."""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import pytest
from airflow.sdk.execution_time.task_runner import TaskRunnerMarker

import windsock_airflow

MODULES = [found.name for found in pkgutil.walk_packages(windsock_airflow.__path__, "windsock_airflow.")]


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> list[ModuleType]:
    """Every module that starts a thread where a component of Airflow starts."""
    monkeypatch.setenv("WINDSOCK_COMPUTE", "kubernetes")
    monkeypatch.setenv("AIRFLOW_VAR_WINDSOCK_INSTALLATION", "the-only-airflow")
    modules = map(importlib.import_module, MODULES)
    return [module for module in modules if hasattr(module, "on_starting") and hasattr(module, "start_thread")]


@pytest.mark.parametrize(("part", "is_scheduler"), [("scheduler", True), ("triggerer", False), ("api-server", False)])
def test_threads_of_the_scheduler_start_there_and_in_no_task_that_is_forked_from_it(
    listeners: list[ModuleType], monkeypatch: pytest.MonkeyPatch, part: str, is_scheduler: bool
) -> None:
    assert len(listeners) >= 4
    monkeypatch.setattr("sys.argv", ["airflow", part])
    for module in listeners:
        started: list[Any] = []
        monkeypatch.setattr(module, "start_thread", lambda *thread, started=started: started.append(thread))
        module.on_starting(TaskRunnerMarker())
        assert started == [], f"{module.__name__} in a task"
        module.on_starting(object())
        assert bool(started) == is_scheduler, module.__name__
