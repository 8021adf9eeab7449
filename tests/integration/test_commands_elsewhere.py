"""Commands work with an Airflow that is known by its address alone, as with compose, a cluster or ``standalone``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stack_fixture import Stack
from windsock_local.stack.home import Home

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def elsewhere(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody whose home is another one, and who has the stack's addresses, login and store."""
    named = {
        "WINDSOCK_HOME": str(tmp_path_factory.mktemp("elsewhere")),
        "WINDSOCK_AIRFLOW_URL": stack.airflow_url,
        "WINDSOCK_AIRFLOW_PASSWORD_FILE": str(Home.of(stack.settings).secrets / "admin_password"),
        "WINDSOCK_STORE": stack.settings.store,
    }
    return {**stack.env, **named}


def windsock(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "windsock.cli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_status_says_how_the_parts_are(elsewhere: dict[str, str]) -> None:
    done = windsock(elsewhere, "status", "--json")

    state = json.loads(done.stdout)
    assert done.returncode == 0, state
    assert {part["name"]: part["health"] for part in state["parts"]} == dict.fromkeys(
        ("api-server", "metadatabase", "scheduler", "dag-processor", "triggerer", "mlflow"), "healthy"
    )
    assert state["dags"], "pauses and next runs are asked of the same Airflow"


def test_a_run_is_started_and_waited_for(elsewhere: dict[str, str], stack: Stack) -> None:
    stack.api.wait_for_dag("sleeper")
    done = windsock(elsewhere, "trigger", "sleeper", "--wait", "60")

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "success"), done.stderr


def test_a_refused_login_is_a_sentence_without_the_password(elsewhere: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "password").write_text("not-the-password")
    done = windsock(
        {**elsewhere, "WINDSOCK_AIRFLOW_PASSWORD_FILE": str(tmp_path / "password")}, "trigger", "fraud_train"
    )

    assert done.returncode == 64
    assert f"Airflow at {elsewhere['WINDSOCK_AIRFLOW_URL']} refuses the login of 'admin'" in done.stderr
    assert "not-the-password" not in done.stdout + done.stderr
