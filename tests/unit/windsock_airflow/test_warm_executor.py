"""The warm executor imports what it can and touches a private method only if it knows it."""

import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.supervisor import WatchedSubprocess

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
