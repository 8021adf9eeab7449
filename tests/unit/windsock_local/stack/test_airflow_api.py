"""The REST client against a server that is as awkward as Airflow."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from windsock.cli import main
from windsock.errors import SpecError, UpstreamUnavailable, WindsockError
from windsock.settings import Settings
from windsock_local.stack import airflow_api, airflow_session
from windsock_local.stack.airflow_api import AirflowApi, run_path
from windsock_local.stack.airflow_session import AirflowRefused

RUN = "manual__2026-01-01T00:00:00+00:00"


class FakeAirflow(BaseHTTPRequestHandler):
    calls: ClassVar[list[tuple[str, str, Any]]] = []
    answers: ClassVar[list[tuple[int, Any]]] = []
    logins: ClassVar[int] = 0
    doors: ClassVar[list[tuple[int, Any]]] = []
    """What logins are answered with, in place of a look at the password."""

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        kind = type(self)
        if self.path == "/auth/token":
            kind.logins += 1
            if kind.doors:
                self._answer(*kind.doors.pop(0))
                return
            good = body == {"username": "admin", "password": "right"}
            self._answer(201 if good else 401, {"access_token": f"token-{kind.logins}"})
            return
        kind.calls.append((self.command, self.path, body))
        status, answer = kind.answers.pop(0)
        self._answer(status, answer)

    do_GET = do_POST = do_PATCH = _handle

    def _answer(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_api, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(airflow_session, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(airflow_api, "_SHORTEST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def server() -> Iterator[type[FakeAirflow]]:
    FakeAirflow.calls, FakeAirflow.answers, FakeAirflow.logins, FakeAirflow.doors = [], [], 0, []
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeAirflow) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        FakeAirflow.url = f"http://127.0.0.1:{http.server_address[1]}"  # type: ignore[attr-defined]
        yield FakeAirflow
        http.shutdown()


@pytest.mark.parametrize("waiting", [[], [{"dag_run_id": RUN}]])
def test_a_run_that_waits_for_a_persons_answer_is_found(server: type[FakeAirflow], api: AirflowApi, waiting: list[Any]):
    server.answers = [(200, {"task_instances": waiting})]
    assert api.unanswered_run("fraud_promote") == (RUN if waiting else None)
    ((_, path, _),) = server.calls
    assert path == "/api/v2/dags/fraud_promote/dagRuns/~/taskInstances?state=awaiting_input&limit=1"


@pytest.fixture
def api(server: type[FakeAirflow]) -> Iterator[AirflowApi]:
    with AirflowApi(server.url, "right") as session:  # type: ignore[attr-defined]
        yield session


def test_a_run_id_is_quoted_and_the_run_waited_for(api: AirflowApi, server: type[FakeAirflow]) -> None:
    server.answers[:] = [(200, {"dag_run_id": RUN}), (200, {"state": "running"}), (200, {"state": "success"})]

    run_id = api.trigger("fraud_train", "2026-01-01", conf={"trials": 3})
    run = api.wait_for_run("fraud_train", run_id, 5)

    assert run["state"] == "success"
    assert server.calls[0][2] == {"logical_date": None, "conf": {"trials": 3}, "partition_key": "2026-01-01"}
    assert server.calls[1][1].endswith("/dagRuns/manual__2026-01-01T00%3A00%3A00%2B00%3A00")
    assert server.logins == 1


def test_a_dag_that_is_not_there_is_named_with_the_nearest(api: AirflowApi, server: type[FakeAirflow]) -> None:
    listed = {"dags": [{"dag_id": "fraud_train"}, {"dag_id": "fraud_score"}], "total_entries": 2}
    server.answers[:] = [(404, {"detail": "not found"}), (200, listed)]

    with pytest.raises(SpecError, match=r"No DAG named 'fraud_trian'\. Did you mean 'fraud_train'\? Known in http"):
        api.form_fields("fraud_trian")


def test_a_mistyped_field_of_a_form_starts_no_run(
    api: AirflowApi, server: type[FakeAirflow], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(AirflowApi, "of_stack", lambda _: api)
    server.answers[:] = [
        (200, {"params": {name: {"schema": {"type": ["null", "string"]}} for name in ("as_of", "trials")}})
    ]

    assert main(["trigger", "fraud_train", "--conf", "trails=3"]) == 64
    assert "No field of the form of fraud_train named 'trails'. Did you mean 'trials'?" in capsys.readouterr().err
    assert len(server.calls) == 1


def test_an_expired_token_is_renewed(api: AirflowApi, server: type[FakeAirflow]) -> None:
    server.answers[:] = [(401, {}), (200, {"state": "success"})]

    assert api.call("GET", run_path("d", RUN))["state"] == "success"
    assert server.logins == 2


def test_a_backfill_refused_because_another_just_ended_is_tried_again(
    api: AirflowApi, server: type[FakeAirflow]
) -> None:
    server.answers[:] = [(409, {"detail": "There can be only one running backfill per Dag."}), (200, {"id": 7})]

    assert api.backfill("fraud_ingest", "2026-01-01", "2026-01-30", 4) == 7
    assert server.calls[1][2]["from_date"] == "2026-01-01T00:00:00Z"
    assert server.calls[1][2]["max_active_runs"] == 4


def test_a_refusal_says_what_and_why(api: AirflowApi, server: type[FakeAirflow]) -> None:
    server.answers[:] = [(422, {"detail": "partition_key is not a day"})]

    with pytest.raises(AirflowRefused, match="POST dags/d/dagRuns: HTTP 422: partition_key is not a day") as refused:
        api.trigger("d")
    assert refused.value.status == 422
    assert len(server.calls) == 1, "a refused POST must not be sent twice"


def test_a_busy_server_is_asked_again_and_an_absent_one_named(api: AirflowApi, server: type[FakeAirflow]) -> None:
    server.answers[:] = [(503, {}), (500, {}), (200, {"state": "queued"})]
    assert api.call("GET", run_path("d", RUN))["state"] == "queued"

    with (
        AirflowApi("http://127.0.0.1:9", "right") as nobody,
        pytest.raises(UpstreamUnavailable, match="windsock status"),
    ):
        nobody.call("GET", "version")


def test_a_wrong_password_is_said_without_showing_it(server: type[FakeAirflow]) -> None:
    with (
        AirflowApi(server.url, "wrong-one") as session,  # type: ignore[attr-defined]
        pytest.raises(AirflowRefused, match="refuses the login of 'admin'") as refused,
    ):
        session.call("GET", "dags")
    assert "wrong-one" not in str(refused.value)


MUTE = "a server that takes calls and answers none"
IN = (201, {"access_token": "t"})
PAGE = b"<html>Welcome</html>"


def trigger(settings: Settings) -> None:
    with AirflowApi.of(settings, call_seconds=0.5, attempts=2) as session:
        session.trigger("fraud_train")


@pytest.mark.parametrize(
    ("env", "doors", "answers", "code", "said"),
    [
        pytest.param({"URL": "http://127.0.0.1:9"}, [], [], 75, "{url}.* refused", id="away"),
        pytest.param({"URL": MUTE}, [], [], 75, "{url}.*timed out", id="mute"),
        pytest.param({}, [(502, {})] * 2, [], 75, "{url} .*HTTP 502", id="behind-a-proxy-that-finds-it-away"),
        pytest.param({}, [IN], [(500, {})], 75, "{url} .*HTTP 500", id="broken"),
        pytest.param({}, [(401, {})], [], 64, "{url} refuses the login of 'bob'.*_AIRFLOW_PASSWORD", id="login"),
        pytest.param({"PASSWORD": ""}, [(403, {})], [], 64, "{url} wants a login.*_AIRFLOW_USER", id="no-login"),
        pytest.param({"TOKEN": "old"}, [], [(401, {})], 64, "{url} refuses the token.*_AIRFLOW_TOKEN", id="token"),
        pytest.param({}, [(404, {})], [], 64, "{url} is no Airflow 3: .*HTTP 404.*_AIRFLOW_URL", id="airflow-2"),
        pytest.param({}, [(201, PAGE)], [], 64, "{url} is no Airflow 3: .*_AIRFLOW_URL", id="a-page-as-login"),
        pytest.param({}, [IN], [(200, PAGE)], 64, "{url} is no Airflow 3", id="a-page"),
        pytest.param({"URL": "airflow:8080"}, [], [], 64, "'airflow:8080'. Give an address", id="no-address"),
        pytest.param({"URL": "http://u:hidden@h"}, [], [], 64, "Give an address", id="with-a-password"),
        pytest.param({"PASSWORD": "", "PASSWORD_FILE": "/no"}, [], [], 64, "PASSWORD_FILE names /no, which", id="file"),
        pytest.param({"URL": ""}, [], [], 75, "The store is s3://bucket/x.*set WINDSOCK_AIRFLOW_URL", id="not-named"),
    ],
)
def test_an_airflow_that_cannot_be_asked_is_said_with_its_address_and_the_setting(
    env: dict[str, str], doors: list[Any], answers: list[Any], code: int, said: str,
    server: type[FakeAirflow],
) -> None:  # fmt: skip
    env = {"URL": server.url, "USER": "bob", "PASSWORD": "hidden", **env}  # type: ignore[attr-defined]
    server.doors, server.answers = list(doors), list(answers)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        env["URL"] = f"http://127.0.0.1:{mute.getsockname()[1]}" if env["URL"] == MUTE else env["URL"]
        named = {f"WINDSOCK_AIRFLOW_{name}": value for name, value in env.items()}
        with pytest.raises(WindsockError) as failed:
            trigger(Settings.from_env({**named, "WINDSOCK_HOME": "/nowhere", "WINDSOCK_STORE": "s3://bucket/x"}))
    assert re.search(said.format(url=re.escape(env["URL"])), str(failed.value))
    assert failed.value.exit_code == code
    assert "hidden" not in str(failed.value)
    assert "windsock up" not in str(failed.value)


def test_every_page_of_a_listing_is_read(api: AirflowApi, server: type[FakeAirflow]) -> None:
    pages = [[{"state": "success"}] * 100, [{"state": "failed"}] * 20]
    server.answers[:] = [(200, {"dag_runs": page, "total_entries": 120}) for page in pages]

    assert len(api.runs("~")) == 120
    assert "offset=100" in server.calls[1][1]


def test_waiting_ends_with_where_the_tasks_stand(api: AirflowApi, server: type[FakeAirflow]) -> None:
    tasks = {"task_instances": [{"task_id": "train", "state": "up_for_retry"}], "total_entries": 1}
    server.answers[:] = [(200, {"state": "running"}), (200, tasks)]

    with pytest.raises(UpstreamUnavailable, match="train up_for_retry"):
        api.wait_for_run("d", RUN, timeout_seconds=-1)
