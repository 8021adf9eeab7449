"""One embedded stack for many tests: the fixture ``stack``.

It is a child of pytest and dies with it, whatever happens to pytest.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bench.stack import free_ports

from fake_slack import FakeSlack
from windsock.files import locked
from windsock.settings import REPO_ROOT, Settings
from windsock_local.stack import lifecycle
from windsock_local.stack.airflow_api import AirflowApi, run_path
from windsock_local.stack.environment import service_env
from windsock_local.stack.processes import spawn


class StackApi(AirflowApi):
    """What the product itself never asks Airflow: what tasks logged and passed on."""

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """Return the log of one try of a task as text."""
        body = self.call(
            "GET",
            f"{run_path(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}",
            map_index=-1,
            full_content=True,
        )
        content = body["content"]
        if isinstance(content, str):
            return content
        return "\n".join(str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in content)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return a value that a task passed on."""
        path = f"{run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", path, map_index=-1, deserialize=True)["value"]


@dataclass(frozen=True)
class Stack:
    """A running stack and how to speak to it."""

    home: Path
    settings: Settings
    """With the addresses of this stack's services."""
    env: dict[str, str]
    """A whole environment for child processes that use this stack."""
    airflow_url: str
    mlflow_url: str
    api: StackApi

    @property
    def models(self) -> Path:
        """Folder for model folders that a test puts beside the installation's own, at any time."""
        return self.home / "models"

    @property
    def post(self) -> Path:
        """Folder for what the sources of such models deliver, a folder for each model."""
        return self.home / "post"


def start_stack(home: Path, **variables: str) -> Stack:
    """Start a stack in ``home`` on free ports; ``variables`` are added to its environment.

    End it with ``lifecycle.stop_stack(stack.settings)``.
    """
    foreign = ("AIRFLOW", "WINDSOCK_", "MLFLOW_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env |= {"OMP_WAIT_POLICY": "passive", "WINDSOCK_HOME": str(home), **variables}
    settings = Settings.from_env(env)
    airflow_port, mlflow_port = free_ports(2)
    home.mkdir(parents=True, exist_ok=True)
    with one_boot():
        process = spawn(
            [
                sys.executable,
                "-m",
                "windsock.cli",
                "up",
                "--port",
                str(airflow_port),
                "--mlflow-port",
                str(mlflow_port),
            ],
            env=env,
            log_file=home / "up.log",
            cwd=home,
        )
        lifecycle.wait_until_ready(settings, process)
    return found_stack(settings, env)


def one_boot() -> AbstractContextManager[bool]:
    """Let one stack boot at a time: several at once on two cores would each take longer than a stack may."""
    return locked(Path(tempfile.gettempdir(), "windsock-tests-boot.lock"))


def found_stack(settings: Settings, env: dict[str, str]) -> Stack:
    """Return the stack that runs under some settings; ``env`` is the environment that it was started in."""
    info = lifecycle.wait_until_ready(settings)
    own = service_env(settings, airflow_url=info.airflow_url, mlflow_url=info.mlflow_url)
    return Stack(
        home=settings.home,
        settings=Settings.from_env({**env, **own}),
        env={**env, **own},
        airflow_url=info.airflow_url,
        mlflow_url=info.mlflow_url,
        api=StackApi.of_stack(settings),
    )


_shared: list[Stack] = []
"""The stack of the tests that run now, if they have asked for one."""
_end = ExitStack()
"""Ends it."""


SLEEPER = """
import time
import pendulum
from airflow.sdk import Asset, dag, task

@dag(dag_id="sleeper", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False,
     is_paused_upon_creation=False, params={"seconds": 0})
def sleeper():
    day, dream = (Asset(name, uri=f"x-windsock://sleeper/{name}") for name in ("day", "dream"))

    @task(retries=3, retry_delay=1, inlets=[day], outlets=[dream])
    def sleep(params, ti):
        import sys
        if ti.try_number == 1:
            time.sleep(params["seconds"])
        heavy = ("feast", "mlflow", "great_expectations", "evidently", "lightgbm", "pandas", "duckdb")
        return [name for name in heavy if name in sys.modules]
    sleep()

sleeper()

@dag(dag_id="waiter", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False,
     is_paused_upon_creation=False, max_active_runs=500, max_active_tasks=8)
def waiter():
    @task.sensor(mode="reschedule", poke_interval=3600)
    def wait():
        return False
    wait()

waiter()
"""
"""A DAG for a task that takes as long as it is told, and says what it has found imported; and one that only waits."""


@pytest.fixture(scope="session")
def slack() -> Iterator[FakeSlack]:
    """Where the stacks send their alerts."""
    with FakeSlack() as server:
        yield server


@pytest.fixture(scope="module")
def stack(slack: FakeSlack) -> Stack:
    """The stack that many tests share: this repository's DAGs and models, and those that tests put into its models."""
    if not _shared:
        # A short path: a socket's name may have 107 bytes.
        home = Path(tempfile.mkdtemp(prefix="windsock-"))
        shutil.copytree(REPO_ROOT / "dags", home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        (home / "dags" / "sleeper.py").write_text(SLEEPER, encoding="utf-8")
        (home / "models").mkdir()
        if not os.environ.get("WINDSOCK_KEEP_TEST_HOME"):
            _end.callback(shutil.rmtree, home, ignore_errors=True)
        running = start_shared_stack(home, slack)
        _end.callback(lifecycle.stop_stack, running.settings)
        _end.callback(running.api.close)
        # It would start and tell things of every model, at times of its own.
        running.api.wait_for_dag("windsock_watch", 240)
        running.api.set_paused("windsock_watch", True)
        _shared.append(running)
    return _shared[0]


def start_shared_stack(home: Path, slack: FakeSlack, **variables: str) -> Stack:
    """Start the shared stack in a prepared home, or start it again."""
    return start_stack(
        home,
        WINDSOCK_MODELS=os.pathsep.join(map(str, (REPO_ROOT / "include" / "models", home / "models"))),
        WINDSOCK_DAGS_FOLDER=str(home / "dags"),
        # Inherited settings of another Airflow and PostgreSQL that would break this one, were they obeyed:
        AIRFLOW__CORE__EXECUTOR="nowhere.NoExecutor",
        PGPORT="1",
        **slack.env,
        **variables,
    )


def end_shared_stack() -> None:
    """End the stack when none of those that share it is left: it would take what other tests need."""
    _shared.clear()
    _end.pop_all().close()
