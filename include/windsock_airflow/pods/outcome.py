"""What follows from a pod's end: which error, which next try, or another pod at once."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from kubernetes.client import V1Pod

from windsock.compute.memory import after_running_out
from windsock_airflow.pods.verdict import State, Verdict
from windsock_airflow.step_task import FAIL_FAST_EXIT_CODES, again_in, pause_after

if TYPE_CHECKING:
    from windsock_airflow.pods.task import PodTask

log = logging.getLogger(__name__)

MOST_INTERRUPTIONS = 10
"""Pods that one try may lose through no fault of theirs; then it counts as a failed try."""
_NOT_READY = "NotReady: "
_NOT_YET = (_NOT_READY, "TooLittleHistory: ")


def end_of(task: PodTask, pod: V1Pod, verdict: Verdict) -> None:
    """Draw the consequence of a pod that ended without a result; return only if a new pod is to take over.

    Raises:
        AirflowFailException: No retry can help.
        AirflowException: A retry may help.
        AirflowRescheduleException: The step's input is not there yet.
    """
    if verdict.state is State.INTERRUPTED:
        interrupted(task, pod, verdict.said)
        return
    name = pod.metadata.name
    if verdict.state is State.OUT_OF_MEMORY:
        _out_of_memory(task, pod)
    task.drop(pod, failed=not _is_too_early(task, verdict))
    if verdict.state is State.BROKEN:
        _fail(f"Pod {name} of {task.work.title} cannot start: {verdict.said}")
    if verdict.state is State.OVERDUE:
        raise _to_retry(
            f"Pod {name} of {task.work.title} took longer than the task's execution_timeout and was ended. "
            "The next try goes on from its last checkpoint, if it wrote one."
        )
    _ended_with(task, name, verdict)


def interrupted(task: PodTask, pod: V1Pod | None, said: str) -> None:
    """Note a pod that was lost through no fault of its own; a new one takes over at once.

    Raises:
        AirflowException: Too many were lost; this counts as a failed try.
    """
    name = task.identity.pod_name(task.work.title, task.record.number)
    task.record.interruptions += 1
    if pod is None:
        task.record.next_pod()
    else:
        task.drop(pod)
    count = task.record.interruptions
    if count > MOST_INTERRUPTIONS:
        raise _to_retry(f"{task.work.title} lost {count} pods in one try, the last ({name}) because {said}.")
    log.warning(
        "Pod %s was lost: %s. A new one goes on from the last checkpoint (lost so far: %d of at most %d).",
        name, said, count, MOST_INTERRUPTIONS,
    )  # fmt: skip


def give_up_after(task: PodTask, pod: V1Pod | None, said: str) -> NoReturn:
    """Fail a task that has waited for the cluster as long as it may.

    Raises:
        AirflowFailException: Always.
    """
    task.record.stop_waiting()
    if pod is not None:
        task.drop(pod)
    needs = task.needs
    gpus = f"{needs.gpu} {needs.gpu_resource}, " if needs.gpu else ""
    where = "".join(f", node label {key}={value}" for key, value in sorted(needs.node_selector.items()))
    _fail(
        f"{task.work.title}: the cluster had no place for its pod within {needs.wait_minutes} min. "
        f"It asked for {gpus}{needs.cpu:g} cpu, {task.memory} memory{where}. The cluster says: {said} "
        "Ask for less or elsewhere (compute), add room, or raise compute.wait_minutes."
    )


def _out_of_memory(task: PodTask, pod: V1Pod) -> NoReturn:
    had = task.memory
    more = after_running_out(had, task.needs.memory_growth, task.needs.memory_limit)
    if more is None:
        task.drop(pod, failed=True)
        _fail(
            f"{task.work.title} ran out of {had}, and compute.memory_limit is {task.needs.memory_limit}. "
            "Raise compute.memory_limit in the model's spec, or train on fewer rows (training.window_days)."
        )
    task.record.memory = more
    task.drop(pod, failed=True)
    raise _to_retry(f"{task.work.title} ran out of {had}; next try with {more}")


def _ended_with(task: PodTask, name: str, verdict: Verdict) -> NoReturn:
    said = verdict.said or f"Pod {name} of {task.work.title} ended with exit code {verdict.exit_code} and said nothing."
    if _is_too_early(task, verdict):
        if _may_skip(task):
            raise AirflowSkipException(f"Nothing to do yet: {said}")
        _ask_again(task, said.removeprefix(_NOT_READY))
    if verdict.exit_code in FAIL_FAST_EXIT_CODES:
        _fail(said)
    raise _to_retry(said if verdict.said else f"{said} Its log above may tell why.")


def _is_too_early(task: PodTask, verdict: Verdict) -> bool:
    """Say whether the step has not failed, but only has nothing to do yet."""
    return verdict.exit_code in {65, 75} and verdict.said.startswith(_NOT_YET if _may_skip(task) else _NOT_READY)


def _may_skip(task: PodTask) -> bool:
    return bool(task.operator.skip_on_schedule and task.facts.scheduled)


def _ask_again(task: PodTask, said: str) -> NoReturn:
    waited = task.record.not_ready()
    if waited > task.operator.timeout:
        raise AirflowSensorTimeout(f"Gave up after waiting {timedelta(seconds=task.operator.timeout)}. {said}")
    log.warning("Not ready: %s", said)
    pause = pause_after(waited, task.operator.poke_interval)
    raise again_in(pause)


def _fail(sentence: str) -> NoReturn:
    # The sentence on a line of its own: the traceback below it is for the few.
    log.error("%s", sentence)
    raise AirflowFailException(sentence)


def _to_retry(sentence: str) -> AirflowException:
    log.error("%s", sentence)
    return AirflowException(sentence)
