"""What the threads share that look after something in Airflow's scheduler: when they may begin, and whom they ask."""

import os
import time
import uuid
from pathlib import Path
from typing import Any

_FORKED_VARIABLE = "WINDSOCK_EXECUTOR_READY_FILE"
_LONGEST_FORK_S = 300.0


def wait_for_forks() -> None:
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
