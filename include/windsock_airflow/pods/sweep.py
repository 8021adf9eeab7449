"""Whether anybody still waits for a pod, and deleting those for which nobody does.

A task that waits (rescheduled or deferred) has no process that could delete its pod when somebody marks, clears or
deletes it. So a thread of the scheduler (``plugins/windsock_pods.py`` starts it) looks every few seconds at this
installation's pods, asks Airflow's execution API for the states of their tasks, as a task would, and deletes the pods
of those that are over or gone. The top of this module is imported by every task: nothing heavy may stand there.
"""

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from airflow.listeners import hookimpl

from windsock.compute import load_site
from windsock.settings import Settings
from windsock.spec import load_specs
from windsock.spec.operations import ComputeSpec
from windsock_airflow.pods.identity import (
    ABOUT_NAME,
    INSTALLATION_LABEL,
    KEPT_LABEL,
    NAME_VARIABLE,
    PREFIX,
    installation_of,
    new_name,
)
from windsock_airflow.runs import enum_text
from windsock_airflow.scheduler_threads import Looks, execution_client, in_scheduler, start_thread

log = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task in which nobody waits for its pod."""

States = Mapping[str, Mapping[str, Any]]
"""Of the task instances of one DAG, by run and task, as Airflow's execution API gives them."""


def still_wanted(states: States, run_id: str, task_id: str, map_index: int) -> bool:
    """Say whether a task instance is still to be done; one that was deleted is not."""
    of_run, name = states.get(run_id) or {}, task_id if map_index < 0 else f"{task_id}_{map_index}"
    return name in of_run and enum_text(of_run[name]) not in _OVER


def is_wanted(context: Any) -> bool | None:
    """Ask from within a task's process whether it is still to be done; None if that cannot be told.

    A task whose process was taken for dead is wanted, as its next try goes on with the pod. One that was cleared while
    it ran (``restarting``) gets a new pod, and this one is not.
    """
    ti = context["ti"]
    index = -1 if ti.map_index is None else ti.map_index
    try:
        states = ti.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=index if index >= 0 else None
        )
    except Exception as err:
        log.warning("Airflow could not be asked whether this task is still wanted: %s", err)
        return None
    restarting = "restarting" in map(enum_text, states.get(ti.run_id, {}).values())
    return not restarting and still_wanted(states, ti.run_id, ti.task_id, index)


@hookimpl
def on_starting(component: Any) -> None:
    """Start the thread if this process is a scheduler and any step may run in a pod."""
    if not in_scheduler(component):
        return
    settings = Settings.from_env()
    if settings.compute != "kubernetes" and all(c.backend != "kubernetes" for c in _compute_specs(settings)):
        return
    # Imported by this thread: forks must not meet the other one in the middle of an import.
    import airflow.executors.base_executor
    import airflow.providers.cncf.kubernetes.hooks.kubernetes
    import airflow.sdk.api.client  # noqa: F401

    start_thread("windsock-pods", _sweep_for_ever, settings, _name_of_airflow())


def _name_of_airflow() -> str:
    """Return the name of this scheduler's Airflow, made in its database if it has none: several agree on one."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy.exc import IntegrityError

    if (name := Variable.get(NAME_VARIABLE, default_var=None)) is None:
        with contextlib.suppress(IntegrityError), create_session() as session:  # another scheduler was faster
            session.add(
                Variable(key=NAME_VARIABLE, val=new_name(), description=ABOUT_NAME)  # type: ignore[no-untyped-call]
            )
        name = Variable.get(NAME_VARIABLE)
    return str(name)


def _compute_specs(settings: Settings) -> list[ComputeSpec]:
    return [e.compute for spec in load_specs(settings)[0].values() for e in spec.training.estimators]


def unwanted(pods: Iterable[Any], states: Mapping[str, States]) -> list[Any]:
    """Return the pods whose task instance is over or gone by its DAG's ``states``, and which nobody is deleting yet."""
    return [
        pod
        for pod in pods
        if pod.metadata.deletion_timestamp is None
        and (owner := owner_of(pod)) is not None
        and not still_wanted(states[owner[0]], *owner[1:])
    ]


def owner_of(pod: Any) -> tuple[str, str, str, int] | None:
    """Return DAG, run, task and map index of the task instance that a pod is of; None if it does not say."""
    annotations = pod.metadata.annotations or {}
    try:
        dag, run, task, index = (annotations[f"{PREFIX}{n}"] for n in ("dag-id", "run-id", "task-id", "map-index"))
        return dag, run, task, int(index)
    except (KeyError, ValueError):
        return None


def sweep(settings: Settings, client: Any, airflow: str) -> None:
    """Look once, in every namespace that pods of this installation may be in; ``airflow`` is the name of this one."""
    from windsock_airflow.pods import cluster

    site = load_site(settings)
    selector = f"{INSTALLATION_LABEL}={installation_of(settings, site, airflow)},!{KEPT_LABEL}"
    for namespace in sorted({site.namespace, *(c.namespace or site.namespace for c in _compute_specs(settings))}):
        pods = client.list_namespaced_pod(namespace=namespace, label_selector=selector).items
        for pod in unwanted(pods, _states_of_owners(pods)):
            log.warning("Deleting pod %s/%s: its task is over or gone.", namespace, pod.metadata.name)
            cluster.delete_pod(client, pod)


def _states_of_owners(pods: Iterable[Any]) -> dict[str, States]:
    """Ask Airflow's execution API for the states of the tasks that pods are of."""
    runs: dict[str, set[str]] = defaultdict(set)
    for pod in pods:
        if (owner := owner_of(pod)) is not None:
            runs[owner[0]].add(owner[1])
    if not runs:
        return {}
    with execution_client() as client:
        return {
            dag: client.task_instances.get_task_states(dag_id=dag, run_ids=sorted(ids)).task_states
            for dag, ids in runs.items()
        }


def _sweep_for_ever(settings: Settings, airflow: str) -> None:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    client, looks = None, Looks(log, "Pods could not be looked after")
    while True:
        time.sleep(SWEEP_SECONDS)
        with looks.look():  # a cluster or an Airflow that is away, a faulty site file
            if client is None:
                client = KubernetesHook(conn_id=load_site(settings).kubernetes_conn_id).core_v1_client
            sweep(settings, client, airflow)
        if looks.trouble:
            client = None
            time.sleep(SWEEP_SECONDS)
