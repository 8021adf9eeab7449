"""Live metrics: there when a server is, and never in the way."""

import time
from dataclasses import replace

import pytest

from windsock.runs.run_folder import CANDIDATE_TAG
from windsock.trainers.live import LiveRun

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
        again = replace(live, uri=uri)
        again._open()([("loss.final", 0.5 - step / 10, 1000 + step, step)])

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("fraud").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`{CANDIDATE_TAG}` = 'r1/torch'")
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss.final")] == [0.5, 0.4]
