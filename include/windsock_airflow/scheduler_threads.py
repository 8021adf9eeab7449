"""What the threads share that look after something in Airflow's scheduler.

When they may begin, whom they ask, and how they report that a look failed. Every task imports this: nothing heavy may
stand at the top.
"""

import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FORKED_VARIABLE = "WINDSOCK_EXECUTOR_READY_FILE"
_LONGEST_FORK_S = 300.0


def in_scheduler(component: Any) -> bool:
    """Say whether what starts is an Airflow scheduler; a task's process, forked from one, has its command line, too."""
    if sys.argv[1:2] != ["scheduler"]:
        return False
    from airflow.sdk.execution_time.task_runner import TaskRunnerMarker

    return not isinstance(component, TaskRunnerMarker)


def start_thread(name: str, target: Callable[..., None], *arguments: Any) -> None:
    """Start a thread that calls ``target`` once the executor has forked its workers, and ends with the process."""

    def run() -> None:
        _wait_for_forks()
        target(*arguments)

    threading.Thread(target=run, name=name, daemon=True).start()


class Looks:
    """Looks at something again and again, of which each may fail: a trouble is logged once, not at every look."""

    def __init__(self, log: logging.Logger, failing: str) -> None:
        self._log = log
        self._failing = failing
        self.trouble = ""
        """Of the last look; empty if it went well."""

    @contextmanager
    def look(self) -> Iterator[None]:
        """Take whatever is raised within for the look's trouble."""
        try:
            yield
        except Exception as err:
            sentence = f"{type(err).__name__}: {str(err)[:1000]}"
            if sentence != self.trouble:
                self._log.warning("%s: %s", self._failing, sentence)
            self.trouble = sentence
        else:
            self.trouble = ""


def _wait_for_forks() -> None:
    """Wait until the embedded stack's executor has forked its workers: forks and busy threads do not mix."""
    file, started = os.environ.get(_FORKED_VARIABLE), time.time()
    while file and time.time() - started < _LONGEST_FORK_S:
        if Path(file).exists() and Path(file).stat().st_mtime >= started:
            return
        time.sleep(1)


def execution_client() -> Any:
    """Return a client of Airflow's execution API, a context manager, with a token as an executor gives a task."""
    from airflow.executors.base_executor import BaseExecutor, get_execution_api_server_url
    from airflow.sdk.api.client import Client

    # The name stands for no task, as none is to be changed.
    token = BaseExecutor(parallelism=1).jwt_generator.generate({"sub": str(uuid.uuid4()), "scope": "execution"})
    return Client(base_url=get_execution_api_server_url(), token=token)
