"""``up`` and ``down``: one stack a home, found if it runs, cleared away if it died."""

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from windsock.errors import SpecError, UpstreamUnavailable
from windsock.settings import Settings
from windsock_local.stack import credentials, logs, ports, state
from windsock_local.stack.airflow_config import airflow_variables, ignored_variables
from windsock_local.stack.ending import database_processes, end_leftovers
from windsock_local.stack.environment import folder_setting, installation_env, part_env
from windsock_local.stack.layout import MARKER, Home, refuse_unsafe_home
from windsock_local.stack.parts import make_parts
from windsock_local.stack.postgres import Postgres
from windsock_local.stack.processes import end, family
from windsock_local.stack.spec_watch import SpecWatch
from windsock_local.stack.state import SUPERVISOR, StackInfo, read_stack
from windsock_local.stack.supervisor import BOOT_SECONDS, Supervisor

log = logging.getLogger(__name__)

_STOP_SECONDS = 45.0
_TURN_SECONDS = 0.2

WIPED = (
    *("postgres", "airflow", "mlflow-artifacts", "mlflow.db", "secrets", "logs", "run", "store", "feast", "demo"),
    "great_expectations",
    *("demo.json", MARKER),
)
"""What `down --wipe` removes from a home: all that Windsock makes there, nothing else."""


class AlreadyRunning(Exception):
    """Not a failure: the stack that was asked for runs already."""

    def __init__(self, info: StackInfo) -> None:
        super().__init__(info.airflow_url)
        self.info = info


@contextmanager
def held(home: Home) -> Iterator[bool]:
    """Hold the home's lock for the block; yields whether it was free."""
    with home.lock_file.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


class Watcher(Protocol):
    """Whoever wants to hear how a boot goes."""

    def start(self, info: StackInfo, remarks: list[str]) -> None:
        """Nothing has been started yet; ``remarks`` are for the user."""

    def part(self, name: str, seconds: float) -> None:
        """A part is ready after so many seconds."""

    def ready(self, info: StackInfo) -> None:
        """All of it is ready."""


def run_stack(
    settings: Settings, watcher: Watcher, *, airflow_port: int | None = None, mlflow_port: int | None = None
) -> None:
    """Boot a stack in the home of the settings, and stay its parent until a signal ends it.

    Raises:
        AlreadyRunning: It runs already, perhaps only just.
        UpstreamUnavailable: A part failed; everything has been stopped.
        SpecError: The home or a port cannot be used.
    """
    home = Home.of(settings)
    home.create()
    with held(home) as free:
        if not free:
            raise AlreadyRunning(wait_until_ready(settings))
        remarks = _remarks(end_leftovers(home))
        supervisor = _prepare(settings, home, airflow_port, mlflow_port, watcher)
        watcher.start(supervisor.info, remarks)
        try:
            if supervisor.boot():
                watcher.ready(supervisor.info)
                supervisor.watch()
        finally:
            supervisor.stop()


def start_detached(settings: Settings, *options: str) -> subprocess.Popen[bytes]:
    """Start ``windsock up`` with some options in the background; see :func:`wait_until_ready`."""
    home = Home.of(settings)
    home.create()
    command = [sys.executable, "-P", "-m", "windsock.cli", "up", "--home", str(home.root), *options]
    path = home.log(SUPERVISOR)
    logs.begin(path, command)
    with path.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**os.environ, **installation_env(settings)},
            start_new_session=True,  # closing the terminal does not reach it
        )


def wait_until_ready(
    settings: Settings,
    process: subprocess.Popen[bytes] | None = None,
    on_part: Callable[[str, float], None] | None = None,
) -> StackInfo:
    """Wait until the stack of a home is ready, or until the supervisor, if it is our ``process``, has ended.

    ``on_part`` gets each part's name and boot seconds when it is ready.

    Raises:
        UpstreamUnavailable: It ended, or took too long; with the end of its log.
    """
    path = Home.of(settings).log(SUPERVISOR)
    deadline = time.monotonic() + BOOT_SECONDS + 30
    seen: set[str] = set()
    while time.monotonic() < deadline:
        info = read_stack(settings)
        for name, part in info.parts.items() if info is not None else ():
            if part.ready and name not in seen and name not in (state.SUPERVISOR, state.GUARDIAN):
                seen.add(name)
                if on_part is not None:
                    on_part(name, time.time() - part.started)
        if info is not None and info.ready:
            return info
        if process is not None and process.poll() is not None:
            raise UpstreamUnavailable(f"The stack did not start. The end of {path}:\n{logs.tail(path, 40)}")
        time.sleep(_TURN_SECONDS)
    raise UpstreamUnavailable(f"The stack was not ready in time. The end of {path}:\n{logs.tail(path, 40)}")


