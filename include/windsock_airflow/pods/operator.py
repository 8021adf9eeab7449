"""The operator that runs a Windsock step in a pod.

It is Airflow's KubernetesPodOperator with another life around the same pod (docs/adr/0006 says why): a pod's state
alone decides (``cluster`` has the table), so that it does not matter which process looks at it, or how often one had
to be replaced: every process finds the task's pod, asks what has become of it, and goes on. There is never a second
pod beside the first.

A signal to end means one of two things, and Airflow is asked which: if the task is still wanted (a worker shuts down,
a scheduler restarts), the pod goes on and the task is rescheduled; else (marked, cleared, deleted) the pod is deleted.
"""

import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowRescheduleException
from kubernetes.client import V1Pod
from kubernetes.client.exceptions import ApiException

from windsock_airflow.pages import RESULT_LINKS
from windsock_airflow.pods import cluster
from windsock_airflow.pods.cluster import OVER, PodStatus, State, status_of
from windsock_airflow.pods.manifest import CONTAINER, TrainerWork
from windsock_airflow.pods.sweep import is_wanted
from windsock_airflow.pods.task import PodTask
from windsock_airflow.step import StepCall, no_retry_of_faulty_input, pause_after, reschedule_in

_PATIENCE_S = 45.0
"""How long a process looks at a pod that is about to start or to go, before it gives its slot back."""
_LONGEST_PAUSE_S = 60.0
_LONGEST_BREATH_S = 30.0
"""Longest pause between two pods when several are lost in a row."""
_NODE_SILENT_S = 60.0
"""So long after a pod should be gone, its node is taken for lost."""


class WatchEnded(BaseException):
    """Somebody asks this process to end; raised from the signal handler into the watch."""


