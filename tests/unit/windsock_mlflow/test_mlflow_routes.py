"""Every route of the installed MLflow, walked; and MLflow itself behind the door, with its own client before it.

MLflow's server changes the process that imports it and takes seconds to load: one child is enough for all of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from bench.stack import free_ports
from starlette.testclient import TestClient
from test_door import AIRFLOW, ORIGIN, SECRET, Recorder, bearer, key
from test_door import door as door
from test_door import recorder as recorder

from run_folders import make_run, with_mlflow
from small_model import small_fraud
from windsock.errors import SpecError
from windsock.mlflow_keys import VARIABLE, Kind
from windsock.registry.client import mlflow_client
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step
from windsock_local.stack.probes import answers
from windsock_mlflow import routes
from windsock_mlflow.server import make_app

SERVE = """
import json, os, re, sys, uvicorn
from windsock_mlflow.server import make_app
app = make_app(os.environ)
from mlflow.protos import model_registry_pb2, service_pb2
from mlflow.server import app as flask
from mlflow.server.fastapi_app import app as fast
found = [(m, r.path) for r in fast.routes for m in getattr(r, "methods", None) or ()]
found += [(m, r.rule) for r in flask.url_map.iter_rules() for m in r.methods - {"HEAD", "OPTIONS"}]
others = [type(r).__name__ for r in fast.routes if not hasattr(r, "methods")]
fields = [f"{name}.{field.name}" for module in (service_pb2, model_registry_pb2)
          for name, message in module.DESCRIPTOR.message_types_by_name.items()
          for field in message.fields if re.search("location|uri|source|root", field.name)]
