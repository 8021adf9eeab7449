"""``python -m windsock_local.stack.template``: databases made and migrated once, for every new home to start from.

``make setup`` runs it after the installation; tests call :func:`make_template`. Making tables is a third of a first
start and always gives the same result, for the same Airflow and MLflow.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from windsock.errors import UpstreamUnavailable
from windsock.settings import Settings
from windsock_local.stack.ending import end_family
from windsock_local.stack.environment import part_env
from windsock_local.stack.layout import Home
from windsock_local.stack.postgres import Postgres, copy_data, template_folder
from windsock_local.stack.processes import spawn

_SERVER_SECONDS = 30.0
_MIGRATION_SECONDS = 300.0


def make_template() -> Path:
    """Make the template of the installed Airflow and MLflow, unless it is there.

    Returns:
        Its folder. Copied into place whole: others see all of it or nothing.

    Raises:
        UpstreamUnavailable: The server did not start, or a migration failed.
        OSError: The Python environment cannot be written to.
    """
    target = template_folder()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # A short path: a socket's name may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="windsock-") as folder:
        home = Home(Path(folder) / "home")
        home.create()
        database = Postgres(home)
        database.prepare()
        try:
            _migrate(home, database)
        finally:
            end_family(home)
        database.note_migrated()
        with tempfile.TemporaryDirectory(prefix=".postgres-", dir=target.parent) as part:
            copy_data(home.postgres, Path(part) / "data")
            if not target.exists():  # somebody else may have been quicker
                (Path(part) / "data").rename(target)
    return target


def _migrate(home: Home, database: Postgres) -> None:
    airflow = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url("airflow"), "AIRFLOW_HOME": str(home.airflow)}
    settings = Settings.from_env({"WINDSOCK_HOME": str(home.root)})
    env = part_env(settings, airflow_url="", mlflow_url="", airflow=airflow)
    log_file = home.log("template")
    spawn(
        database.command,
        env=env,
        log_file=log_file,
        cwd=home.postgres,
        death_signal=signal.SIGINT,
        user=database.user,
    )
    deadline = time.monotonic() + _SERVER_SECONDS
    while not database.answers():
        if time.monotonic() > deadline:
            raise UpstreamUnavailable(f"PostgreSQL did not start: {log_file.read_text(encoding='utf-8')[-2000:]}")
        time.sleep(0.1)
    database.create_databases()
    for arguments in (("airflow", "db", "migrate"), ("mlflow", "db", "upgrade", database.url("mlflow"))):
        command = [sys.executable, "-P", "-m", *arguments]
        done = subprocess.run(
            command,
            env=env,
            cwd=home.airflow,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_MIGRATION_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise UpstreamUnavailable(f"{' '.join(arguments[:3])} failed: {done.stdout[-2000:]}")


if __name__ == "__main__":
    make_template()
