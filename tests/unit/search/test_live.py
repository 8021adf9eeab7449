"""Live metrics: there when a server is, and never in the way."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from windsock.runs.run_folder import CANDIDATE_TAG
from windsock.search.live import LiveRun

REQUEST = {"model": "fraud", "run": "r1", "estimator": {"name": "torch"}}


@pytest.fixture
def hanging_server():
    """A server that takes connections and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_hangs_costs_seconds_at_the_end_and_nothing_before(hanging_server, monkeypatch):
    import mlflow  # noqa: F401  its first import is not what is measured

    monkeypatch.setenv("MLFLOW_TRACKING_URI", hanging_server)
    started = time.monotonic()
    with LiveRun.of(REQUEST, "fit") as live:
        for epoch in range(100):
            live.round("final", epoch, 0.5)
        assert time.monotonic() - started < 2
    assert time.monotonic() - started < 12


@pytest.fixture
def dripping_server():
    """A server that opens the run, and then answers every batch of numbers with a byte a second."""
    closing = threading.Event()
    info = {"run_id": "r", "run_uuid": "r", "experiment_id": "1", "status": "RUNNING", "lifecycle_stage": "active"}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Stay silent."""

        def answer(self, content: dict[str, object]) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer({"experiment": {"experiment_id": "1", "name": "fraud", "lifecycle_stage": "active"}})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "log-batch" not in self.path:
                self.answer({"runs": []} if "search" in self.path else {"run": {"info": info, "data": {}}})
                return
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            while not closing.wait(1):
                self.wfile.write(b" ")
                self.wfile.flush()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        closing.set()
        server.shutdown()


def test_a_server_that_stops_answering_in_mid_training_does_not_keep_the_trainer_alive(dripping_server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dripping_server)
    program = (
        "from windsock.search.live import LiveRun\n"
        f"with LiveRun.of({REQUEST!r}, 'fit') as live:\n"
        "    for epoch in range(100): live.round('final', epoch, 0.5)\n"
    )
    # It ends by itself, a few seconds after MLflow's client has been loaded; what it guards against never does.
    assert subprocess.run([sys.executable, "-c", program], timeout=240, check=False).returncode == 0


def test_a_server_that_is_away_is_said_once_and_the_training_goes_on(caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a process that also registers models has set more
    with LiveRun.of({**REQUEST, "run": "away"}, "fit") as live:
        live.trial(0, 0.5, "complete")
        time.sleep(0.1)
        live.trial(1, 0.6, "complete")
        assert live._sender is not None
        live._sender.join(60)  # on a busy machine the first import of MLflow takes its time
    said = [r for r in caplog.records if "away/torch: live metrics are off" in r.getMessage()]
    assert len(said) == 1


def test_without_a_server_nothing_is_started(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///somewhere.db")
    with LiveRun.of(REQUEST, "fit") as live:
        live.trial(0, 0.5, "complete")
        assert live._sender is None


def test_a_trainer_that_was_killed_goes_on_in_the_same_run(tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    live = LiveRun.of(REQUEST, "fit")
    for step in range(2):
        opened, run_id, metric = replace(live, uri=uri)._open()
        opened.log_metric(run_id, "loss.final", 0.5 - step / 10, 1000 + step, step)
        assert metric.__name__ == "Metric"

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("fraud").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`{CANDIDATE_TAG}` = 'r1/torch'")
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss.final")] == [0.5, 0.4]
