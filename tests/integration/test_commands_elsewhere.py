"""Commands work with an Airflow that is known by its address alone, as with compose, a cluster or ``standalone``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.s3_server import Relay

from small_model import small_fraud
from stack_fixture import Stack
from windsock import __version__
from windsock.days import utc_now
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import Promotion, append
from windsock.settings import Settings
from windsock.store import Store
from windsock_local.stack.doctor import within
from windsock_local.stack.home import Home
from windsock_local.stack.mlflow_checks import check_mlflow
from windsock_local.stack.service_checks import check_airflow

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


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """Return the first finding of each check."""
    found = reversed(json.loads(done.stdout))
    return {check["name"]: (check["verdict"], check["finding"]) for check in found}


def test_doctor_asks_every_service_and_changes_nothing(elsewhere: dict[str, str], stack: Stack) -> None:
    before = Store(stack.settings.store).json_names()
    done = windsock(elsewhere, "doctor", "--json")

    found = checks(done)
    assert not {"database", "ports", "secrets", "stack"} & found.keys(), "they are of another machine"
    assert {name: found[name][0] for name in ("store", "airflow", "mlflow", "champions")} == dict.fromkeys(
        ("store", "airflow", "mlflow", "champions"), "ok"
    ), done.stdout
    assert f"Windsock {__version__}" in found["airflow"][1]
    assert "takes and gives artifacts" in found["mlflow"][1]
    assert Store(stack.settings.store).json_names() == before
    assert "windsock up" not in done.stdout


@pytest.fixture(scope="module")
def services(elsewhere: dict[str, str], stack: Stack) -> Iterator[dict[str, Relay]]:
    """Relays before Airflow and MLflow."""
    relays = {"airflow": Relay(stack.airflow_url), "mlflow": Relay(stack.mlflow_url)}
    yield relays
    for relay in relays.values():
        relay.close()


@pytest.mark.parametrize(
    ("service", "trouble", "verdict", "sentence"),
    [
        ("airflow", {"/api/v2/version": b'{"version": "3.1.0"}'}, "warning", "has Airflow 3.1.0, here it is"),
        ("airflow", {"/windsock/version": b'{"version": "0.0.1"}'}, "warning", "has Windsock 0.0.1, here it is"),
        ("airflow", {"/windsock/version": b"<html/>"}, "warning", "no plugin windsock_pages of this version"),
        ("airflow", {"/windsock/version": 404}, "warning", "no plugin windsock_pages of this version"),
        ("airflow", {"/monitor/health": b'{"metadatabase": {}}'}, "problem", "metadatabase of .* is not there"),
        ("airflow", {"/auth/token": 401}, "problem", "refuses the login of 'admin' .HTTP 401"),
        ("airflow", {"/auth/token": 502}, "problem", "does not answer .* HTTP 502"),
        ("airflow", {"": "hang"}, "problem", "does not answer .* timed out|no answer within"),
        ("airflow", {"": "cut"}, "problem", "does not answer"),
        ("mlflow", {"/version": b"2.9.0"}, "warning", "has MLflow 2.9.0, here it is"),
        ("mlflow", {"/version": 404}, "problem", "is no MLflow"),
        ("mlflow", {"/version": 401}, "problem", "lets nobody in to /version with this key .HTTP 401.*_SECRET_FILE"),
        ("mlflow", {"registered-models": 500}, "problem", "answers GET .*registered-models/search with HTTP 500"),
        ("mlflow", {"mlflow-artifacts": 500}, "problem", "answers PUT .*mlflow-artifacts.* with HTTP 500"),
        ("mlflow", {"mlflow-artifacts": 503}, "ok", "leaves artifacts to its clients"),
        ("mlflow", {"": "hang"}, "problem", "gives no answer: timed out"),
        ("mlflow", {"": "cut"}, "problem", "gives no answer"),
    ],
    ids=lambda value: str(next(iter(value.items()))) if isinstance(value, dict) else "",
)  # fmt: skip
def test_doctor_says_what_is_wrong_with_a_service(
    service: str, trouble: dict[str, Any], verdict: str, sentence: str,
    elsewhere: dict[str, str], services: dict[str, Relay],
) -> None:  # fmt: skip
    relay, ((part, wrong),) = services[service], trouble.items()
    relay.dropped = (
        "Host",
        "Accept-Encoding",
    )  # MLflow answers to its own name alone; bodies are altered as plain text
    altered = isinstance(wrong, bytes)
    relay.fault = lambda _method, path: wrong if not altered and part in path else None
    relay.alter = lambda path, body: wrong if altered and part in path else body
    variable = {"airflow": "WINDSOCK_AIRFLOW_URL", "mlflow": "MLFLOW_TRACKING_URI"}[service]
    settings = Settings.from_env({**elsewhere, variable: relay.url})
    look = {"airflow": check_airflow, "mlflow": check_mlflow}[service]
    begun = time.monotonic()
    found = within(10, look, settings)
    assert time.monotonic() - begun < 11
    assert found[0][0] == verdict, found
    assert re.search(sentence, found[0][1]), found
    assert "windsock up" not in str(found)


def test_doctor_finds_a_lost_database_of_airflow_and_of_mlflow(elsewhere: dict[str, str], tmp_path: Path) -> None:
    settings, spec = small_fraud(tmp_path)
    today = utc_now().date()  # of which no clock starts a run today
    own = {"HOME": settings.home, "STORE": settings.store, "MODELS": settings.models[0]}
    of_its_own = {**elsewhere, **{f"WINDSOCK_{name}": str(place) for name, place in own.items()}}
    settings = Settings.from_env(of_its_own)
    Ledger.of(settings, "fraud", "ingest").publish(DayRecord(str(today), "empty"))
    Store.of(settings).write_json({}, "fraud", "started", "ingest", "a-run.json")
    append(settings, spec, Promotion(0, "promote", "999", "r", None, today, today, "test"), after=None)

    found = checks(windsock(of_its_own, "doctor", "--json"))

    assert found["runs"][0] == "warning"
    assert f"fraud_ingest: {today} are settled, but" in found["runs"][1]
    assert found["champions"][0] == "problem"
    assert "fraud: version 999 is in force, but" in found["champions"][1]
