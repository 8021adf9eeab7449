"""Delete pods that nobody waits for, and fail tasks that wait for GPUs the pool does not have.

A task that waits (rescheduled or deferred) has no process that could delete its pod when
somebody marks, clears or deletes it. So a thread of the scheduler looks every few seconds
at this installation's pods, asks the database for their task instances, and deletes the
pods of those that are over or gone. It finds nothing to do when all goes well.

``plugins/windsock_pods.py`` starts it, in schedulers only. The top of this module is
imported by every task: nothing heavy may stand there.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from windsock.compute import SiteCompute, load_site
from windsock.errors import WindsockError
from windsock.settings import Settings
from windsock.spec import load_specs

log = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_FORKED_VARIABLE = "WINDSOCK_EXECUTOR_READY_FILE"
_LONGEST_FORK_S = 300.0

Key = tuple[str, str, str, int]
"""DAG, run, task, map index."""


def start_in_scheduler() -> threading.Thread | None:
    """Start the thread if this process is a scheduler and any step may run in a pod."""
    if sys.argv[1:2] != ["scheduler"]:
        return None
    settings = Settings.from_env()
    if not pods_are_used(settings):
        return None
    # Imported by this thread: forks must not meet the other one in the middle of an import.
    import airflow.providers.cncf.kubernetes.hooks.kubernetes  # noqa: F401

    thread = threading.Thread(target=_sweep_for_ever, args=(settings,), name="windsock-pods", daemon=True)
    thread.start()
    return thread


def pods_are_used(settings: Settings) -> bool:
    """Say whether the installation or any model runs steps in pods."""
    if settings.compute == "kubernetes":
        return True
    specs = load_specs(settings)[0].values()
    return any(e.compute.backend == "kubernetes" for spec in specs for e in spec.training.estimators)


def namespaces(settings: Settings, site: SiteCompute) -> set[str]:
    """Return every namespace that pods of this installation may be in."""
    specs = load_specs(settings)[0].values()
    return {site.namespace, *(e.compute.namespace or site.namespace for s in specs for e in s.training.estimators)}


def unwanted(pods: Iterable[Any], states: dict[Key, str | None]) -> list[Any]:
    """Return the pods whose task instance is over or gone, and which nobody is deleting yet.

    Args:
        pods: Kubernetes' own; what is none of ours is left alone.
        states: The states of the task instances that exist.
    """
    found = []
    for pod in pods:
        key = key_of(pod)
        if key is None or pod.metadata.deletion_timestamp is not None:
            continue
        if key not in states or states[key] in _OVER:
            found.append(pod)
    return found


def key_of(pod: Any) -> Key | None:
    """Return whose a pod is; None if it does not say."""
    from windsock_airflow.pods.identity import PREFIX

    said = pod.metadata.annotations or {}
    try:
        names = (said[f"{PREFIX}dag-id"], said[f"{PREFIX}run-id"], said[f"{PREFIX}task-id"])
        return (*names, int(said[f"{PREFIX}map-index"]))
    except (KeyError, ValueError):
        return None


def sweep(settings: Settings, client: Any) -> int:
    """Look once; returns how many pods were deleted."""
    from windsock_airflow.pods import cluster
    from windsock_airflow.pods.identity import INSTALLATION_LABEL, SETTLED_LABEL, installation_of

    site, deleted = load_site(settings), 0
    selector = f"{INSTALLATION_LABEL}={installation_of(settings)},!{SETTLED_LABEL}"
    for namespace in sorted(namespaces(settings, site)):
        pods = client.list_namespaced_pod(namespace=namespace, label_selector=selector).items
        for pod in unwanted(pods, _states({key for pod in pods if (key := key_of(pod)) is not None})):
            log.warning("Deleting pod %s/%s: its task is over or gone.", namespace, pod.metadata.name)
            cluster.delete_pod(client, pod)
            deleted += 1
    return deleted


def fail_what_never_fits(pool_name: str) -> int:
    """Fail the tasks that ask for more GPUs than their pool has: Airflow would wait for ever, and say nothing.

    Returns:
        How many were failed.
    """
    from airflow.models.log import Log
    from airflow.models.pool import Pool
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    failed = 0
    with create_session() as session:
        pool = session.scalar(select(Pool).where(Pool.pool == pool_name))
        slots = pool.slots if pool is not None else 0
        if slots == -1:
            return 0
        waiting = select(TaskInstance).where(
            TaskInstance.state == TaskInstanceState.SCHEDULED,
            TaskInstance.pool == pool_name,
            TaskInstance.pool_slots > slots,
        )
        for ti in session.scalars(waiting):
            there = f"has {slots}" if pool is not None else "does not exist"
            sentence = (
                f"{ti.dag_id}.{ti.task_id} asks for {ti.pool_slots} GPUs, but Airflow's pool {pool_name!r} {there}: it "
                f"would wait for ever. Ask for fewer (compute.gpu), or set the pool to the cluster's number of GPUs: "
                f"airflow pools set {pool_name} <GPUs> 'GPUs of the cluster'."
            )
            log.error("%s", sentence)
            ti.set_state(TaskInstanceState.FAILED, session=session)
            session.add(Log(event="more GPUs than the pool has", task_instance=ti.key, extra=sentence))
            _tell(ti, sentence, session)
            failed += 1
    return failed


def _tell(ti: Any, sentence: str, session: Any) -> None:
    """Have the task's failure callback run in the DAG processor, as for a task that lost its process."""
    from airflow.api_fastapi.execution_api.datamodels.taskinstance import DagRun, TIRunContext
    from airflow.callbacks.callback_requests import TaskCallbackRequest
    from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
    from airflow.utils.state import TaskInstanceState

    version = ti.dag_version
    request = TaskCallbackRequest(
        filepath=ti.dag_model.relative_fileloc or "",
        bundle_name=version.bundle_name if version is not None else ti.dag_model.bundle_name,
        bundle_version=ti.dag_run.bundle_version,
        ti=ti,
        msg=sentence,
        task_callback_type=TaskInstanceState.FAILED,
        context_from_server=TIRunContext(
            dag_run=DagRun.model_validate(ti.dag_run, from_attributes=True),
            max_tries=ti.max_tries,
            variables=[],
            connections=[],
            xcom_keys_to_clear=[],
        ),
    )
    DatabaseCallbackSink().send(callback=request, session=session)


