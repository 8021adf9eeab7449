"""What follows from a pod's end: which error, which next try, or another pod at once."""

import logging
from datetime import timedelta
from typing import NoReturn

from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from kubernetes.client import V1Pod

from windsock.compute.memory import after_running_out
from windsock_airflow.pods.status import PodStatus, State
from windsock_airflow.pods.task import PodTask
from windsock_airflow.step_call import FAIL_FAST_EXIT_CODES, pause_after, reschedule_in, seconds

log = logging.getLogger(__name__)

_NOT_READY = "NotReady: "
_TOO_EARLY = (_NOT_READY, "TooLittleHistory: ")


def handle_end(task: PodTask, pod: V1Pod, status: PodStatus) -> None:
    """Draw the consequence of a pod that ended without a result; return only if a new pod is to take over.

    Raises:
        AirflowFailException: No retry can help.
        AirflowException: A retry may help.
        AirflowSkipException: A run by the clock came too early.
        AirflowRescheduleException: The step's input is not there yet.
    """
    name, title = pod.metadata.name, task.work.title
    if status.state is State.INTERRUPTED:
        task.replace_lost(pod, status.message)
        return
    if status.state is State.OUT_OF_MEMORY:
        _end_out_of_memory(task, pod)
    too_early = status.exit_code in {65, 75} and status.message.startswith(
        _TOO_EARLY if task.call.skips_too_early(task.facts) else _NOT_READY
    )
    task.release(pod, failed=not too_early)
    if status.state is State.BROKEN:
        raise _final(f"Pod {name} of {title} cannot start: {status.message}")
    if status.state is State.OVERDUE:
        raise _retried(
            f"Pod {name} of {title} took longer than the task's execution_timeout and was ended. "
            "The next try goes on from its last checkpoint, if it wrote one."
        )
    if too_early:
        _wait_for_input(task, status.message)
    sentence = status.message or f"Pod {name} of {title} ended with exit code {status.exit_code} and said nothing."
    if status.exit_code in FAIL_FAST_EXIT_CODES:
        raise _final(sentence)
    raise _retried(sentence if status.message else f"{sentence} Its log above may tell why.")


def give_up_waiting(task: PodTask, pod: V1Pod | None, message: str) -> NoReturn:
    """Fail a task that has waited for the cluster as long as it may.

    Raises:
        AirflowFailException: Always.
    """
    task.record.stop_waiting()
    if pod is not None:
        task.release(pod)
    needs = task.needs
    gpus = f"{needs.gpu} {needs.gpu_resource}, " if needs.gpu else ""
    where = "".join(f", node label {key}={value}" for key, value in sorted(needs.node_selector.items()))
    raise _final(
        f"{task.work.title}: the cluster had no place for its pod within {needs.wait_minutes} min. "
        f"It asked for {gpus}{needs.cpu:g} cpu, {task.memory} memory{where}. The cluster says: {message} "
        "Ask for less or elsewhere (compute), add room, or raise compute.wait_minutes."
    )


def _end_out_of_memory(task: PodTask, pod: V1Pod) -> NoReturn:
    had, limit = task.memory, task.needs.memory_limit
    more = after_running_out(had, task.needs.memory_growth, limit)
    task.record.memory = more or task.record.memory
    task.release(pod, failed=True)
    if more is not None:
        raise _retried(f"{task.work.title} ran out of {had}; next try with {more}")
    raise _final(
        f"{task.work.title} ran out of {had}, and compute.memory_limit is {limit}. "
        "Raise compute.memory_limit in the model's spec, or train on fewer rows (training.window_days)."
    )


def _wait_for_input(task: PodTask, message: str) -> NoReturn:
    call = task.call
    if call.skips_too_early(task.facts):
        raise AirflowSkipException(f"Nothing to do yet: {message}")
    message = message.removeprefix(_NOT_READY)
    waited = task.record.waited("not_ready_since")
    if waited > seconds(call.timeout):
        raise AirflowSensorTimeout(f"Gave up after waiting {timedelta(seconds=seconds(call.timeout))}. {message}")
    log.warning("Not ready: %s", message)
    raise reschedule_in(pause_after(waited, seconds(call.poke_interval)))


def _final(sentence: str) -> AirflowFailException:
    # The sentence on a line of its own: the traceback below it is for the few.
    log.error("%s", sentence)
    return AirflowFailException(sentence)


def _retried(sentence: str) -> AirflowException:
    log.error("%s", sentence)
    return AirflowException(sentence)
