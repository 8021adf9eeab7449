"""The parts of the provider that our operator stands on: a new version that changes one of them shows here."""

import inspect
from importlib.metadata import version

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager

from windsock_airflow.pods.operator import PodStepOperator

CALLED = {
    "build_pod_request_obj": ["self", "context", "dry_run"],
    "await_pod_completion": ["self", "pod"],
    "invoke_defer_method": ["self", "last_log_time", "context"],
}
OVERRIDDEN = {
    "execute": ["self", "context"],
    "trigger_reentry": ["self", "context", "event"],
    "on_kill": ["self"],
    "convert_config_file_to_dict": ["self"],
    "build_pod_request_obj": ["self", "context", "dry_run"],
}


@pytest.mark.parametrize(("name", "parameters"), [*CALLED.items(), *OVERRIDDEN.items()])
def test_what_is_called_and_overridden_is_there_as_it_was(name: str, parameters: list[str]):
    assert list(inspect.signature(getattr(KubernetesPodOperator, name)).parameters) == parameters


def test_a_pods_events_and_the_pause_between_two_looks_are_the_providers():
    assert list(inspect.signature(PodManager.read_pod_events).parameters)[:2] == ["self", "pod"]
    assert PodStepOperator(step="fit", model="m").poll_interval == 2
    assert PodStepOperator(step="fit", model="m", poll_interval=0.3).poll_interval == 0.3


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_we_override_is_really_ours(name: str):
    assert getattr(PodStepOperator, name) is not getattr(KubernetesPodOperator, name)


def test_the_version_is_one_that_was_tried_on_a_cluster():
    assert version("apache-airflow-providers-cncf-kubernetes").startswith("10.25.")
