"""A local executor whose workers have the ML libraries in memory before the first task.

Airflow forks its workers from the scheduler and its tasks from the workers: what the scheduler has imported costs a
task nothing, tenths of a second instead of ten or more. The price: code imported here is frozen until the scheduler
restarts, Windsock's own step code included (after editing it, ``windsock down && windsock up``); DAG files and specs
are read afresh for each task.

Nothing may be *used* here, only imported: threads that a library starts do not survive a fork, and what they held would
stay locked.
"""

import contextlib
import gc
import importlib
import inspect
import logging
import os
import pkgutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from airflow import __version__ as airflow_version
from airflow.executors.local_executor import LocalExecutor
from airflow.sdk.execution_time.supervisor import WatchedSubprocess
from airflow.sdk.listener import get_listener_manager
from airflow.utils.state import TaskInstanceState

import windsock
import windsock_airflow
from windsock.featurestore.repo import import_feast
from windsock_airflow.bell import BELL_VARIABLE, Bell

log = logging.getLogger(__name__)

MODULES_VARIABLE = "WINDSOCK_WARM_MODULES"
"""Comma-separated modules to import instead of :data:`WARM_MODULES`; empty: none at all."""
READY_FILE_VARIABLE = "WINDSOCK_EXECUTOR_READY_FILE"
WAIT_FOR_VARIABLE = "WINDSOCK_WAIT_FOR_EXECUTION_API"

WARM_MODULES: tuple[str, ...] = (
    # the ML stack
    "pandas",
    "pyarrow.parquet",
    "pyarrow.dataset",
    "duckdb",
    "sklearn.metrics",
    "lightgbm",
    "optuna",
    "mlflow",
    "mlflow.lightgbm",
    "feast",
    "great_expectations",
    "evidently",
    # what each task's process would import for itself, and neither windsock_airflow nor the scheduler does
    "airflow.sdk.execution_time.task_mapping",
    "airflow.sdk.execution_time.timeout",
    "airflow.sdk.definitions.retry_policy",
    "airflow.sdk.definitions.decorators",
    "airflow.sdk.definitions.connection",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk._shared.logging.factory",
    "airflow.version",
    "jinja2.ext",
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.dagbag",
    "airflow.providers.standard.operators.empty",
)
_NOT_WARMED = ("windsock.cli",)  # no step code: commands run elsewhere
_PODS = "windsock_airflow.pods."  # bring the Kubernetes client; a laptop does without
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_PAUSE_PER_QUIET = 0.1
"""Without a ring the scheduler pauses for a tenth of the time since the last event: what one look starts may need
another soon, and what waits for a time to come is never found later than by a tenth of its wait."""
_SLOT_HOLD_SECONDS = 0.01
_ENDS = (TaskInstanceState.SUCCESS, TaskInstanceState.FAILED)
_API_WAIT_SECONDS = 120.0


