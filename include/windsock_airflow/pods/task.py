"""One task instance and its pod: what to run, the pod itself, and what follows from the pod's end."""

import logging
from collections.abc import Mapping
from typing import Any, NoReturn

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, AirflowSkipException
from kubernetes.client import CoreV1Api, V1Pod

from windsock.compute import after_running_out, check_store_is_mounted, in_bytes, load_site, needs_of
from windsock.errors import DataContractError
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.store import Store
from windsock_airflow.pods import cluster
from windsock_airflow.pods.cluster import OVER, PodStatus, State, has_ended, status_of
from windsock_airflow.pods.identity import KEPT_LABEL, PREFIX, PodRecord, TaskIdentity, installation_of, name_of_airflow
from windsock_airflow.pods.manifest import StepWork, TrainerWork, pod_manifest
from windsock_airflow.step import FAIL_FAST_EXIT_CODES, StepCall, pause_after, reschedule_in

log = logging.getLogger(__name__)

MOST_INTERRUPTIONS = 10
"""Pods that one try may lose through no fault of theirs; then it counts as a failed try."""
_LATER_SECONDS = 60
"""By how much a pod's own deadline is later than its task's: it is for pods that nobody watches any more. Of a pod that
is over its deadline and deleted at the same moment, an old kubelet never says that it has ended."""
_NUMBER = f"{PREFIX}number"
_NOT_READY = "NotReady: "
_TOO_EARLY = (_NOT_READY, "TooLittleHistory: ")