class PodStepOperator(KubernetesPodOperator):
    """Run one step of a model in a pod: ``fit`` a trainer, of the option ``estimator``; any other ``windsock step``.

    Site and spec are read when the task runs, not when the DAG file is parsed: a fault in them fails the task with a
    sentence and hides no DAG. Arguments are those of :class:`~windsock_airflow.step.StepOperator`; ``poll_interval`` is
    the time in seconds between two looks at a pod that starts, runs or goes.
    """

    template_fields = ("options",)
    template_fields_renderers: ClassVar[dict[str, str]] = {}
    ui_color = "#dfeef5"
    operator_extra_links = RESULT_LINKS

    def __init__(self, *, options: Mapping[str, Any] | None = None, task_id: str | None = None, **kwargs: Any) -> None:
        call = StepCall.take_from(kwargs)
        super().__init__(
            task_id=task_id or call.step,
            multiple_outputs=True,
            base_container_name=CONTAINER,
            termination_message_policy="FallbackToLogsOnError",
            log_pod_spec_on_failure=False,  # the environment may hold what a log should not
            log_events_on_startup=False,  # its trigger would fetch every event of the namespace
            random_name_suffix=False,  # a name that can exist once is what keeps a second pod away
            **kwargs,
        )
        # The result is read from the store; the base class would add a sidecar for it.
        self.do_xcom_push = True
        self.call = call
        self.options = call.own_options(options)
        self.links: dict[str, str] = {}
        self._phase, self._parent = "", 0
        self._task: PodTask | None = None

    # --- Airflow calls these

    def execute(self, context: Context) -> Any:
        """Run the pod to its end, wait by rescheduling, or hand the watch to the triggerer."""
        return self._watch(context, {})

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after the triggerer saw the pod end, or gave up looking at it."""
        return self._watch(context, event)

    def on_kill(self) -> None:
        """End the watch, or delete the pod of a task whose ``execution_timeout`` has passed."""
        if self._phase == "watching":
            raise WatchEnded
        if self._phase != "ending" and self.pod is not None:
            self.log.warning("The task's execution_timeout has passed; deleting pod %s.", self.pod.metadata.name)
            cluster.delete_pod(self.client, self.pod)
            if self._task is not None:
                self._task.record.next_pod()  # else the next try would take it for lost

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> V1Pod:
        """Build the pod without the sidecar that the base class would add for XComs."""
        self.do_xcom_push = False
        try:
            return super().build_pod_request_obj(context, dry_run=dry_run)
        finally:
            self.do_xcom_push = True

    def convert_config_file_to_dict(self) -> None:
        """Keep credentials out of the database: the triggerer reads the kubeconfig for itself."""
        self._config_dict = None

    # --- one process's watch

    def _watch(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Watch the task's pod in this process; ``event`` is the triggerer's, if it was watched there before."""
        self._parent, self._phase = os.getppid(), "watching"
        try:
            with no_retry_of_faulty_input():
                self._task = task = PodTask(self, self.call, self.options, context)
                pod = task.find()
                if pod is not None and event.get("status") == "timeout" and status_of(pod).state not in OVER:
                    task.handle_end(pod, PodStatus(State.OVERDUE, "execution_timeout has passed"))
                # A triggerer that cannot watch this pod would be asked again and again: watch it here.
                may_defer = event.get("status") != "error" and (self.deferrable or task.needs.deferrable)
                return self._watch_to_end(task, pod, may_defer)
        except WatchEnded:
            self._phase = "ending"
            self._end_early(context)
        finally:
            self._phase = "ending" if self._phase == "ending" else ""

    def _watch_to_end(self, task: PodTask, pod: V1Pod | None, may_defer: bool) -> Any:
        """Look at the pod and do what its state asks for, until there is a result."""
        since, followed = time.monotonic(), ""
        while True:
            if pod is None and isinstance(task.work, TrainerWork) and (result := task.work.finished()) is not None:
                self.log.info("%s: finished already; no pod is needed.", task.work.title)
                return self._finish(task, result, None)
            if pod is None:
                try:
                    pod = task.make()
                except cluster.QuotaExceeded as err:
                    self.pod = None
                    raise self._wait_later(task, None, str(err)) from err
            self.pod = pod
            status = status_of(pod)
            if status.state is State.RUNNING:
                task.record.stop_waiting()
                self.log.info("Following pod %s.", pod.metadata.name)
                if may_defer:
                    self.invoke_defer_method(context=task.context)  # raises TaskDeferred
                self._follow_log(pod)
                since, followed = time.monotonic(), pod.metadata.uid
            elif status.exit_code is not None and followed != pod.metadata.uid:
                self._copy_log(pod)  # it ended while nobody looked
                followed = pod.metadata.uid
            if status.state is State.DONE:
                return self._finish(task, task.result(pod), pod)
            if status.state in OVER or status.state is State.BROKEN:
                task.handle_end(pod, status)  # returns if a new pod is to take over
                time.sleep(min(self.poll_interval * 2 ** (task.record.interruptions - 1), _LONGEST_BREATH_S))
            elif status.state is not State.RUNNING:
                self._wait_for_cluster(task, pod, status, time.monotonic() - since)
            if os.getppid() != self._parent:
                os._exit(1)  # Airflow's own process beside this one was killed: a successor looks after the pod
            pod = task.find()

    def _follow_log(self, pod: V1Pod) -> None:
        """Copy the container's log until it ends."""
        try:
            self.await_pod_completion(pod)
        except ApiException as err:
            if err.status != 404:
                self.log.warning("The log of pod %s broke off: %s", pod.metadata.name, cluster.message_of(err))
        time.sleep(min(self.poll_interval, 0.5))

    def _copy_log(self, pod: V1Pod) -> None:
        """Copy the log of a container that has ended; Airflow's own would not, two minutes after the end."""
        name, namespace = pod.metadata.name, pod.metadata.namespace
        try:
            lines = self.client.read_namespaced_pod_log(name, namespace, container=CONTAINER, _preload_content=False)
            for line in lines:
                if text := line.decode("utf-8", errors="backslashreplace").rstrip():
                    self.log.info("[%s] %s", CONTAINER, text)
        except Exception as err:
            self.log.warning("The log of pod %s could not be read: %s", name, err)

    def _wait_for_cluster(self, task: PodTask, pod: V1Pod, status: PodStatus, looked_for: float) -> None:
        """Look again soon, or give the slot back if that will not help."""
        if status.state is State.ENDING:
            gone_at = pod.metadata.deletion_timestamp.timestamp() + _NODE_SILENT_S
            if time.time() > gone_at:
                self.log.warning("Pod %s should be gone; its node does not answer.", pod.metadata.name)
                cluster.delete_pod(self.client, pod, grace_seconds=0)
        no_node = status.state is State.QUEUED and status.message  # the cluster's scheduler has looked for one
        if no_node or looked_for > _PATIENCE_S:
            warning = self._last_warning(pod) if status.state is State.STARTING else ""
            raise self._wait_later(task, pod, "; ".join(filter(None, (status.message, warning))))
        time.sleep(self.poll_interval)

    def _last_warning(self, pod: V1Pod) -> str:
        """Return the newest warning among a pod's events, or nothing; events are a help, not a need."""
        try:
            warnings = [event for event in self.pod_manager.read_pod_events(pod).items if event.type == "Warning"]
        except Exception as err:
            self.log.debug("Events of pod %s could not be read: %s", pod.metadata.name, err)
            return ""
        return f"{warnings[-1].reason}: {warnings[-1].message}" if warnings else ""

    def _wait_later(self, task: PodTask, pod: V1Pod | None, message: str) -> AirflowRescheduleException:
        """Return the exception that makes the task wait; beyond the limit, fail it for good."""
        waited = task.record.waited("waiting_since")
        left = task.needs.wait_minutes * 60 - waited
        if left <= 0:
            task.give_up_waiting(pod, message)
        pause = min(pause_after(waited, self.call.poke_interval, _LONGEST_PAUSE_S), max(left, 1.0))
        limit = f"{waited:.0f} s, at most {task.needs.wait_minutes} min"
        self.log.warning("%s waits for the cluster (%s): %s", task.work.title, limit, message)
        return reschedule_in(pause)

    def _finish(self, task: PodTask, result: dict[str, Any], pod: V1Pod | None) -> dict[str, Any]:
        self.call.announce_result(self, task.context, task.facts, result)
        task.record.next_pod()
        if pod is not None:
            cluster.delete_pod(self.client, pod)
        return result

    def _end_early(self, context: Context) -> None:
        """Leave the pod to the next process, or delete it if there will be none."""
        wanted = is_wanted(context)
        if wanted is True:
            self.log.warning("This worker was told to end. The pod goes on; the next one will find it.")
            raise reschedule_in(1)
        if wanted is False and self.pod is not None:
            self.log.warning("The task is no longer wanted; deleting pod %s.", self.pod.metadata.name)
            cluster.delete_pod(self.client, self.pod)
        # Airflow has the task's state already; an exception would only add an alert about what somebody did on purpose.
        os._exit(1)