print(json.dumps({"routes": sorted(set(found)), "others": others, "fields": fields}), flush=True)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="info")
"""

REFUSED = re.compile(
    r"""/(ajax-)?api/[23]\.0/(
        jobs/.* | mlflow/(
            assistant/.* | gateway.* | webhooks.* | jobs/.* | mcp-servers.* | scorers?/.* | prompt-optimization/.* |
            review-queues/.* | label-schemas/.* | datasets/.* | issues.* | workspaces.* | demo/.* | genai/.* |
            traces.* | get-trace-artifact | unified-traces | get-online-trace-details | ui-telemetry |
            runs/create-promptlab-run | upload-artifact | artifacts/presigned-.*
        ) | mlflow-artifacts/(mpu|presigned)/.*
    ) | /gateway/.* | /v1/traces | /build/.* | /(ajax-)?api/2\.0mlflow/.* """,
    re.VERBOSE,
)
"""Decided against: they run programs, call other servers, go round the artifact proxy, or are for language models."""

PLACES = {
    *("CreateExperiment.artifact_location", "CreateModelVersion.source", "TraceArchivalConfig.location"),
    *("Dataset.source", "CreateLoggedModel.source_run_id"),
}
"""Fields of requests that are served by which a caller could say where files are, or seems to."""
ANSWERS_OR_REFUSED = re.compile(
    r"(RunInfo|Experiment|LoggedModelInfo|ModelVersion|FileInfo|Workspace)\..*|(Create|Update)Workspace\..*|.*Gateway.*"
    r"|TraceInfoV3\..*|SearchTracesV3\..*|CreateDataset\..*|GetOnlineTrace.*|CreatePromptOpt.*|.*source_type|.*Assess.*"
)


@dataclass(frozen=True)
class Served:
    """MLflow behind the door, in a child."""

    settings: Settings
    spec: ModelSpec
    url: str
    log: Path
    known: dict[str, Any]

    def ask(self, method: str, path: str, role: Any, model: str = "", **content: Any) -> httpx.Response:
        return httpx.request(method, f"{self.url}{path}", headers=bearer(role, model), trust_env=False, **content)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home, (port,) = tmp_path_factory.mktemp("served"), free_ports(1)
    settings, spec = small_fraud(home)
    settings = with_mlflow(settings)
    url, log = f"http://127.0.0.1:{port}", home / "mlflow.log"
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "WINDSOCK_"))},
        "MLFLOW_BACKEND_STORE_URI": settings.mlflow_uri,
        "MLFLOW_ARTIFACTS_DESTINATION": (home / "artifacts").as_uri(),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port}",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WINDSOCK_MLFLOW_SECRET": SECRET,
        "WINDSOCK_UI_URL": AIRFLOW,
    }
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port)], env=env, stdout=subprocess.PIPE, stderr=output, text=True
        )
        try:
            assert child.stdout is not None
            known = json.loads(next((line for line in child.stdout if line.startswith("{")), "null"))
            assert known, log.read_text()
            _until_it_answers(url)
            yield Served(replace(settings, mlflow_uri=url, mlflow_secret=SECRET), spec, url, log, known)
        finally:
            child.kill()
            child.wait(30)


def _until_it_answers(url: str) -> None:
    while not answers(f"{url}/health"):
        time.sleep(0.05)


def example(path: str) -> str:
    """Return a path that a route's pattern fits: both frameworks' ways to write one."""
    return re.sub(r"<(\w+:)?\w+>|\{\w+(:path)?\}", "x1", path)


def test_somebody_has_decided_about_every_route(served: Served):
    found = [(method, example(path)) for method, path in served.known["routes"]]
    unknown = {(m, p) for m, p in found if routes.find(m, p) is None and not REFUSED.fullmatch(p)}

    assert len(found) > 400
    assert served.known["others"] == ["Mount"], "a mounted application has routes of its own"
    assert unknown == {("GET", "/health"), ("GET", "/graphql")}, "served to everybody; its POST is served"


def test_the_table_names_no_route_that_mlflow_does_not_have(served: Served):
    there = [(method, example(path)) for method, path in served.known["routes"]]
    for _, _, methods, pattern in routes._routes():
        # Some are there by one of the two prefixes only.
        both = re.compile(pattern.pattern.replace("/ajax\\-api/", "/api/").replace("/api/", "/(?:ajax-)?api/"))
        for method in methods:
            assert any(m == method and both.fullmatch(path) for m, path in there), (method, pattern.pattern)


def test_no_route_lets_in_a_stranger_or_lets_a_viewer_write(served: Served, door: TestClient, recorder: Recorder):
    async def walk() -> list[tuple[str, str, str, int, int]]:
        wrong = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door.app), base_url=ORIGIN) as client:
            for method, path in ((method, example(path)) for method, path in served.known["routes"]):
                route, health = routes.find(method, path), (method, path) == ("GET", "/health")
                reads = route is not None and route.access == "read"
                for role, let_in in {"": False, "viewer": reads, "op": route is not None}.items():
                    wanted = 200 if let_in or health else 401 if not role else 403 if route else 404
                    answer = await client.request(method, path, headers=bearer(role) if role else {})
                    if answer.status_code != wanted:
                        wrong.append((role, method, path, wanted, answer.status_code))
        return wrong

    assert asyncio.run(walk()) == []
    seen = " ".join(path for _, path, _, _ in recorder.seen)
    assert not [word for word in ("assistant", "webhook", "gateway", "jobs", "mcp", "scorer", "mpu") if word in seen]


def test_every_field_by_which_a_place_could_be_named_is_known(served: Served):
    assert {name for name in served.known["fields"] if not ANSWERS_OR_REFUSED.fullmatch(name)} == PLACES


def test_a_step_registers_its_model_and_cannot_touch_another(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    make_run(served.settings, served.spec, "r1")
    assert run_step("register", model="fraud", settings=served.settings, options={"run": "r1"})["version"] == "1"
    assert os.environ[VARIABLE], "the step was given a key"
    client = mlflow_client(served.settings)
    run_id = client.get_model_version("fraud", "1").run_id
    files = {file.path for file in client.list_artifacts(run_id)}
    assert {"lineage.json", "windsock_model"} <= files

    monkeypatch.setenv(VARIABLE, key("task", "churn"))
    other = mlflow_client(served.settings)
    for asked in (lambda: other.get_run(run_id), lambda: other.set_registered_model_alias("fraud", "champion", "1")):
        with pytest.raises(Exception, match="PERMISSION_DENIED"):
            asked()

    shown = served.ask("GET", f"/get-artifact?run_id={run_id}&path=lineage.json", "viewer")
    listed = served.ask("GET", f"/ajax-api/2.0/mlflow/artifacts/list?run_id={run_id}", "viewer").json()
    assert shown.status_code == 200
    assert shown.json()["commit"] == "abc"
    assert {file["path"] for file in listed["files"]} >= files


def test_a_place_that_stands_in_the_database_already_is_not_opened(served: Served, tmp_path: Path):
    (tmp_path / "secret.txt").write_text("secret")
    database = served.settings.home / "mlflow.db"
    with sqlite3.connect(database) as connection:
        columns = "name, artifact_location, lifecycle_stage, creation_time, last_update_time, workspace"
        connection.execute(
            f"insert into experiments ({columns}) values ('old', ?, 'active', 0, 0, 'default')", (tmp_path.as_uri(),)
        )
    experiment = served.ask("GET", "/api/2.0/mlflow/experiments/get-by-name?experiment_name=old", "op").json()
    body = {"experiment_id": experiment["experiment"]["experiment_id"]}
    run = served.ask("POST", "/api/2.0/mlflow/runs/create", "op", json=body).json()["run"]["info"]
    planted = tmp_path / run["run_id"] / "artifacts"
    planted.mkdir(parents=True)
    (planted / "x.txt").write_text("secret")
    graph = {"query": f'{{ mlflowListArtifacts(input: {{runId: "{run["run_id"]}"}}) {{ files {{ path }} }} }}'}

    for answer in (
        served.ask("GET", f"/get-artifact?run_id={run['run_id']}&path=x.txt", "op"),
        served.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run['run_id']}", "op"),
        served.ask("POST", "/graphql", "op", json=graph),
    ):
        assert "secret" not in answer.text
        assert "x.txt" not in answer.text
        assert "artifact proxy" in answer.text or answer.status_code >= 400


def test_the_assistant_is_not_there_even_for_an_op(served: Served):
    path = "/ajax-api/3.0/mlflow/assistant/config"
    for answer in (served.ask("GET", path, "op"), served.ask("PUT", path, "op", json={"providers": {}})):
        assert answer.status_code == 404
        assert "is not served here" in answer.json()["message"]


def test_the_log_names_people_and_no_key(served: Served):
    ticket = key("viewer", kind=Kind.TICKET)
    headers = {"Origin": AIRFLOW}
    answer = httpx.post(f"{served.url}/windsock/ticket", data={"ticket": ticket}, headers=headers, trust_env=False)
    assert answer.status_code == 303
    log = served.log.read_text()
    assert ticket.rpartition(".")[2] not in log
    assert os.environ.get(VARIABLE, "x.y.z-none").rpartition(".")[2] not in log
    assert SECRET not in log


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"WINDSOCK_MLFLOW_SECRET": ""}, "needs a secret"),
        ({"WINDSOCK_MLFLOW_SECRET": "short"}, "needs a secret"),
        ({"MLFLOW_SERVER_ALLOWED_HOSTS": "*.example.com"}, "exact names"),
        ({"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*"}, "exact names"),
        ({"MLFLOW_SERVER_ALLOWED_HOSTS": ""}, "needs MLFLOW_SERVER_ALLOWED_HOSTS"),
    ],
)
def test_a_door_that_could_not_close_does_not_open(change: dict[str, str], why: str):
    environ = {
        "WINDSOCK_MLFLOW_SECRET": SECRET,
        "MLFLOW_SERVER_ALLOWED_HOSTS": "a:1",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "http://a:1",
    }
    with pytest.raises(SpecError, match=why):
        make_app(environ | change)
