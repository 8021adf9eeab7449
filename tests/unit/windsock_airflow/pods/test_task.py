"""What follows from a pod's end: which error, which next try, or another pod."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from kubernetes.client import V1ObjectMeta, V1Pod

from windsock_airflow.pods.cluster import PodStatus, State
from windsock_airflow.pods.identity import PodRecord, TaskIdentity
from windsock_airflow.pods.task import MOST_INTERRUPTIONS, PodTask
from windsock_airflow.step import StepCall


class Task(PodTask):
    """A pod task without a cluster: notes what is dropped."""

    def __init__(self, *, scheduled: bool = False, skip_on_schedule: bool = False) -> None:
        self.needs = SimpleNamespace(
            memory="2Gi", memory_growth=2.0, memory_limit="3Gi", gpu=2, gpu_resource="nvidia.com/gpu", cpu=1.5,
            wait_minutes=5, node_selector={"pool": "gpu"},
        )  # fmt: skip
        self.work = SimpleNamespace(title="fraud, fit torch")
        self.identity = TaskIdentity("0", "d", "r", "t", -1)
        self.record = PodRecord()
        self.facts = SimpleNamespace(scheduled=scheduled)
        self.call = StepCall(step="fit", model="fraud", skip_on_schedule=skip_on_schedule, timeout=timedelta(minutes=1))
        self.dropped: list[bool] = []

    def release(self, pod: V1Pod, *, failed: bool = False) -> None:
        self.dropped.append(failed)
        self.record.next_pod()


def end(task: Task, state: State, said: str = "", code: int | None = None) -> None:
    pod: Any = V1Pod(metadata=V1ObjectMeta(name="p"))
    task.handle_end(pod, PodStatus(state, said, code))


@pytest.mark.parametrize(
    ("code", "raised"), [(64, AirflowFailException), (65, AirflowFailException), (75, AirflowException)]
)
def test_the_last_words_are_the_whole_error_message(code: int, raised: type[Exception]):
    task = Task()
    with pytest.raises(raised) as error:
        end(task, State.FAILED, "DataContractError: no rows.", code)
    assert str(error.value) == "DataContractError: no rows."
    assert isinstance(error.value, AirflowFailException) == (code != 75)
    assert task.dropped == [True]


def test_a_pod_without_last_words_is_named_with_its_exit_code():
    with pytest.raises(AirflowException, match="Pod p of fraud, fit torch ended with exit code 3 and said nothing"):
        end(Task(), State.FAILED, "", 3)


def test_a_step_whose_input_is_not_there_is_asked_again_until_its_timeout():
    task = Task()
    with pytest.raises(AirflowRescheduleException):
        end(task, State.FAILED, "NotReady: 2026-03-01 is missing", 75)
    assert task.record.not_ready_since is not None
    assert task.dropped == [False], "not ready is no failure: there is nothing to look at in its pod"
    task.record.not_ready_since -= 61
    with pytest.raises(AirflowSensorTimeout, match="2026-03-01 is missing"):
        end(task, State.FAILED, "NotReady: 2026-03-01 is missing", 75)


@pytest.mark.parametrize(("said", "code"), [("NotReady: no day", 75), ("TooLittleHistory: no day", 65)])
def test_a_run_by_the_clock_is_skipped_while_there_is_too_little(said: str, code: int):
    task = Task(scheduled=True, skip_on_schedule=True)
    with pytest.raises(AirflowSkipException, match="no day"):
        end(task, State.FAILED, said, code)
    assert task.dropped == [False]
    with pytest.raises((AirflowFailException, AirflowRescheduleException)):
        end(Task(scheduled=False, skip_on_schedule=True), State.FAILED, said, code)


def test_memory_grows_to_the_limit_and_then_the_task_fails_for_good():
    task = Task()
    with pytest.raises(AirflowException, match="ran out of 2Gi; next try with 3Gi"):
        end(task, State.OUT_OF_MEMORY)
    assert task.record.memory == task.memory == "3Gi"
    with pytest.raises(AirflowFailException, match=r"ran out of 3Gi, and compute\.memory_limit is 3Gi"):
        end(task, State.OUT_OF_MEMORY)


def test_lost_pods_are_replaced_so_often_and_then_the_try_fails():
    task = Task()
    for _ in range(MOST_INTERRUPTIONS):
        end(task, State.INTERRUPTED, "Evicted: low on memory")
    assert task.record.number == MOST_INTERRUPTIONS
    with pytest.raises(AirflowException, match="Evicted: low on memory") as error:
        end(task, State.INTERRUPTED, "Evicted: low on memory")
    assert not isinstance(error.value, AirflowFailException)


def test_at_the_limit_of_waiting_the_sentence_says_what_was_asked_what_was_said_and_what_to_do():
    with pytest.raises(AirflowFailException) as error:
        Task().give_up_waiting(None, "0/3 nodes are available.")
    for part in ("within 5 min", "2 nvidia.com/gpu, 1.5 cpu, 2Gi memory", "pool=gpu", "0/3 nodes", "wait_minutes"):
        assert part in str(error.value)
