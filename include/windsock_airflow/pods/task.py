"""One task instance and its pod: what to run, what is known, and the pod itself."""

import logging
from collections.abc import Mapping
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException
from kubernetes.client import CoreV1Api, V1Pod

from windsock.compute.memory import in_bytes
from windsock.compute.needs import check_store_is_mounted, needs_of
from windsock.compute.site import load_site
from windsock.errors import DataContractError
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.store import Store
from windsock_airflow.pods import cluster
from windsock_airflow.pods.identity import KEPT_LABEL, PREFIX, TaskIdentity, installation_of
from windsock_airflow.pods.manifest import pod_manifest
from windsock_airflow.pods.record import PodRecord
from windsock_airflow.pods.status import OVER, State, has_ended, status_of
from windsock_airflow.pods.work import StepWork, TrainerWork, Work
from windsock_airflow.step_call import StepCall

log = logging.getLogger(__name__)

MOST_INTERRUPTIONS = 10
"""Pods that one try may lose through no fault of theirs; then it counts as a failed try."""
_NUMBER = f"{PREFIX}number"


class PodTask:
    """Everything about one task instance that runs in a pod.

    Made, it has read site, spec and record, and has set the operator up for them. Without an ``estimator``, ``fit``
    trains the one of the option of that name, or the only one.

    Raises:
        SpecError: Site or spec are faulty, or do not fit each other.
    """

    def __init__(
        self,
        operator: KubernetesPodOperator,
        call: StepCall,
        own_options: Mapping[str, Any],
        context: Context,
        estimator: str | None = None,
    ) -> None:
        self.operator, self.call, self.context = operator, call, context
        self.facts = call.run_facts(context)
        settings = Settings.from_env()
        site, spec = load_site(settings), get_spec(settings, call.model)
        self.identity = TaskIdentity.of(context, installation_of(settings, site))
        self.record = PodRecord.of(context)
        options = call.step_options(self.facts, context, own_options)
        self.work: Work
        if call.step == "fit":
            trained = spec.training.estimator(estimator or options.get("estimator"))
            self.needs = needs_of(spec, trained, site)
            self.work = TrainerWork(settings, spec, trained, self.needs, options)
        else:
            self.needs = needs_of(spec, None, site)
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
            deadline_seconds=int(timeout.total_seconds()) if timeout is not None else None,
        )
        return self.operator.build_pod_request_obj(self.context)

    def make(self) -> V1Pod:
        """Make the pod of the record's number, or take the one of its name that exists.

        Raises:
            QuotaExceeded: There is no room for it now.
            PodRefused: There will never be.
        """
        self.work.prepare()
        while KEPT_LABEL in (pod := cluster.create_pod(self.client, self.manifest())).metadata.labels:
            self.record.number += 1  # a failed pod that was kept has this name
        self.record.made, self.record.namespace = True, pod.metadata.namespace
        self.record.save()
        ti = self.context["ti"]
        ti.xcom_push(key="pod_name", value=pod.metadata.name)
        ti.xcom_push(key="pod_namespace", value=pod.metadata.namespace)
        return pod

    def find(self) -> V1Pod | None:
        """Return this task's pod, whoever made it; None if one is to be made.

        A pod that is done with but not yet gone is returned too: there is never a second one beside it.

        Raises:
            AirflowException: The pod was lost, and so were too many before it.
        """
        namespace = (self.record.made and self.record.namespace) or self.needs.namespace
        current = None
        for pod in cluster.pods_of(self.client, namespace, self.identity.digest):
            number = int((pod.metadata.annotations or {}).get(_NUMBER, 0))
            if number >= self.record.number:
                if current is None:
                    current, self.record.number, self.record.made = pod, number, True
                continue
            if pod.metadata.deletion_timestamp is None:
                cluster.delete_pod(self.client, pod)
                pod = cluster.read_pod(self.client, pod.metadata.name, namespace)
            if pod is not None and pod.metadata.deletion_timestamp is not None and status_of(pod).state not in OVER:
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

    def replace_lost(self, pod: V1Pod | None, reason: str) -> None:
        """Note a pod that was lost through no fault of its own; a new one takes over at once.

        Raises:
            AirflowException: Too many were lost; this counts as a failed try.
        """
        name = self.identity.pod_name(self.work.title, self.record.number)
        self.record.interruptions += 1
        if pod is None:
            self.record.next_pod()
        else:
            self.release(pod)
        count = self.record.interruptions
        if count > MOST_INTERRUPTIONS:
            sentence = f"{self.work.title} lost {count} pods in one try, the last ({name}) because {reason}."
            log.error("%s", sentence)
            raise AirflowException(sentence)
        more = f"lost so far: {count} of at most {MOST_INTERRUPTIONS}"
        log.warning("Pod %s was lost: %s. A new one goes on from the last checkpoint (%s).", name, reason, more)

    def result(self, pod: V1Pod) -> dict[str, Any]:
        """Return the result of a pod that ended well; one without a result is done with.

        Raises:
            DataContractError: It left none, or a wrong one.
        """
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
