"""An embedded stack of the benches' own, and what a task on it cannot do without."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.figures import Limit, say
from windsock.settings import REPO_ROOT, Settings
from windsock_local.stack import lifecycle, probes
from windsock_local.stack.airflow_api import AirflowApi
from windsock_local.stack.processes import spawn

DAGS_FOLDER = Path(__file__).parent / "airflow_dags"
_FOREIGN = ("AIRFLOW", "WINDSOCK_", "MLFLOW_")


@dataclass(frozen=True)
class BenchStack:
    """A running stack and its limit."""

    api: AirflowApi
    settings: Settings
    boot_s: float
    """Until every part has answered."""
    login_s: float
    """Until the login page is there."""
    limit: Limit
    supervisor: int
    """Process id of the parent of all its parts."""

    def processes(self) -> list[psutil.Process]:
        """Return the supervisor and all that descends from it."""
        root = psutil.Process(self.supervisor)
        return [root, *root.children(recursive=True)]

    def cpu_s(self) -> float:
        """Return the CPU seconds that all parts, tasks and database sessions have used so far."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total


def free_ports(number: int) -> list[int]:
    """Return ports of the loopback interface that the system hands out, so that stacks side by side do not meet."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind((probes.HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def bench_stack(folder: Path, tasks: int, **variables: str) -> Iterator[BenchStack]:
    """Run a stack on the benches' DAGs, or those that ``variables`` name, for the block; it dies with this process."""
    home = folder / "stack"
    home.mkdir(parents=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    env |= {
        "WINDSOCK_HOME": str(home),
        "WINDSOCK_DAGS_FOLDER": str(DAGS_FOLDER),
        "WINDSOCK_BENCH_TASKS": str(tasks),
        **variables,
    }
    settings = Settings.from_env(env)
    port, mlflow_port = free_ports(2)
    say("starting a stack ...")
    began = time.monotonic()
    process = spawn(
        [sys.executable, "-m", "windsock.cli", "up", "--port", str(port), "--mlflow-port", str(mlflow_port)],
        env=env,
        log_file=home / "up.log",
        cwd=home,
    )
    try:
        while not probes.answers(f"http://{probes.HOST}:{port}/") and process.poll() is None:
            time.sleep(0.1)
        login_s = time.monotonic() - began
        info = lifecycle.wait_until_ready(settings, process)
        boot_s = time.monotonic() - began
        say(f"the stack is up after {boot_s:.0f} s, its login page after {login_s:.0f} s")
        with AirflowApi.of_stack(settings) as api:
            yield BenchStack(api, settings, boot_s, login_s, _limit(info.database_socket, env), process.pid)
    finally:
        lifecycle.stop_stack(settings)


def _limit(socket_folder: str, env: dict[str, str]) -> Limit:
    """Measure what a task cannot do without: a process from the warm one, and one commit."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.task_limit", socket_folder],
        env={**env, "AIRFLOW_HOME": str(Path(env["WINDSOCK_HOME"]) / "limit")},
        cwd=REPO_ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    what = "fork and exit of a process with the warm executor's imports, and one PostgreSQL commit"
    return Limit(f"{what} ({found['fork_ms']:.1f} + {found['commit_ms']:.2f} ms)", found["seconds"])
