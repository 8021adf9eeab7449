"""Which pods nobody waits for."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes.client import V1ObjectMeta, V1Pod, V1PodList

from windsock.compute import SiteCompute
from windsock.settings import Settings
from windsock_airflow.pods import sweep
from windsock_airflow.pods.identity import TaskIdentity, installation_of


def pod(*, mine: bool = True, deleted: bool = False) -> V1Pod:
    said = TaskIdentity("0", "d", "r", "t", -1).annotations if mine else {"other": "x"}
    at = datetime.now(UTC) if deleted else None
    return V1Pod(metadata=V1ObjectMeta(name="p", annotations=said, deletion_timestamp=at))


@pytest.mark.parametrize("state", ["success", "failed", "skipped", "upstream_failed", "removed"])
def test_the_pod_of_a_task_that_is_over_is_unwanted(state: str):
    assert len(sweep.unwanted([pod()], {"d": {"r": {"t": state}}})) == 1


@pytest.mark.parametrize(
    "state", [None, "scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred"]
)
def test_the_pod_of_a_task_that_may_go_on_stays(state: str | None):
    assert sweep.unwanted([pod()], {"d": {"r": {"t": state}}}) == []


@pytest.mark.parametrize("states", [{}, {"r": {}}, {"r": {"t_0": "running"}}])
def test_the_pod_of_a_task_that_was_deleted_is_unwanted(states: dict[str, Any]):
    assert len(sweep.unwanted([pod()], {"d": states})) == 1


def test_pods_of_others_and_those_being_deleted_are_left_alone():
    assert sweep.unwanted([pod(mine=False), pod(deleted=True)], {}) == []


class OneNamespace:
    """A cluster's client, as far as the sweep uses it."""

    def __init__(self, pods: list[V1Pod]) -> None:
        self.pods = pods

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> V1PodList:
        wanted, kept = label_selector.split(",")
        assert kept.startswith("!")
        found = [p for p in self.pods if "{}={}".format(*wanted.split("=")) in map("=".join, p.metadata.labels.items())]
        return V1PodList(items=[p for p in found if kept[1:] not in p.metadata.labels])

    def delete_namespaced_pod(self, name: str, namespace: str, body: Any) -> None:
        self.pods = [p for p in self.pods if p.metadata.uid != body.preconditions.uid]


def test_two_airflows_on_one_store_and_namespace_sweep_only_their_own_pods(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name, value in {"MODELS": str(tmp_path), "STORE": "s3://a/x", "COMPUTE": "kubernetes"}.items():
        monkeypatch.setenv(f"WINDSOCK_{name}", value)
    settings = Settings.from_env()

    def pod_of(airflow: str) -> V1Pod:
        owner = TaskIdentity(installation_of(settings, SiteCompute(), airflow), "d", "r", "t", -1)
        about = V1ObjectMeta(name="p", namespace="windsock", uid=airflow, labels=owner.labels())
        about.annotations = owner.annotations
        return V1Pod(metadata=about)

    cluster = OneNamespace([pod_of("blue"), pod_of("green")])
    # For both of them the run of that name is over: it is the other's that goes on.
    monkeypatch.setattr(sweep, "_states_of_owners", lambda _pods: {"d": {"r": {"t": "success"}}})

    sweep.sweep(settings, cluster, "blue")
    assert [pod.metadata.uid for pod in cluster.pods] == ["green"]
    sweep.sweep(settings, cluster, "green")
    assert cluster.pods == []


def test_only_schedulers_sweep_and_only_if_something_may_run_in_pods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    began = threading.Event()
    monkeypatch.setattr(
        sweep, "_sweep_for_ever", lambda _settings, name: began.set() if name == "the-only-airflow" else None
    )
    monkeypatch.setenv("WINDSOCK_MODELS", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_VAR_WINDSOCK_INSTALLATION", "the-only-airflow")
    for part, compute in (("triggerer", "kubernetes"), ("scheduler", "local")):
        monkeypatch.setattr("sys.argv", ["airflow", part])
        monkeypatch.setenv("WINDSOCK_COMPUTE", compute)
        sweep.on_starting(None)
        assert not began.wait(0.05)
    monkeypatch.setenv("WINDSOCK_COMPUTE", "kubernetes")
    sweep.on_starting(None)
    assert began.wait(60)


def test_the_states_of_the_tasks_that_pods_are_of_come_from_airflows_execution_api(monkeypatch: pytest.MonkeyPatch):
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"task_states": {"r": {"t": "failed"}}})

    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://airflow.invalid/execution/")
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "0" * 64)
    monkeypatch.setattr(httpx.Client, "_transport_for_url", lambda *_: httpx.MockTransport(answer))
    assert sweep._states_of_owners([pod(), pod(mine=False)]) == {"d": {"r": {"t": "failed"}}}
    (request,) = asked
    assert request.url.path == "/execution/task-instances/states"
    assert request.url.params.multi_items() == [("dag_id", "d"), ("run_ids", "r")]
    assert request.headers["authorization"].startswith("Bearer ey")


def test_where_there_are_no_pods_nobody_is_asked():
    assert sweep._states_of_owners([]) == {}
