"""What the stack is made of: each part's command, what it waits for, when it is ready.

The boot order falls out of ``needs``; whatever may start at once does. Three orders are not obvious. The API server
must have answered on ``/execution`` before a task is queued, as its first answer takes seconds and the task would fail:
the warm executor waits for it. The scheduler's process starts first of all, as importing the ML libraries takes
longest; it waits, warm, for the word that the tables are there. And on a machine of two cores these two have the cores
to themselves, so that the login page is there soon; the rest comes after it.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from windsock.errors import SpecError
from windsock.settings import Settings
from windsock_local.stack import probes
from windsock_local.stack.environment import mlflow_env, plain_env
from windsock_local.stack.home import Home
from windsock_local.stack.postgres import Postgres
from windsock_local.stack.probes import HOST

log = logging.getLogger(__name__)

POSTGRES, MIGRATION, MLFLOW = "postgres", "migration", "mlflow"
API_SERVER, SCHEDULER, DAG_PROCESSOR, TRIGGERER = "api-server", "scheduler", "dag-processor", "triggerer"


@dataclass(frozen=True)
class Part:
    """One process the supervisor starts and looks after."""

    name: str
    command: list[str]
    ready: Callable[[float], bool] = lambda _started: True
    """Asked with the part's start time (UTC seconds) until it says yes, and later on whether it still answers."""
    needs: tuple[str, ...] = ()
    """Parts that must be ready before this one starts."""
    go_after: tuple[str, ...] = ()
    """Parts that must be ready before this one, started already, is told ``go``."""
    asked_through: tuple[str, ...] = ()
    """Parts without which nobody could tell whether this one, once it was ready, still answers."""
    after: Callable[[], None] = lambda: None
    """Runs when the part has become ready."""
    one_shot: bool = False
    """Ends by itself; ready means that it exited with 0."""
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the stack's environment."""
    environment: Mapping[str, str] | None = None
    """Its whole environment, if it is no Airflow and gets nothing of the stack's."""


def module(*arguments: str) -> list[str]:
    """Return the command that runs a Python module."""
    # -P: a file in the working folder must not shadow a library.
    return [sys.executable, "-P", "-m", *arguments]


def database_parts(database: Postgres) -> list[Part]:
    """Return the server, and what makes Airflow's tables if they are not there yet."""
    server = Part(
        POSTGRES,
        database.command,
        ready=lambda _started: database.answers(),
        after=database.create_databases,
        user=database.user,
        environment=plain_env(),
        stop_signal=signal.SIGINT,  # "fast shutdown": ends sessions, writes everything out
    )
    if database.tables_of("airflow"):  # else a first start, perhaps one that was cut off
        return [server]
    migrate = module("airflow", "db", "migrate")
    noted = partial(database.note_migrated, "airflow")
    return [server, Part(MIGRATION, migrate, after=noted, needs=(POSTGRES,), one_shot=True)]


def make_parts(home: Home, database: Postgres, *, airflow_port: int, mlflow_port: int) -> list[Part]:
    """Return the parts of a stack on a prepared database."""
    airflow_url, mlflow_url = f"http://{HOST}:{airflow_port}", f"http://{HOST}:{mlflow_port}"

    def beats(part: str) -> Callable[[float], bool]:
        return lambda started: probes.beat_since(probes.airflow_health(airflow_url, timeout_seconds=1), part, started)

    def api_is_warm(_started: float) -> bool:
        return probes.answers(f"{airflow_url}/api/v2/version") and probes.answers(f"{airflow_url}/execution/health")

    def scheduler_is_warm(started: float) -> bool:
        ready_file = home.scheduler_ready_file
        return ready_file.exists() and ready_file.stat().st_mtime >= started and beats(SCHEDULER)(started)

    database_first = database_parts(database)
    with_tables, with_api = (database_first[-1].name,), (API_SERVER,)
    beating_through = (POSTGRES, API_SERVER)
    api_server = Part(
        API_SERVER,
        module("airflow", "api-server", "--host", HOST, "--port", str(airflow_port)),
        ready=api_is_warm,
        after=lambda: ensure_gpu_pool(airflow_url, home),
        needs=with_tables,
        asked_through=(POSTGRES,),
    )
    scheduler = Part(
        SCHEDULER,
        module("windsock_airflow.warm_executor"),
        ready=scheduler_is_warm,
        go_after=with_tables,
        asked_through=beating_through,
        env={
            "WINDSOCK_EXECUTOR_READY_FILE": str(home.scheduler_ready_file),
            "WINDSOCK_WAIT_FOR_EXECUTION_API": f"{airflow_url}/execution/health",
        },
    )
    mlflow = Part(
        MLFLOW,
        module("windsock_mlflow.server", "--host", HOST, "--port", str(mlflow_port)),
        ready=lambda _started: probes.answers(f"{mlflow_url}/health"),
        after=partial(database.note_migrated, "mlflow"),  # it has made its tables
        needs=with_api,
        asked_through=(POSTGRES,),
        environment=mlflow_env(home, database_url=database.url("mlflow"), airflow_url=airflow_url, port=mlflow_port),
    )
    others = {DAG_PROCESSOR: ("dag-processor",), TRIGGERER: ("triggerer", "--skip-serve-logs")}
    beating = [
        Part(name, module("airflow", *command), ready=beats(name), needs=with_api, asked_through=beating_through)
        for name, command in others.items()
    ]
    return [*database_first, api_server, scheduler, mlflow, *beating]


def ensure_gpu_pool(airflow_url: str, home: Home, environ: Mapping[str, str] = os.environ) -> None:
    """Make the pool that keeps Airflow from starting more GPU steps on Kubernetes at a time than there are GPUs.

    Its slots are ``WINDSOCK_GPUS``, else 1; a pool that is there keeps its own unless ``WINDSOCK_GPUS`` says otherwise.

    Raises:
        SpecError: ``WINDSOCK_GPUS`` is no number.
    """
    settings = Settings.from_env(dict(environ))
    if settings.compute != "kubernetes":
        return
    given = environ.get("WINDSOCK_GPUS", "")
    if given and not given.isdecimal():
        raise SpecError(f"WINDSOCK_GPUS is the number of GPUs that steps may use at a time; given: {given!r}.")
    from windsock.compute import SiteCompute, load_site
    from windsock_local.stack.airflow_api import AirflowApi
    from windsock_local.stack.airflow_session import AirflowRefused

    try:
        name = load_site(settings).pool
    except SpecError as err:
        log.warning("%s", err)
        name = SiteCompute().pool
    body = {
        "name": name,
        "slots": int(given or 1),
        "description": "GPUs of the cluster; a step takes as many slots as it asks for GPUs.",
        "include_deferred": True,  # a deferred step's pod goes on holding its GPUs
    }
    with AirflowApi(airflow_url, home.admin_password()) as api:
        try:
            api.call("POST", "pools", body)
        except AirflowRefused as err:
            if err.status != 409:
                raise
            if given:
                api.call("PATCH", f"pools/{name}", {**body, "pool": name})
