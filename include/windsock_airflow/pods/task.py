"""One task instance and its pod: what to run, what is known, and the pod itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context
from kubernetes.client import CoreV1Api, V1Pod

from windsock.compute.memory import in_bytes
from windsock.compute.needs import PodNeeds, check_store_is_mounted, needs_of
from windsock.compute.site import load_site
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.store import Store
from windsock_airflow.pods import cluster
from windsock_airflow.pods.identity import (
    INSTALLATION_LABEL,
    PART_OF,
    PREFIX,
    SETTLED_LABEL,
    TASK_LABEL,
    TaskIdentity,
    label_value,
)
from windsock_airflow.pods.manifest import pod_manifest
from windsock_airflow.pods.record import PodRecord
from windsock_airflow.pods.verdict import OVER, State, has_ended, judge
from windsock_airflow.pods.work import StepWork, TrainerWork, Work
from windsock_airflow.runs import RunFacts

if TYPE_CHECKING:
    from windsock_airflow.pods.operator import PodStepOperator

log = logging.getLogger(__name__)

_NUMBER = f"{PREFIX}number"


@dataclass
class PodTask:
    """Everything about one task instance that runs in a pod."""

    operator: PodStepOperator
    context: Context
    facts: RunFacts
    identity: TaskIdentity
    needs: PodNeeds
    work: Work
    record: PodRecord
    labels: dict[str, str]

    @classmethod
    def of(cls, operator: PodStepOperator, context: Context) -> PodTask:
        """Read site, spec and record, and set the operator up for them.

        Raises:
            SpecError: Site or spec are faulty, or do not fit each other.
        """
        facts = operator.facts_of(context)
        settings = Settings.from_env()
        site, spec = load_site(settings), get_spec(settings, operator.model)
        identity, options = TaskIdentity.of(context, settings), operator._options(facts, context)
        work: Work
        if operator.step == "fit":
            estimator = spec.training.estimator(operator.estimator or options.get("estimator"))
            needs = needs_of(spec, estimator, site)
            work = TrainerWork(settings, spec, estimator, needs, options)
        else:
            needs = needs_of(spec, None, site)
            work = StepWork(
                settings,
                spec,
                operator.step,
                key=facts.key,
                live=facts.live,
                origin=facts.run_id,
                options=options,
                task=identity.digest,
            )
        check_store_is_mounted(Store.of(settings), needs)
        labels = {
            PART_OF: "windsock",
            f"{PREFIX}team": label_value(spec.owner),
            f"{PREFIX}model": label_value(spec.name),
            f"{PREFIX}run": label_value(str(options.get("run") or facts.run_id)),
            f"{PREFIX}step": label_value(operator.step),
            INSTALLATION_LABEL: identity.installation,
            TASK_LABEL: identity.digest,
        }
        operator.kubernetes_conn_id = needs.kubernetes_conn_id
        operator.termination_grace_period = needs.termination_grace_seconds
        return cls(operator, context, facts, identity, needs, work, PodRecord.of(context), labels)

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
        return grown if in_bytes(grown) <= in_bytes(self.needs.memory_limit) else self.needs.memory_limit

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
        while True:
            pod = cluster.create_pod(self.client, self.manifest())
            if SETTLED_LABEL not in pod.metadata.labels:
                break
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
        """
        from windsock_airflow.pods.outcome import interrupted

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
            if pod is not None and pod.metadata.deletion_timestamp is not None and judge(pod).state not in OVER:
                return pod
        if current is None:
            if self.record.made:
                interrupted(self, None, "it was deleted")
            return None
        if self.record.cleared and judge(current).state is State.QUEUED:
            log.info("The task was cleared while its pod waited: a new one takes its place.")
            self.drop(current)
            return None
        return current

    def result(self, pod: V1Pod) -> dict[str, Any]:
        """Return the result of a pod that ended well; one without a result is done with.

        Raises:
            DataContractError: It left none, or a wrong one.
        """
        from windsock.errors import DataContractError

        try:
            return self.work.result()
        except DataContractError:
            self.drop(pod, failed=True)
            raise

    def drop(self, pod: V1Pod, *, failed: bool = False) -> None:
        """Be done with a pod: delete it, or keep it to be looked at if the site wants that of failed ones.

        A pod that runs, or that would once its image or secret is there, is never kept.
        """
        self.record.next_pod()
        if failed and self.needs.keep_failed_pods and has_ended(pod):
            cluster.settle_pod(self.client, pod)
        else:
            cluster.delete_pod(self.client, pod)
