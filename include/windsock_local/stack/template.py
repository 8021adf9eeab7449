"""``python -m windsock_local.stack.template``: databases made and migrated once, for every new home to start from.

``make setup`` runs it after the installation; tests call :func:`make_template`. Making tables is a third of a first
start and always gives the same result, for the same Airflow and MLflow.
"""

import tempfile
import time
from pathlib import Path

from windsock.errors import UpstreamUnavailable
from windsock.settings import Settings
from windsock_local.stack.environment import part_env
from windsock_local.stack.layout import Home
from windsock_local.stack.parts import POSTGRES, Part, database_parts, module
from windsock_local.stack.postgres import Postgres, copy_data, template_folder
from windsock_local.stack.state import STARTING, StackInfo
from windsock_local.stack.supervisor import Supervisor


def make_template() -> Path:
    """Make the template of the installed Airflow and MLflow, unless it is there; call it from the main thread.

    Returns:
        Its folder. Put into place whole: others see all of it or nothing.

    Raises:
        UpstreamUnavailable: The server did not start, a migration failed, or a signal came.
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
        _migrate(home, database)
        with tempfile.TemporaryDirectory(prefix=".postgres-", dir=target.parent) as aside:
            copy_data(home.postgres, Path(aside) / "data")
            if not target.exists():  # somebody else may have been quicker
                (Path(aside) / "data").rename(target)
    return target


def _migrate(home: Home, database: Postgres) -> None:
    settings = Settings.from_env({"WINDSOCK_HOME": str(home.root)})
    airflow = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url("airflow"), "AIRFLOW_HOME": str(home.airflow)}
    mlflow = module("mlflow", "db", "upgrade", database.url("mlflow"))
    stack = Supervisor(
        home,
        [*database_parts(database), Part("mlflow-migration", mlflow, needs=(POSTGRES,), one_shot=True)],
        part_env(settings, airflow_url="", mlflow_url="", airflow=airflow),
        StackInfo(str(home.root), STARTING, "", "", "", time.time()),
        on_ready=lambda _name, _seconds: None,
    )
    try:
        if not stack.boot():
            raise UpstreamUnavailable("Stopped before the database template was made.")
    finally:
        stack.stop()


if __name__ == "__main__":
    make_template()