class PodTask:
    """One task instance that runs in a pod; made, it has read site, spec and record, and set the operator up for them.

    Raises:
        SpecError: Site or spec are faulty, or do not fit each other.
    """

    def __init__(
        self, operator: KubernetesPodOperator, call: StepCall, own_options: Mapping[str, Any], context: Context
    ) -> None:
        self.operator, self.call, self.context = operator, call, context
        self.facts = call.run_facts(context)
        settings = Settings.from_env()
        site, spec = load_site(settings), get_spec(settings, call.model)
        self.record = PodRecord.of(context)
        if not self.record.made:
            self.record.installation = installation_of(settings, site, name_of_airflow())
        self.identity = TaskIdentity.of(context, self.record.installation or installation_of(settings, site))
        options = call.step_options(self.facts, context, own_options)
        trained = spec.training.estimator(options.get("estimator")) if call.step == "fit" else None
        self.needs = needs_of(spec, trained, site)
        self.work: TrainerWork | StepWork
        if trained is not None:
            self.work = TrainerWork(settings, spec, trained, self.needs, options)
        else:
            self.work = StepWork(settings, spec, call.step, self.facts, options, self.identity.digest)
        check_store_is_mounted(Store.of(settings), self.needs)
        run = str(options.get("run") or self.facts.run_id)
        self.labels = self.identity.labels(team=spec.owner, model=spec.name, run=run, step=call.step)
        operator.kubernetes_conn_id = self.needs.kubernetes_conn_id
        operator.termination_grace_period = self.needs.termination_grace_seconds

    @property
    def client(self) -> CoreV1Api:
        """The operator's client."""
        return self.operator.client

    @property
    def memory(self) -> str:
        """What the next pod gets: what was asked for, or more after one ran out."""
        grown = self.record.memory
        if not grown or in_bytes(grown) <= in_bytes(self.needs.memory):
            return self.needs.memory
        return min(grown, self.needs.memory_limit, key=in_bytes)

    def manifest(self) -> V1Pod:
        """Return the pod to make now, with Airflow's own labels and the site's mutations."""
        timeout = self.operator.execution_timeout
        self.operator.full_pod_spec = pod_manifest(
            self.needs.model_copy(update={"memory": self.memory}),
            name=self.identity.pod_name(self.work.title, self.record.number),
            labels=self.labels,
            annotations={**self.identity.annotations, _NUMBER: str(self.record.number)},
            env=self.work.env,
            command=self.work.command,
            arguments=self.work.arguments,
            deadline_seconds=int(timeout.total_seconds()) + _LATER_SECONDS if timeout is not None else None,
            own_folders=self.work.own_folders,
        )
        return self.operator.build_pod_request_obj(self.context)

    def make(self) -> V1Pod:
        """Make the pod of the record's number, or take the one of its name that exists; raises as ``create_pod``."""
        if isinstance(self.work, StepWork):
            self.work.prepare()  # a trainer goes on from what lies there
        while KEPT_LABEL in (pod := cluster.create_pod(self.client, self.manifest())).metadata.labels:
            self.record.number += 1  # a failed pod that was kept has this name
        self.record.made, self.record.namespace = True, pod.metadata.namespace
        self.record.save()
        ti = self.context["ti"]
        ti.xcom_push(key="pod_name", value=pod.metadata.name)
        ti.xcom_push(key="pod_namespace", value=pod.metadata.namespace)
        log.info("Pod %s/%s for %s.", pod.metadata.namespace, pod.metadata.name, self.work.title)
        return pod

    def find(self) -> V1Pod | None:
        """Return this task's pod, whoever made it; None if one is to be made.

        A pod that is done with but not yet gone is returned too: there is never a second one beside it.

        """
        namespace = (self.record.made and self.record.namespace) or self.needs.namespace
        current = None
        for pod in cluster.pods_of(self.client, namespace, self.identity.digest):
            number = int((pod.metadata.annotations or {}).get(_NUMBER, 0))
            if number >= self.record.number:
                if current is None:
                    current, self.record.number, self.record.made = pod, number, True
            elif pod.metadata.deletion_timestamp is None:
                cluster.delete_pod(self.client, pod)
                return self.find()  # it may take its time to go
            elif status_of(pod).state not in OVER:
                return pod
        if current is None:
            if self.record.made:
                self.replace_lost(None, "it was deleted")
            return None
        if self.record.cleared and status_of(current).state is State.QUEUED:
            log.info("The task was cleared while its pod waited: a new one takes its place.")
            self.release(current)
            return None
        return current

    def result(self, pod: V1Pod) -> dict[str, Any]:
        """Return the result of a pod that ended well; one that left none, or a wrong one, is done with."""
        try:
            return self.work.result()
        except DataContractError:
            self.release(pod, failed=True)
            raise

    def release(self, pod: V1Pod, *, failed: bool = False) -> None:
        """Be done with a pod: delete it, or keep it to be looked at if the site wants that of failed ones.

        A pod that runs, or that would once its image or secret is there, is never kept.
        """
        self.record.next_pod()
        if failed and self.needs.keep_failed_pods and has_ended(pod):
            cluster.keep_pod(self.client, pod)
        else:
            cluster.delete_pod(self.client, pod)

    def replace_lost(self, pod: V1Pod | None, reason: str) -> None:
        """Note a pod that was lost through no fault of its own, and let a new one take over; too many fail the try."""
        name = self.identity.pod_name(self.work.title, self.record.number)
        self.record.interruptions += 1
        if pod is None:
            self.record.next_pod()
        else:
            self.release(pod)
        count = self.record.interruptions
        if count > MOST_INTERRUPTIONS:
            raise _logged(
                AirflowException, f"{self.work.title} lost {count} pods in one try, the last ({name}) because {reason}."
            )
        more = f"lost so far: {count} of at most {MOST_INTERRUPTIONS}"
        log.warning("Pod %s was lost: %s. A new one goes on from the last checkpoint (%s).", name, reason, more)

    def handle_end(self, pod: V1Pod, status: PodStatus) -> None:
        """Raise what follows from a pod that ended without a result; return only if a new pod is to take over.

        Raises:
            AirflowFailException: No retry can help.
            AirflowException: A retry may help.
            AirflowSkipException: A run by the clock came too early.
            AirflowRescheduleException: The step's input is not there yet.
        """
        name, title = pod.metadata.name, self.work.title
        if status.state is State.INTERRUPTED:
            self.replace_lost(pod, status.message)
            return
        if status.state is State.OUT_OF_MEMORY:
            self._end_out_of_memory(pod)
        too_early = status.exit_code in {65, 75} and status.message.startswith(
            _TOO_EARLY if self.call.skips_too_early(self.facts) else _NOT_READY
        )
        self.release(pod, failed=not too_early)
        if status.state is State.BROKEN:
            raise _logged(AirflowFailException, f"Pod {name} of {title} cannot start: {status.message}")
        if status.state is State.OVERDUE:
            raise _logged(
                AirflowException,
                f"Pod {name} of {title} took longer than the task's execution_timeout and was ended. "
                "The next try goes on from its last checkpoint, if it wrote one.",
            )
        if too_early:
            self._wait_for_input(status.message)
        sentence = status.message or f"Pod {name} of {title} ended with exit code {status.exit_code} and said nothing."
        if status.exit_code in FAIL_FAST_EXIT_CODES:
            raise _logged(AirflowFailException, sentence)
        raise _logged(AirflowException, sentence if status.message else f"{sentence} Its log above may tell why.")

    def give_up_waiting(self, pod: V1Pod | None, message: str) -> NoReturn:
        """Fail a task for good that has waited for the cluster as long as it may."""
        self.record.stop_waiting()
        if pod is not None:
            self.release(pod)
        needs = self.needs
        gpus = f"{needs.gpu} {needs.gpu_resource}, " if needs.gpu else ""
        where = "".join(f", node label {key}={value}" for key, value in sorted(needs.node_selector.items()))
        raise _logged(
            AirflowFailException,
            f"{self.work.title}: the cluster had no place for its pod within {needs.wait_minutes} min. "
            f"It asked for {gpus}{needs.cpu:g} cpu, {self.memory} memory{where}. The cluster says: {message} "
            "Ask for less or elsewhere (compute), add room, or raise compute.wait_minutes.",
        )

    def _end_out_of_memory(self, pod: V1Pod) -> NoReturn:
        had, limit = self.memory, self.needs.memory_limit
        more = after_running_out(had, self.needs.memory_growth, limit)
        self.record.memory = more or self.record.memory
        self.release(pod, failed=True)
        if more is not None:
            raise _logged(AirflowException, f"{self.work.title} ran out of {had}; next try with {more}")
        raise _logged(
            AirflowFailException,
            f"{self.work.title} ran out of {had}, and compute.memory_limit is {limit}. "
            "Raise compute.memory_limit in the model's spec, or train on fewer rows (training.window_days).",
        )

    def _wait_for_input(self, message: str) -> NoReturn:
        call = self.call
        if call.skips_too_early(self.facts):
            raise AirflowSkipException(f"Nothing to do yet: {message}")
        message = message.removeprefix(_NOT_READY)
        waited = self.record.waited("not_ready_since")
        if waited > call.timeout.total_seconds():
            raise AirflowSensorTimeout(f"Gave up after waiting {call.timeout}. {message}")
        log.warning("Not ready: %s", message)
        raise reschedule_in(pause_after(waited, call.poke_interval))


def _logged(kind: type[AirflowException], sentence: str) -> AirflowException:
    # The sentence on a line of its own: the traceback below it is for the few.
    log.error("%s", sentence)
    return kind(sentence)