def stop_stack(settings: Settings) -> bool:
    """Stop the stack of a home, or what a killed one left.

    Returns:
        Whether there was anything to stop.

    Raises:
        UpstreamUnavailable: Something would not end.
    """
    home = Home.of(settings)
    if not home.run.is_dir():
        return False
    info = read_stack(settings)
    supervisor = info.parts[SUPERVISOR].process_id.process() if info is not None else None
    if supervisor is not None:
        left = end([supervisor], signal.SIGTERM, wait_seconds=_STOP_SECONDS)
        end(left, signal.SIGKILL, wait_seconds=5)
    ended = _clear(home)
    if stuck := [*family(home.root), *database_processes(home)]:
        pids = ", ".join(str(p.pid) for p in stuck)
        raise UpstreamUnavailable(f"Processes of the stack in {home.root} would not end: {pids}. Kill them by hand.")
    return supervisor is not None or ended > 0


def wipe(settings: Settings) -> list[Path]:
    """Remove what Windsock made in a stopped stack's home.

    Returns:
        What lies there still, as Windsock did not make it.

    Raises:
        SpecError: The folder does not look like a Windsock home.
    """
    home = Home.of(settings)
    if not home.root.exists():
        return []
    refuse_unsafe_home(home.root)
    if not home.marker.is_file():
        raise SpecError(
            f"{home.root} does not look like a Windsock home (no {MARKER} in it): nothing was removed. "
            "Name the right folder with --home or WINDSOCK_HOME."
        )
    if (home.root / "demo" / MARKER).is_file():  # the demo's home, with a stack of its own
        stop_stack(replace(settings, home=home.root / "demo"))
    socket_folder = Postgres(home).socket_folder
    if home.root not in socket_folder.parents:
        shutil.rmtree(socket_folder, ignore_errors=True)
    for name in WIPED:
        path = home.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    left = sorted(home.root.iterdir())
    if not left:
        home.root.rmdir()
    return left


def _clear(home: Home) -> int:
    """End leftovers once the lock is free: its holder may still be on its way out."""
    deadline = time.monotonic() + 10
    while True:
        with held(home) as free:
            if free:
                return end_leftovers(home)
        if time.monotonic() > deadline:
            raise UpstreamUnavailable(f"Another `windsock up` holds {home.lock_file}. Stop it, or wait until it is up.")
        time.sleep(_TURN_SECONDS)


def _prepare(
    settings: Settings, home: Home, wanted_port: int | None, wanted_mlflow_port: int | None, watcher: Watcher
) -> Supervisor:
    airflow_port = ports.choose(ports.AIRFLOW_PORT, wanted=wanted_port, option="--port")
    mlflow_port = ports.choose(
        ports.MLFLOW_PORT, wanted=wanted_mlflow_port, option="--mlflow-port", taken=frozenset({airflow_port})
    )
    airflow_url, mlflow_url = f"http://{ports.HOST}:{airflow_port}", f"http://{ports.HOST}:{mlflow_port}"
    database = Postgres(home)
    dags_folder = folder_setting(os.environ, "WINDSOCK_DAGS_FOLDER", "dags")
    airflow = airflow_variables(
        home=home,
        dags_folder=dags_folder,
        plugins_folder=folder_setting(os.environ, "WINDSOCK_PLUGINS_FOLDER", "plugins"),
        port=airflow_port,
        database_url=database.url("airflow"),
        credentials=credentials.load_or_create(home),
        environ=os.environ,
    )
    env = part_env(settings, airflow_url=airflow_url, mlflow_url=mlflow_url, airflow=airflow)
    database.prepare()
    parts = make_parts(home, database, airflow_port=airflow_port, mlflow_port=mlflow_port)
    info = StackInfo(
        home=str(home.root),
        state=state.STARTING,
        airflow_url=airflow_url,
        mlflow_url=mlflow_url,
        database_socket=str(database.socket_folder),
        started=time.time(),
        dags_folder=str(dags_folder),
    )
    return Supervisor(home, parts, env, info, watcher.part, SpecWatch(settings, airflow_url).look)


def _remarks(ended: int) -> list[str]:
    remarks = []
    if ended:
        remarks.append(f"Ended {ended} processes that an earlier stack had left behind.")
    if ignored := ignored_variables(os.environ):
        remarks.append(
            f"Ignoring {', '.join(ignored)}: they belong to another Airflow. "
            "To change a setting here, put WINDSOCK_ before its name."
        )
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracking:
        remarks.append(f"Ignoring MLFLOW_TRACKING_URI={tracking.rpartition('@')[2]}: the stack brings its own MLflow.")
    return remarks
