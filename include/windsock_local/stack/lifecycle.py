"""``up`` and ``down``: one stack a home, found if it runs, cleared away if it died."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from windsock.copies import FOLDER as COPIES
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.files import locked
from windsock.settings import Settings
from windsock.store import Store
from windsock.store_memory import REMEMBERED
from windsock_local.stack import probes
from windsock_local.stack.absences import Absences
from windsock_local.stack.environment import airflow_variables, ignored_variables, installation_env, part_env
from windsock_local.stack.guardian import database_processes, end_leftovers
from windsock_local.stack.home import GUARDIAN, MARKER, SUPERVISOR, Home, StackInfo, read_stack, refuse_unsafe_home
from windsock_local.stack.parts import make_parts
from windsock_local.stack.postgres import Postgres
from windsock_local.stack.processes import end, family, log_tail, spawn
from windsock_local.stack.spec_watch import SpecWatch
from windsock_local.stack.supervisor import BOOT_SECONDS, Supervisor

log = logging.getLogger(__name__)

_STOP_SECONDS = 45.0
_TURN_SECONDS = 0.2

WIPED = (
    *("postgres", "airflow", "mlflow-artifacts", "mlflow.db", "secrets", "logs", "run", "store", "feast", "demo"),
    *("great_expectations", "demo.json", COPIES, REMEMBERED, MARKER),
)
"""What `down --wipe` removes from a home: all that Windsock makes there, nothing else."""


@contextlib.contextmanager
def prepared_stack(
    settings: Settings,
    on_ready: Callable[[str, float], None],
    *,
    airflow_port: int | None = None,
    mlflow_port: int | None = None,
) -> Iterator[Supervisor | None]:
    """Hold the home of the settings for the block, and stop everything at its end.

    Yields:
        A supervisor that has not booted yet; None if somebody else's runs.

    Raises:
        UpstreamUnavailable: The database's data folder could not be made.
        SpecError: The home or a port cannot be used.
    """
    home = _usable(settings)
    with contextlib.ExitStack() as held:
        free = held.enter_context(locked(home.lock_file, wait=False))
        held.enter_context(_private_files(settings))
        if not free:
            yield None
            return
        if ended := end_leftovers(home):
            log.warning("Ended %d processes that an earlier stack had left behind.", ended)
        if ignored := ignored_variables(os.environ):
            log.warning(
                "Ignoring %s: the stack brings its own Airflow and MLflow. "
                "To change a setting of Airflow here, put WINDSOCK_ before its name.",
                ", ".join(ignored),
            )
        ports = (probes.AIRFLOW_PORT, airflow_port, "--port"), (probes.MLFLOW_PORT, mlflow_port, "--mlflow-port")
        port, other_port = (
            held.enter_context(probes.claimed_port(usual, wanted=wanted, option=option))
            for usual, wanted, option in ports
        )
        airflow_url, mlflow_url = f"http://{probes.HOST}:{port}", f"http://{probes.HOST}:{other_port}"
        database = Postgres(home)
        airflow = airflow_variables(home, port=port, database_url=database.url("airflow"), environ=os.environ)
        database.prepare()
        parts = make_parts(home, database, airflow_port=port, mlflow_port=other_port)
        supervisor = Supervisor(
            home,
            parts,
            part_env(settings, airflow_url=airflow_url, mlflow_url=mlflow_url, airflow=airflow),
            StackInfo(str(home.root), "starting", airflow_url, mlflow_url, str(database.socket_folder), time.time()),
            on_ready,
            SpecWatch(settings, airflow_url, Path(airflow["AIRFLOW__CORE__DAGS_FOLDER"])).look,
        )
        lasting = [part.name for part in parts if not part.one_shot]
        end_watch = Absences(settings, lasting).watch(lambda: supervisor.info)
        try:
            yield supervisor
        finally:
            end_watch()
            supervisor.stop()


def _usable(settings: Settings) -> Home:
    """Return the home, made if need be; one that this version cannot use as it is, or such a store, is refused."""
    home = Home.of(settings)
    home.look()
    Store.of(settings).look()
    home.create()
    Postgres(home).refuse_others()
    return home


@contextlib.contextmanager
def _private_files(settings: Settings) -> Iterator[None]:
    """Have nobody else read what is written in the block, unless pods of another user may share the store's folder."""
    if settings.compute != "local" or settings.compute_file is not None:
        yield
        return
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def start_detached(settings: Settings, *options: str) -> subprocess.Popen[bytes]:
    """Start ``windsock up`` with some options in the background; see :func:`wait_until_ready`."""
    home = _usable(settings)
    command = [sys.executable, "-P", "-m", "windsock.cli", "up", "--home", str(home.root), *options]
    env = {**os.environ, **installation_env(settings)}
    return spawn(command, env=env, log_file=home.supervisor_log, cwd=Path("/"), death_signal=None)


def wait_until_ready(
    settings: Settings,
    process: subprocess.Popen[bytes] | None = None,
    on_ready: Callable[[str, float], None] = lambda _name, _seconds: None,
) -> StackInfo:
    """Wait until the stack of a home is ready, or until its supervisor, perhaps our ``process``, has ended.

    ``on_ready`` gets each part's name and boot seconds when it is ready.

    Raises:
        UpstreamUnavailable: It ended, or took too long; with the end of its log.
    """
    path = Home.of(settings).supervisor_log
    deadline = time.monotonic() + BOOT_SECONDS + 30
    seen = {SUPERVISOR, GUARDIAN}
    while True:
        info = read_stack(settings)
        for name, part in info.parts.items() if info is not None else ():
            if part.ready and name not in seen:
                seen.add(name)
                on_ready(name, time.time() - part.started)
        if info is not None and info.ready:
            return info
        ended = process.poll() is not None if process is not None else not _starts(Home.of(settings))
        if ended or time.monotonic() > deadline:
            what = "did not start" if ended else "was not ready in time"
            raise UpstreamUnavailable(f"The stack {what}. The end of {path}:\n{log_tail(path, 40)}")
        time.sleep(_TURN_SECONDS)


def _starts(home: Home) -> bool:
    with locked(home.lock_file, wait=False) as free:
        return not free


def stop_stack(settings: Settings) -> bool:
    """Stop the stack of a home, or what a killed one left; return whether there was anything to stop.

    Raises:
        UpstreamUnavailable: Something would not end.
    """
    home = Home.of(settings)
    if not home.run.is_dir():
        return False
    info = read_stack(settings)
    supervisor = info.process(SUPERVISOR) if info is not None else None
    if supervisor is not None:
        left = end([supervisor], signal.SIGTERM, wait_seconds=_STOP_SECONDS)
        end(left, signal.SIGKILL, wait_seconds=5)
    ended = _clear(home)
    if stuck := [*family(home.root), *database_processes(home)]:
        pids = ", ".join(str(p.pid) for p in stuck)
        raise UpstreamUnavailable(f"Processes of the stack in {home.root} would not end: {pids}. Kill them by hand.")
    return supervisor is not None or ended > 0


def wipe(settings: Settings) -> list[Path]:
    """Remove what Windsock made in a stopped stack's home, and return what else lies there.

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
        with locked(home.lock_file, wait=False) as free:
            if free:
                return end_leftovers(home)
        if time.monotonic() > deadline:
            raise UpstreamUnavailable(f"Another `windsock up` holds {home.lock_file}. Stop it, or wait until it is up.")
        time.sleep(_TURN_SECONDS)