class WarmLocalExecutor(LocalExecutor):
    """Airflow's local executor, with everything imported before it forks, and a bell that ends a wait."""

    _bell: Bell | None = None
    _handed_over = False
    _last_event = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._in_hand: Counter[Any] = Counter()
        """Tries to how many of their processes a worker has been given and has not reported the end of."""

    def start(self) -> None:
        """Import, wait until tasks can report back, then fork the workers."""
        warm_up()
        shorten_slot_hold()
        get_listener_manager()  # loads the plugins, as each task's process would
        _wait_for_execution_api()
        super().start()
        gc.freeze()  # half a million objects that never go away: no collection need look at them again
        if path := os.environ.get(BELL_VARIABLE):
            self._bell = Bell(Path(path))
        if ready_file := os.environ.get(READY_FILE_VARIABLE):
            Path(ready_file).write_text(str(os.getpid()), encoding="utf-8")

    def sync(self) -> None:
        """Take results from the workers; the scheduler's pause between two looks is spent here.

        It ends with a result or a ring. After a look that gave work away there is none, as with Airflow's own pause.
        """
        if self._handed_over:
            self._last_event = time.monotonic()
        elif self._bell is not None:
            quiet = time.monotonic() - self._last_event
            pause = min(max(_PAUSE_PER_QUIET * quiet, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            if self._bell.wait(pause, self.result_queue._reader):  # type: ignore[attr-defined]
                self._last_event = time.monotonic()
        self._handed_over = False
        super().sync()

    def _process_workloads(self, workload_list: Any) -> None:
        self._handed_over = True
        self._in_hand.update(workload.key for workload in workload_list)
        super()._process_workloads(workload_list)  # type: ignore[no-untyped-call]

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """Report the end of a task's process, unless another one of the same try has been given to a worker since.

        A task that waits is queued again with the try that it had, on a busy machine before its process has been seen
        to end. The scheduler takes that end for the end of the new one, which has settled nothing yet: for a task that
        was killed. Three of these, and a task that only waited has failed.
        """
        if state in _ENDS:
            self._in_hand[key] -= 1
            if self._in_hand[key] > 0:
                log.info("An earlier process of %s has ended; the task is in hand again.", key)
                return
            del self._in_hand[key]
        super().change_state(key, state, info, remove_running)

    def _check_workers(self) -> None:
        if not all(worker.is_alive() for worker in self.workers.values()):
            self._in_hand.clear()  # nobody will report what a dead worker had in hand
        super()._check_workers()  # type: ignore[no-untyped-call]


def warm_up() -> list[str]:
    """Import what tasks need, and return what cannot be imported: only a warning, the task that needs it says more."""
    started = time.monotonic()
    failed = []
    gc.disable()  # what an import makes stays: to look for garbage in it is a tenth of the time
    for name in _modules():
        try:
            import_feast() if name == "feast" else importlib.import_module(name)
        except Exception as err:
            failed.append(name)
            log.warning("Cannot import %s before forking: %s: %s", name, type(err).__name__, err)
    gc.enable()
    log.info("Warmed up in %.1f s", time.monotonic() - started)
    return failed


def shorten_slot_hold() -> bool:
    """Give a worker back within 10 ms, not a second, after its task's process has closed; says if that is in place.

    Airflow's supervisor waits up to a heartbeat for an event that cannot come once all of the task's sockets are
    closed. The method is private: it is wrapped only if it looks as in the version this was measured with
    (docs/adr/0011).
    """
    original = WatchedSubprocess._service_subprocess
    if getattr(original, "_windsock_wrapped", False):
        return True
    if (
        not airflow_version.startswith("3.3.")
        or list(inspect.signature(original).parameters)[:2] != ["self", "max_wait_time"]
        or "_open_sockets" not in {attribute.name for attribute in WatchedSubprocess.__attrs_attrs__}
    ):
        log.info("This Airflow's task supervisor is not one we know: tasks keep their slot a little longer.")
        return False

    def service_subprocess(self: WatchedSubprocess, max_wait_time: float, *args: Any, **kwargs: Any) -> Any:
        if not self._open_sockets:
            max_wait_time = min(max_wait_time, _SLOT_HOLD_SECONDS)
        return original(self, max_wait_time, *args, **kwargs)

    service_subprocess._windsock_wrapped = True  # type: ignore[attr-defined]
    WatchedSubprocess._service_subprocess = service_subprocess  # type: ignore[method-assign]
    return True


def main() -> None:
    """Be the embedded stack's scheduler: import while the tables are made, wait for a line on stdin, then schedule."""
    from airflow.__main__ import main as airflow_main
    from airflow.cli.commands import scheduler_command  # noqa: F401  # loaded now, not after the word

    warm_up()
    if not sys.stdin.readline():
        sys.exit("Nobody is there to say when the database is ready: not started by `windsock up`?")
    # The log server would listen on every interface; the UI reads local files instead.
    sys.argv = ["airflow", "scheduler", "--skip-serve-logs"]
    airflow_main()  # type: ignore[no-untyped-call]


def _modules() -> list[str]:
    listed = os.environ.get(MODULES_VARIABLE)
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip()]
    left_out = _NOT_WARMED if os.environ.get("WINDSOCK_COMPUTE") == "kubernetes" else (*_NOT_WARMED, _PODS)
    own = [
        found.name
        for package in (windsock, windsock_airflow)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return [*WARM_MODULES, *(name for name in own if not name.startswith(left_out))]


def _wait_for_execution_api() -> None:
    """Block until the API server has given its first answer, which takes seconds: a task that asks first fails."""
    url = os.environ.get(WAIT_FOR_VARIABLE)
    deadline = time.monotonic() + _API_WAIT_SECONDS
    while url:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=10, trust_env=False).is_success:
                return
        if time.monotonic() > deadline:
            log.warning("%s did not answer for %.0f s; starting workers all the same.", url, _API_WAIT_SECONDS)
            return
        time.sleep(0.2)


if __name__ == "__main__":
    main()