def _states(keys: set[Key]) -> dict[Key, str | None]:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    if not keys:
        return {}
    columns = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    runs = {run for _, run, _, _ in keys}
    with create_session() as session:
        rows = session.execute(select(*columns, TaskInstance.state).where(TaskInstance.run_id.in_(runs))).all()
    return {(d, r, t, m): (str(getattr(s, "value", s)) if s is not None else None) for d, r, t, m, s in rows}


def _sweep_for_ever(settings: Settings) -> None:
    _wait_for_forks()
    client, pool, said = None, SiteCompute().pool, ""
    while True:
        time.sleep(SWEEP_SECONDS)
        try:
            if client is None:
                from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

                site = load_site(settings)
                pool, client = site.pool, KubernetesHook(conn_id=site.kubernetes_conn_id).core_v1_client
            fail_what_never_fits(pool)
            sweep(settings, client)
            said = ""
        except Exception as err:
            # A cluster that is away, a faulty site file: said once, and looked at again.
            client, sentence = (
                None,
                f"{type(err).__name__}: {err if isinstance(err, WindsockError) else str(err)[:300]}",
            )
            if sentence != said:
                log.warning("Pods could not be looked after: %s", sentence)
            said = sentence
            time.sleep(SWEEP_SECONDS)


def _wait_for_forks() -> None:
    """Wait until the embedded stack's executor has forked its workers: forks and busy threads do not mix."""
    file, started = os.environ.get(_FORKED_VARIABLE), time.time()
    while file and time.time() - started < _LONGEST_FORK_S:
        try:
            if Path(file).stat().st_mtime >= started:
                return
        except OSError:
            pass
        time.sleep(1)
