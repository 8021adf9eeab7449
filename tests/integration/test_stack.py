"""The embedded stack, as real processes: private, watched, and gone when its parent is gone.

Other tests share it, and these are the last of them: the end of it is what they are about.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from openlineage.client.event_v2 import RunState

from fake_slack import FakeSlack
from stack_fixture import Stack, start_shared_stack
from telemetry_receiver import Received, telemetry_receiver
from windsock.mlflow_keys import Caller, Kind, sign
from windsock_local.stack.guardian import database_processes
from windsock_local.stack.home import MLFLOW_SECRET, SECRETS, Home, read_stack
from windsock_local.stack.processes import family

pytestmark = pytest.mark.integration

GONE_SECONDS = 12.0


def everything_of(stack: Stack) -> list[psutil.Process]:
    info = read_stack(stack.settings)
    assert info is not None
    home = Home.of(stack.settings)
    watchers = [info.process(name) for name in ("supervisor", "guardian")]
    return [*filter(None, watchers), *family(home.root), *database_processes(home)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # gone between the two questions
        return False


def ask(question: Callable[[], list[Any]]) -> list[Any]:
    """Ask a process something, which it answers with nothing if it has ended: tasks come and go."""
    try:
        return question()
    except psutil.NoSuchProcess:
        return []


def assert_all_gone(processes: list[psutil.Process], home: Path) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline:
        left = [p for p in processes if is_alive(p)]
        left += [*family(home), *database_processes(Home(home))]
        if not left:
            return
        time.sleep(0.2)
    pytest.fail(f"still running: {[(p.pid, ' '.join(ask(p.cmdline))[:100]) for p in left]}")


def windsock(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "windsock.cli", *arguments]
    return subprocess.run(command, env=stack.env, capture_output=True, text=True, timeout=120, check=False)


def test_status_says_that_every_part_is_well(stack: Stack) -> None:
    done = windsock(stack, "status", "--json")

    state = json.loads(done.stdout)
    assert done.returncode == 0, state
    assert {part["name"] for part in state["parts"]} == {
        *("supervisor", "guardian", "postgres", "mlflow", "api-server", "scheduler", "dag-processor", "triggerer"),
    }
    assert {part["health"] for part in state["parts"]} == {"healthy"}


def test_a_second_up_finds_the_running_stack(stack: Stack) -> None:
    done = windsock(stack, "up")

    assert done.returncode == 0
    assert "runs already" in done.stdout
    assert stack.airflow_url in done.stdout


def test_nothing_listens_outside_loopback(stack: Stack) -> None:
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in everything_of(stack)
        for connection in ask(process.net_connections)
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    }

    assert {ip for ip, _port in listening if ip != "127.0.0.1"} == set()
    assert {port for _ip, port in listening} >= {int(stack.airflow_url[-5:].strip(":/"))}


def test_a_task_starts_with_the_libraries_in_memory_and_finds_the_services(stack: Stack) -> None:
    stack.api.wait_for_dag("sleeper")
    run_id = stack.api.trigger("sleeper")
    run = stack.api.wait_for_run("sleeper", run_id, 60)

    assert run["state"] == "success"
    assert len(stack.api.xcom("sleeper", run_id, "sleep")) == 7


def test_mlflow_lets_nobody_in_without_a_key_and_answers_to_its_own_names(stack: Stack) -> None:
    address, secret = (
        f"{stack.mlflow_url}/api/2.0/mlflow/experiments/search",
        Home.of(stack.settings).secret(MLFLOW_SECRET),
    )
    key = {"Authorization": f"Bearer {sign(secret, Kind.KEY, Caller('test', 'viewer'), 60)}"}

    def ask(**headers: str) -> int:
        return httpx.post(address, json={"max_results": 1}, headers=headers, trust_env=False).status_code

    assert ask() == 401
    assert ask(**key) == 200
    assert ask(**key, Host="evil.example") == 403
    assert httpx.get(f"{stack.mlflow_url}/health", trust_env=False).status_code == 200


def test_who_is_logged_in_to_airflow_comes_in_to_mlflow_as_what_airflow_says(stack: Stack) -> None:
    with httpx.Client(trust_env=False) as browser:
        assert browser.get(f"{stack.airflow_url}/windsock/mlflow").status_code == 401
        login = {"Authorization": stack.api._client.headers["Authorization"]}
        page = browser.get(f"{stack.airflow_url}/windsock/mlflow?to=/models/fraud", headers=login)
        target = re.search('action="([^"]+)"', page.text)
        form = dict(re.findall('name="([^"]+)" value="([^"]*)"', page.text))
        assert target is not None
        assert target[1] == f"{stack.mlflow_url}/windsock/ticket"

        came_in = browser.post(target[1], data=form, headers={"Origin": stack.airflow_url})

        assert (came_in.status_code, came_in.headers["location"]) == (303, "/#/models/fraud")
        assert "text/html" in browser.get(f"{stack.mlflow_url}/").headers["content-type"]
        # An admin of Airflow is an op of MLflow: refused for the missing name, not at the door.
        made = f"{stack.mlflow_url}/ajax-api/2.0/mlflow/registered-models/create"
        assert browser.post(made, json={}, headers={"Origin": stack.mlflow_url}).status_code == 400
        assert browser.post(target[1], data=form, headers={"Origin": stack.airflow_url}).status_code == 401


def test_mlflow_and_postgres_hold_no_key_of_airflows(stack: Stack) -> None:
    info, home = read_stack(stack.settings), Home.of(stack.settings)
    assert info is not None
    for name in ("mlflow", "postgres"):
        env = info.process(name).environ()  # type: ignore[union-attr]
        assert env["WINDSOCK_STACK_HOME"] == str(home.root)
        assert not [variable for variable in env if variable.startswith(("AIRFLOW", "AWS_", "WINDSOCK_SLACK"))]
        assert not {home.secret(secret) for secret in SECRETS} & set(env.values())


def test_another_user_of_this_machine_can_read_nothing_below_home(stack: Stack) -> None:
    names = "\n".join(map(str, [stack.home, *stack.home.rglob("*")]))
    if os.geteuid() == 0:
        command = ["/bin/sh", "-c", 'while read -r path; do [ -r "$path" ] && echo "$path"; done; true']
        stranger = {"user": "nobody", "group": "nogroup", "extra_groups": [], "cwd": "/"}
        done = subprocess.run(command, input=names, capture_output=True, text=True, check=True, **stranger)
        assert done.stdout == ""
    assert stack.home.stat().st_mode & 0o067 == 0
    logs = Home.of(stack.settings).airflow / "logs"
    assert not [path for path in logs.rglob("*") if path.stat().st_mode & 0o007]


def test_a_part_that_is_killed_is_started_again(stack: Stack) -> None:
    info = read_stack(stack.settings)
    assert info is not None
    before = info.parts["triggerer"]
    os.kill(before.pid, signal.SIGKILL)

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        info = read_stack(stack.settings)
        assert info is not None
        now = info.parts.get("triggerer")
        if now is not None and now.pid != before.pid and now.ready:
            return
        time.sleep(0.5)
    pytest.fail("the triggerer did not come back")


def test_no_secret_is_in_a_log_or_on_a_command_line(stack: Stack) -> None:
    home = Home.of(stack.settings)
    token = stack.api._client.headers["Authorization"].removeprefix("Bearer ")
    generated = [home.secret(name) for name in SECRETS]
    secrets = [*generated, token, token.split(".")[0]]
    files = [p for folder in (home.logs, home.airflow / "logs") for p in folder.rglob("*") if p.is_file()]
    files += [home.state_file, home.root / "up.log"]
    leaks = [(p, s[:3]) for p in files for s in secrets if s in p.read_text(encoding="utf-8", errors="replace")]
    shown = [p.pid for p in everything_of(stack) for s in secrets if s in " ".join(ask(p.cmdline))]

    assert len(files) > 8
    assert leaks == []
    assert shown == []
    assert home.open_secrets() == []


def test_after_a_kill_of_the_parent_nothing_stays_and_a_new_up_finishes_its_work(
    stack: Stack, slack: FakeSlack
) -> None:
    run_id = stack.api.trigger("sleeper", conf={"seconds": 600})
    deadline = time.monotonic() + 30
    while not any(t["state"] == "running" for t in stack.api.task_instances("sleeper", run_id)):
        assert time.monotonic() < deadline, "the task did not start"
        time.sleep(0.2)
    info = read_stack(stack.settings)
    assert info is not None
    processes = everything_of(stack)
    assert len(processes) > 12

    os.kill(info.parts["supervisor"].pid, signal.SIGKILL)

    assert_all_gone(processes, stack.home)

    # Without the bell, so that its scheduler has to look by itself.
    (stack.home / "plugins").mkdir()
    plugins = str(stack.home / "plugins")
    with telemetry_receiver() as received:
        again = start_shared_stack(stack.home, slack, WINDSOCK_PLUGINS_FOLDER=plugins, **received.env)
        processes = everything_of(again)
        run = again.api.wait_for_run("sleeper", run_id, 120)
        assert run["state"] == "success"
        another = again.api.wait_for_run("sleeper", again.api.trigger("sleeper"), 120)
        assert another["state"] == "success"

        os.kill(read_stack(again.settings).parts["supervisor"].pid, signal.SIGTERM)  # type: ignore[union-attr]
        assert_all_gone(processes, again.home)
        assert read_stack(again.settings) is None

    airflow_tells_opentelemetry_of_a_run(received, another["dag_run_id"])
    airflow_tells_openlineage_what_a_task_made_of_what(received, again.settings.store)


def airflow_tells_opentelemetry_of_a_run(received: Received, run_id: str) -> None:
    """Look at what the stack of the last test exported by Airflow's own settings."""
    assert received.faults == []
    assert {span["service"] for span in received.spans} == {"windsock"}
    of_run = [span for span in received.spans if run_id in span.values()]
    assert {"dag_run.sleeper", "worker.sleep"} <= {span["name"] for span in of_run}, of_run
    assert {"airflow.ti.finish", "airflow.scheduler_heartbeat"} <= received.metrics


def airflow_tells_openlineage_what_a_task_made_of_what(received: Received, store: str) -> None:
    done = {event.job.name: event for event in received.lineage if event.eventType == RunState.COMPLETE}
    assert set(done) == {"sleeper", "sleeper.sleep"}
    of_task = done["sleeper.sleep"]
    assert [(of.namespace, of.name) for of in of_task.inputs or ()] == [(f"file://{store}", "sleeper/day")]
    assert [(of.namespace, of.name) for of in of_task.outputs or ()] == [(f"file://{store}", "sleeper/dream")]


def test_down_and_wipe_leave_nothing_of_a_stopped_stack(stack: Stack) -> None:
    (stack.home / "notes.txt").write_text("mine", encoding="utf-8")
    (stack.home / "up.log").unlink()
    for made_by_tests in ("dags", "models", "plugins", "post"):
        shutil.rmtree(stack.home / made_by_tests, ignore_errors=True)

    done = windsock(stack, "down", "--wipe")

    assert done.returncode == 0, done.stderr
    assert "notes.txt" in done.stdout
    assert [p.name for p in stack.home.iterdir()] == ["notes.txt"]
