"""The door before MLflow, with a recorder in MLflow's place: who gets through, with what, and what MLflow then sees."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.testclient import TestClient

from windsock import mlflow_keys
from windsock.mlflow_keys import Caller, Kind
from windsock_mlflow.door import Door, Doorplate
from windsock_mlflow.named import Owners

SECRET = "s" * 40
HOST, AIRFLOW = "127.0.0.1:5000", "http://127.0.0.1:8080"
ORIGIN = f"http://{HOST}"
API = "/api/2.0/mlflow"


@dataclass
class Recorder:
    """An application that says yes to everything and keeps what it was asked."""

    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message.get("body", b"")
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["method"], scope["path"], headers, body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"mlflow"})


class Database:
    """Experiment 1 is ``fraud``'s, with run ``aa`` and model ``m-a``; 2 is ``churn``'s, with ``bb`` and ``m-b``."""

    experiments = {"1": "fraud", "2": "churn"}  # noqa: RUF012
    things = {"aa": "1", "bb": "2", "m-a": "1", "m-b": "2"}  # noqa: RUF012

    def get_run(self, run_id: str) -> Any:
        return type("Run", (), {"info": self.get_logged_model(run_id)})

    def get_logged_model(self, model_id: str) -> Any:
        return type("Model", (), {"experiment_id": self._found(self.things, model_id)})

    def get_experiment(self, experiment_id: str) -> Any:
        return type("Experiment", (), {"name": self._found(self.experiments, experiment_id)})

    def _found(self, where: dict[str, str], key: str) -> str:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

        if key not in where:
            raise MlflowException(f"no {key}", RESOURCE_DOES_NOT_EXIST)
        return where[key]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def door(recorder: Recorder) -> TestClient:
    plate = Doorplate(SECRET, frozenset({HOST}), frozenset({ORIGIN}), AIRFLOW)
    return TestClient(Door(recorder, plate, Owners(Database())), base_url=ORIGIN, follow_redirects=False)


def key(role: Any, model: str = "", *, kind: Kind = Kind.KEY, seconds: float = 60, secret: str = SECRET) -> str:
    return mlflow_keys.sign(secret, kind, Caller("ada", role, model), seconds)


def bearer(role: Any, model: str = "", **how: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {key(role, model, **how)}"}


def come_in(door: TestClient, role: str = "viewer", to: str = "/") -> Any:
    ticket = key(role, kind=Kind.TICKET)
    return door.post("/windsock/ticket", data={"ticket": ticket, "to": to}, headers={"Origin": AIRFLOW})


# --- strangers


def test_a_stranger_gets_health_and_nothing_else(door: TestClient, recorder: Recorder):
    assert door.get("/health", headers={"Host": "10.0.0.7:5000"}).text == "mlflow"
    refused = [door.get("/"), door.get("/nowhere"), door.post(f"{API}/runs/search", json={}), door.post("/health")]
    assert [answer.status_code for answer in refused] == [401] * 4
    assert len(recorder.seen) == 1


@pytest.mark.parametrize(
    "credentials",
    [
        {"Authorization": f"Bearer {key('op', secret='t' * 40)}"},
        {"Authorization": f"Bearer {key('op', seconds=-60)}"},
        {"Authorization": f"Bearer {key('op', kind=Kind.TICKET)}"},
        {"Authorization": f"Bearer {key('op', kind=Kind.SESSION)}"},
        {"Authorization": f"Basic {key('op')}"},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoib3AifQ."},
        {"Cookie": f"windsock_mlflow_5000={key('op')}"},
        {"Cookie": f"windsock_mlflow_5000={key('op', kind=Kind.TICKET)}"},
        {"Cookie": f"windsock_mlflow_5001={key('op', kind=Kind.SESSION)}"},
    ],
)
def test_a_key_that_is_not_one_is_no_key(door: TestClient, recorder: Recorder, credentials: dict[str, str]):
    assert door.get("/version", headers=credentials).status_code == 401
    assert recorder.seen == []


def test_mlflow_answers_to_its_own_names_alone(door: TestClient, recorder: Recorder):
    for host in ("evil.example", "127.0.0.1", "127.0.0.1:5000.evil.example", "localhost:5000"):
        assert door.get("/version", headers={"Host": host, **bearer("op")}).status_code == 403
    assert recorder.seen == []


# --- people


def test_a_ticket_is_changed_once_for_a_cookie_that_scripts_cannot_read(door: TestClient, recorder: Recorder):
    ticket = {"ticket": key("viewer", kind=Kind.TICKET), "to": "/models/fraud/versions/1"}
    first = door.post("/windsock/ticket", data=ticket, headers={"Origin": AIRFLOW})
    assert (first.status_code, first.headers["location"]) == (303, "/#/models/fraud/versions/1")
    assert all(word in first.headers["set-cookie"].lower() for word in ("httponly", "samesite=lax", "path=/"))

    assert door.get("/").text == "mlflow"
    assert not {"cookie", "authorization"} & recorder.seen[0][2].keys(), "MLflow sees no key"
    again = door.post("/windsock/ticket", data=ticket, headers={"Origin": AIRFLOW})
    assert again.status_code == 401
    assert "has been used" in again.json()["message"]


@pytest.mark.parametrize("to", ["https://evil.example/", "//evil.example", "/x?y", "/\nSet-Cookie: a=b", ""])
def test_a_ticket_leads_to_no_other_server(door: TestClient, to: str):
    assert come_in(door, to=to).headers["location"].partition("#")[0] == "/"


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8081", "http://evil.example", "null", ORIGIN])
def test_a_ticket_comes_from_airflow_or_not_at_all(door: TestClient, origin: str):
    ticket = {"ticket": key("op", kind=Kind.TICKET)}
    assert door.post("/windsock/ticket", data=ticket, headers={"Origin": origin}).status_code == 403


def test_a_ticket_that_is_none_or_too_old_or_too_long_is_refused(door: TestClient):
    for ticket in ("", "x", key("op"), key("op", kind=Kind.TICKET, seconds=-60)):
        answer = door.post("/windsock/ticket", data={"ticket": ticket}, headers={"Origin": AIRFLOW})
        assert answer.status_code == 401
    assert door.post("/windsock/ticket", content=b"ticket=" + b"x" * 9000).status_code == 413


def test_other_peoples_pages_cannot_use_the_cookie(door: TestClient, recorder: Recorder):
    come_in(door, "op")
    search = f"{API}/runs/search"
    assert door.post(search, json={}, headers={"Origin": ORIGIN}).status_code == 200
    for headers in (
        {},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"},
    ):
        assert door.post(search, json={}, headers=headers).status_code == 403
    assert door.get("/version", headers={"Origin": "http://localhost:3000"}).status_code == 403
    assert door.get("/version", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}).status_code == 403
    assert door.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert len(recorder.seen) == 2


def test_a_browser_without_a_cookie_is_shown_the_way(door: TestClient):
    answer = door.get("/", headers={"Sec-Fetch-Mode": "navigate"})
    assert answer.status_code == 401
    assert f'href="{AIRFLOW}/windsock/mlflow"' in answer.text


# --- what anybody asks


LOCATIONS = [
    *("/etc", "file:///etc", "./mlruns", "s3://other/x", "http://169.254.169.254/", "dbfs:/x", ["/etc"], 7),
    *(
        "mlflow-artifacts://h/1",
        "mlflow-artifacts:/../x",
        "mlflow-artifacts:/1/%2e%2e/x",
        "mlflow-artifacts:/a/../../x",
    ),
]


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("spelled", ["artifact_location", "artifactLocation"])
def test_an_experiments_artifacts_lie_below_the_proxy(
    door: TestClient, recorder: Recorder, location: object, spelled: str
):
    for prefix in ("/api", "/ajax-api"):
        path = f"{prefix}/2.0/mlflow/experiments/create"
        assert door.post(path, json={"name": "x", spelled: location}, headers=bearer("op")).status_code == 403
    assert recorder.seen == []


@pytest.mark.parametrize("source", [*LOCATIONS, "models://x/1", "runs:/../x"])
def test_a_version_is_made_of_what_mlflow_keeps(door: TestClient, source: object):
    body = {"name": "fraud", "source": source}
    assert door.post(f"{API}/model-versions/create", json=body, headers=bearer("op")).status_code == 403


@pytest.mark.parametrize("source", ["models:/m-a", "runs:/aa/model", "mlflow-artifacts:/1/aa/artifacts/model", ""])
def test_places_below_the_proxy_are_fine(door: TestClient, source: str):
    body = {"name": "fraud", "source": source}
    assert door.post(f"{API}/model-versions/create", json=body, headers=bearer("op")).status_code == 200
    dataset = {"run_id": "aa", "datasets": [{"dataset": {"source": '{"uri": "s3://x"}', "name": "train"}}]}
    assert door.post(f"{API}/runs/log-inputs", json=dataset, headers=bearer("op")).status_code == 200


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (b'{"name": "a", "name": "b"}', {"name": "b"}),
        ('{"name": "ü"}'.encode("utf-16"), {"name": "ü"}),
    ],
)
def test_mlflow_reads_what_was_checked(door: TestClient, recorder: Recorder, sent: bytes, seen: dict[str, str]):
    door.post(f"{API}/experiments/create", content=sent, headers=bearer("op"))
    assert json.loads(recorder.seen[0][3]) == seen


@pytest.mark.parametrize("body", [b"[]", b'"{}"', b"7", b"{", b"[" * 100_000])
def test_a_body_that_is_no_object_goes_no_further(door: TestClient, recorder: Recorder, body: bytes):
    assert door.post(f"{API}/experiments/create", content=body, headers=bearer("op")).status_code == 400
    assert recorder.seen == []


def test_a_file_goes_through_as_it_comes_and_stays_below_its_root(door: TestClient, recorder: Recorder):
    files = "/api/2.0/mlflow-artifacts/artifacts"
    content = bytes(range(256)) * 1000
    assert door.put(f"{files}/1/aa/artifacts/model.txt", content=content, headers=bearer("op")).status_code == 200
    assert recorder.seen.pop()[3] == content
    for path in ("/etc/passwd", "1/..%2f..%2fx", "1/%252e%252e/x", "1//x", "1/%2e/x", "1/a%5cb", ""):
        assert door.put(f"{files}/{path}", content=b"x", headers=bearer("op")).status_code == 404, path
    assert recorder.seen == []


# --- tasks


OWN: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", f"{API}/experiments/get-by-name?experiment_name=fraud", {}),
    ("POST", f"{API}/experiments/create", {"name": "fraud"}),
    ("POST", f"{API}/runs/search", {"experiment_ids": ["1"]}),
    ("POST", f"{API}/runs/create", {"experiment_id": "1", "run_name": "churn"}),
    ("POST", f"{API}/runs/log-batch", {"run_id": "aa", "metrics": [{"key": "x", "value": 1}]}),
    ("POST", f"{API}/runs/update", {"run_id": "aa", "run_uuid": "aa", "status": "FINISHED"}),
    ("GET", f"{API}/artifacts/list?run_id=aa&path=model", {}),
    ("POST", f"{API}/logged-models", {"experiment_id": "1", "name": "model"}),
    ("PATCH", f"{API}/logged-models/m-a", {"status": "READY"}),
    ("POST", f"{API}/runs/outputs", {"run_id": "aa", "models": [{"model_id": "m-a"}]}),
    ("POST", f"{API}/registered-models/create", {"name": "fraud"}),
    ("POST", f"{API}/registered-models/alias", {"name": "fraud", "alias": "challenger", "version": "1"}),
    ("POST", f"{API}/model-versions/create", {"name": "fraud", "source": "models:/m-a", "run_id": "aa"}),
    ("GET", f"{API}/model-versions/search?filter=name%3D%27fraud%27", {}),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=1/aa/artifacts", {}),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/1/aa/artifacts/x", {}),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/aa/artifacts/x", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), OWN)
def test_a_task_reaches_its_own_model_and_no_other(door: TestClient, method: str, path: str, body: dict[str, Any]):
    def ask(model: str) -> int:
        return door.request(method, path, json=body or None, headers=bearer("task", model)).status_code

    assert ask("fraud") == 200
    assert ask("churn") == (200 if "/search?" in path else 403)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{API}/runs/log-batch", {"runId": "bb"}),
        ("POST", f"{API}/runs/log-batch", {"run_id": "aa", "run_uuid": "bb"}),
        ("POST", f"{API}/runs/log-batch", {"run_id": "aa", "metrics": [{"key": "x", "value": 1, "modelId": "m-b"}]}),
        ("POST", f"{API}/runs/log-batch", {"tags": [{"run_id": "aa"}]}),
        ("POST", f"{API}/runs/log-batch?run_id=aa", {"run_id": "bb"}),
        ("POST", f"{API}/runs/create", {"run_name": "no experiment"}),
        ("POST", f"{API}/runs/create", {"experiment_id": " 2"}),
        ("POST", f"{API}/runs/create", {"experiment_id": None}),
        ("POST", f"{API}/runs/search", {"experiment_ids": ["1", "2"]}),
        ("POST", f"{API}/runs/search", {"experiment_ids": []}),
        ("POST", f"{API}/runs/search", {}),
        ("POST", f"{API}/experiments/create", {"name": "fraud", "artifact_location": "mlflow-artifacts:/2"}),
        ("POST", f"{API}/experiments/delete", {"experiment_id": "1"}),
        ("POST", f"{API}/model-versions/create", {"name": "fraud", "source": "models:/m-b"}),
        ("POST", f"{API}/model-versions/create", {"name": "fraud", "source": "models:/churn/1"}),
        ("POST", f"{API}/model-versions/create", {"name": "fraud", "source": "mlflow-artifacts:/2/bb/artifacts/model"}),
        ("POST", f"{API}/model-versions/create", {"name": "fraud", "source": "models:/m-a", "run_id": "bb"}),
        ("DELETE", f"{API}/model-versions/delete", {"name": "fraud", "version": "1"}),
        ("PATCH", f"{API}/logged-models/m-b", {"model_id": "m-a"}),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts/2/bb/artifacts/x", {}),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/3/new/x", {}),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=1/../2", {}),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=1&path=2", {}),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts", {}),
        ("GET", "/get-artifact?run_id=aa&path=x", {}),
        ("POST", "/graphql", {"query": "{ test }"}),
    ],
)
def test_a_task_is_refused_whatever_is_not_all_its_own(
    door: TestClient, recorder: Recorder, method: str, path: str, body: dict[str, Any]
):
    answer = door.request(method, path, json=body or None, headers=bearer("task", "fraud"))
    assert answer.status_code == 403, answer.text
    assert answer.json()["error_code"] == "PERMISSION_DENIED"
    assert recorder.seen == []


def test_no_refusal_and_no_log_holds_a_key(door: TestClient, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    bad, ticket = key("op", seconds=-60), key("op", kind=Kind.TICKET)
    said = [door.get("/version", headers={"Authorization": f"Bearer {bad}"}).text]
    said += [door.post("/windsock/ticket", data={"ticket": ticket}, headers={"Origin": AIRFLOW}).text for _ in "12"]
    signatures = [text.rpartition(".")[2] for text in (bad, ticket)]
    assert not [s for s in signatures for text in (*said, caplog.text) if s in text]
