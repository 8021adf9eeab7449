"""An edit of a model reaches Airflow without anybody parsing DAG files over and over."""

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from windsock.settings import Settings
from windsock_local.stack import airflow_api
from windsock_local.stack.home import Home
from windsock_local.stack.spec_watch import SpecWatch

KNOWN = ("train", "train", "score")
DAGS = {"dags": [{"file_token": n, "relative_fileloc": f"{n}.py"} for n in KNOWN], "total_entries": len(KNOWN)}


class Airflow(BaseHTTPRequestHandler):
    puts: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self._answer(201, {"access_token": "t"})

    def do_GET(self) -> None:
        self._answer(200, DAGS)

    def do_PUT(self) -> None:
        self.puts.append(self.path)
        self._answer(201, None)

    def _answer(self, status: int, body: Any) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Airflow.puts.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Airflow) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "models" / "fraud").mkdir(parents=True)
    (tmp_path / "models" / "fraud" / "model.yaml").write_text("name: fraud")
    home = Home(tmp_path / "home")
    home.create()
    home.secret("admin_password")
    return Settings.from_env({"WINDSOCK_HOME": str(home.root), "WINDSOCK_MODELS": str(tmp_path / "models")})


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    """Three files, of one of which Airflow knows no DAG."""
    folder = tmp_path / "dags"
    folder.mkdir()
    for name in {*KNOWN, "labels"}:
        (folder / f"{name}.py").touch()
        os.utime(folder / f"{name}.py", ns=(1, 1))
    return folder


def test_a_changed_spec_has_each_dag_file_parsed_once(settings: Settings, dags: Path, url: str) -> None:
    watch = SpecWatch(settings, url, dags)
    watch.look()
    assert Airflow.puts == []

    os.utime(settings.models[0] / "fraud" / "model.yaml", ns=(1, 1))
    watch.look()
    watch.look()

    assert Airflow.puts == ["/api/v2/parseDagFile/score", "/api/v2/parseDagFile/train"]


def test_a_new_model_and_one_that_is_gone_count_as_changes(settings: Settings, dags: Path, url: str) -> None:
    watch = SpecWatch(settings, url, dags)
    new = settings.models[0] / "churn"
    new.mkdir()
    (new / "model.yaml").write_text("name: churn")
    watch.look()
    (new / "model.yaml").unlink()
    watch.look()

    assert len(Airflow.puts) == 4


def test_a_file_that_has_had_no_dag_so_far_is_parsed_too(
    settings: Settings, dags: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch = SpecWatch(settings, url, dags)
    (settings.models[0] / "fraud" / "model.yaml").write_text("name: fraud\nlabel: {files: {}}")
    watch.look()
    watch.look()
    changed = {path.stem: path.stat().st_mtime for path in dags.iterdir() if path.stat().st_mtime > 1}
    assert changed == {"labels": pytest.approx(time.time() + 2, abs=2)}, "Airflow sees that by the time of change"
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == []


def test_a_change_is_not_forgotten_while_airflow_is_away(
    settings: Settings, dags: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airflow_api, "_RETRY_SECONDS", 0.0)
    watch = SpecWatch(settings, "http://127.0.0.1:9", dags)
    (settings.models[0] / "fraud" / "usage.sql").write_text("select 1")
    watch.look()

    watch._airflow_url = url
    watch.look()

    assert len(Airflow.puts) == 2
