"""The installation that version 0.1 left (``fixtures/v0_1``), unpacked so that the code of today goes on from it."""

import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.stack import free_ports

from windsock.settings import Settings
from windsock_local.stack.database import database_alone
from windsock_local.stack.environment import airflow_variables, part_env
from windsock_local.stack.home import MLFLOW_SECRET, Home
from windsock_local.stack.parts import MLFLOW, make_parts, module
from windsock_local.stack.postgres import DATABASES, Postgres
from windsock_local.stack.probes import HOST
from windsock_local.stack.processes import spawn
from windsock_local.stack.upgrade import upgrade

ARCHIVE = Path(__file__).parent / "fixtures" / "v0_1" / "home.tar.xz"
MADE_IN = "/tmp/windsock-0.1"
"""The home in which it was made; deliveries are looked for by their whole path."""
MODELS = ("cards", "chargebacks", "rentals")


def unpack(home: Path) -> Settings:
    """Unpack the installation into an empty folder, and let its models look for their deliveries there."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(home, filter="data")
    for spec in (home / "models").glob("*/model.yaml"):
        spec.write_text(spec.read_text(encoding="utf-8").replace(MADE_IN, str(home)), encoding="utf-8")
    return Settings.from_env({"WINDSOCK_HOME": str(home)})


def golden(home: Path) -> dict[str, Any]:
    """Return what 0.1 itself said of every model: hashes of records, versions, promotions, scores."""
    found: dict[str, Any] = json.loads((home / "golden.json").read_text(encoding="utf-8"))
    return found


@contextmanager
def database(settings: Settings) -> Iterator[Postgres]:
    """Run the home's PostgreSQL for the block, with both databases put back if they are not there yet."""
    home = Home.of(settings)
    home.create(earlier=True)
    fresh = not home.postgres.exists()
    with database_alone(home) as server:
        for name in DATABASES if fresh else ():
            # Those of a new home are migrated already, and empty.
            _psql(server, "postgres", "-c", f"drop database {name}", "-c", f"create database {name}")
            _psql(server, name, "-f", str(home.root / f"{name}.sql"))
        yield server


def upgraded(settings: Settings) -> Settings:
    """Bring the installation, its databases put back, to the version of today."""
    with database(settings):
        pass
    run_upgrade(settings)
    return settings


def run_upgrade(settings: Settings) -> None:
    """Run what ``windsock upgrade --no-backup`` does, in this process."""
    upgrade(settings, None, lambda _what, _done, _of: None)


@contextmanager
def mlflow_server(settings: Settings) -> Iterator[Settings]:
    """Run the home's PostgreSQL and MLflow for the block, without Airflow; yields settings that lead to it."""
    with database(settings) as server:
        home = Home.of(settings)
        airflow_port, port = free_ports(2)
        parts = make_parts(home, server, airflow_port=airflow_port, mlflow_port=port)
        part = next(part for part in parts if part.name == MLFLOW)
        assert part.environment is not None
        started = time.time()
        process = spawn(part.command, env=part.environment, log_file=home.log(MLFLOW), cwd=home.airflow)
        try:
            _until(lambda: part.ready(started), "MLflow answers", seconds=300)
            secret = home.secret(MLFLOW_SECRET)
            yield replace(settings, mlflow_uri=f"http://{HOST}:{port}", mlflow_secret=secret)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its workers are in its session
            process.wait(30)


def sql(server: Postgres, database: str, query: str) -> str:
    """Return what a query says, a line for each row."""
    return _psql(server, database, "-At", "-c", query, "-o", "/dev/stdout")


def _psql(server: Postgres, database: str, *arguments: str) -> str:
    psql = Path(server.command[0]).parent / "psql"
    address = ["-h", str(server.socket_folder), "-U", "postgres", "-d", database]
    command = [psql, *address, "-Xq", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _until(done: Callable[[], bool], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s still not: {what}"
        time.sleep(0.1)


def set_airflow_back(settings: Settings, server: Postgres, to: str) -> None:
    """Make Airflow's database, which runs, that of an earlier version, by Airflow's own migrations."""
    home = Home.of(settings)
    airflow = airflow_variables(home, port=8080, database_url=server.url("airflow"), environ={})
    command = module("airflow", "db", "downgrade", "--to-version", to, "--yes")
    env = part_env(settings, airflow_url="", mlflow_url="", airflow=airflow)
    done = subprocess.run(command, env=env, cwd=home.airflow, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    server.note_migrated("airflow", to)
