"""Kubernetes' refusals told apart."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from kubernetes.client import V1ObjectMeta, V1Pod
from kubernetes.client.exceptions import ApiException

from windsock_airflow.pods.cluster import QuotaExceeded, create_pod, delete_pod

QUOTA = 'pods "p" is forbidden: exceeded quota: team, requested: {asked}, used: {used}, limited: {most}'


class Api:
    """Answers each call with the next answer; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.calls = list(answers), []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def refusal(status: int, message: str) -> ApiException:
    return ApiException(http_resp=SimpleNamespace(
        status=status, reason="no", data=json.dumps({"message": message}), getheaders=dict
    ))  # fmt: skip


def pod() -> V1Pod:
    return V1Pod(metadata=V1ObjectMeta(name="p", namespace="n", uid="u"))


def test_a_full_quota_is_waited_for_with_its_own_words():
    sentence = QUOTA.format(
        asked="pods=1,requests.memory=2Gi", used="pods=9,requests.memory=15Gi", most="pods=9,requests.memory=16Gi"
    )
    with pytest.raises(QuotaExceeded, match="exceeded quota: team"):
        create_pod(Api(refusal(403, sentence)), pod())


@pytest.mark.parametrize(
    ("asked", "most", "name"),
    [
        ("requests.memory=20Gi", "requests.memory=16Gi", "requests.memory"),
        ("pods=1,requests.nvidia.com/gpu=4", "pods=9,requests.nvidia.com/gpu=2", "requests.nvidia.com/gpu"),
        ("requests.cpu=1500m", "requests.cpu=1", "requests.cpu"),
    ],
)
def test_more_than_the_whole_quota_is_refused_at_once(asked: str, most: str, name: str):
    with pytest.raises(AirflowFailException, match=f"more {name} than the whole quota 'team' allows"):
        create_pod(Api(refusal(403, QUOTA.format(asked=asked, used="pods=0", most=most))), pod())


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_other_refusals_are_final(status: int):
    with pytest.raises(AirflowFailException, match="violates PodSecurity"):
        create_pod(Api(refusal(status, "violates PodSecurity")), pod())


def test_a_pod_that_exists_is_taken_for_the_one_that_was_to_be_made():
    there = pod()
    assert create_pod(Api(refusal(409, "already exists"), there), pod()) is there


def test_deleting_what_is_gone_or_has_been_replaced_is_no_error():
    for status in (404, 409):
        api = Api(refusal(status, "no"))
        delete_pod(api, pod())
        assert api.calls == ["delete_namespaced_pod"]
