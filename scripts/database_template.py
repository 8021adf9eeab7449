"""Make the databases that every new home starts from, migrated, unless they are there; ``setup.sh`` runs it once.

Making tables is a third of a first start, and always gives the same result for the same Airflow and MLflow. They are
put into place whole: others see all of them or nothing.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

from windsock.errors import UpstreamUnavailable
from windsock.settings import Settings
from windsock_local.stack.environment import part_env
from windsock_local.stack.home import Home, StackInfo
from windsock_local.stack.parts import POSTGRES, Part, database_parts, module
from windsock_local.stack.postgres import Postgres, copy_data, template_folder
from windsock_local.stack.supervisor import Supervisor


def main() -> None:
    """Boot a database of its own, migrate it, and keep a copy of its data folder in the Python environment."""
    target = template_folder()
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # A short path: a socket's name may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="windsock-") as folder:
        home = Home(Path(folder) / "home")
        home.create()
        database = Postgres(home)
        database.prepare()
        airflow = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url("airflow"), "AIRFLOW_HOME": str(home.airflow)}
        mlflow = module("mlflow", "db", "upgrade", database.url("mlflow"))
        noted = partial(database.note_migrated, "mlflow")
        mlflow_tables = Part("mlflow-migration", mlflow, after=noted, needs=(POSTGRES,), one_shot=True)
        settings = Settings.from_env({"WINDSOCK_HOME": str(home.root)})
        stack = Supervisor(
            home,
            [*database_parts(database), mlflow_tables],
            part_env(settings, airflow_url="", mlflow_url="", airflow=airflow),
            StackInfo(str(home.root), "starting", "", "", "", time.time()),
        )
        try:
            if not stack.boot():
                raise UpstreamUnavailable("Stopped before the database template was made.")
        finally:
            stack.stop()
        with tempfile.TemporaryDirectory(prefix=".postgres-", dir=target.parent) as aside:
            copy_data(home.postgres, Path(aside) / "data")
            if not target.exists():  # somebody else may have been quicker
                (Path(aside) / "data").rename(target)


if __name__ == "__main__":
    main()
