"""The tables of MLflow's database, brought up to those of the installed MLflow when its server starts.

``python -m windsock_mlflow.schema`` does that alone, for the database of ``MLFLOW_BACKEND_STORE_URI``.
"""

import logging
import os
import sys
from typing import Any

from windsock.errors import SpecError, WindsockError
from windsock.redact import redact_line

log = logging.getLogger(__name__)


def bring_up_to_date(url: str) -> None:
    """Migrate a database that an earlier MLflow made; of one without tables nothing is changed, MLflow makes them.

    PostgreSQL does it as a whole or not at all. One server of a database may do so at a time.

    Raises:
        SpecError: A later MLflow made the tables.
    """
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db import utils

    mlflow: Any = utils  # without types
    engine = mlflow.create_sqlalchemy_engine_with_retry(url)
    try:
        found, newest = mlflow._get_schema_version(engine), mlflow._get_latest_schema_revision()
        if found in (None, newest):
            return
        try:
            ScriptDirectory.from_config(mlflow._get_alembic_config("")).get_revision(found)
        except CommandError as err:
            raise SpecError(
                f"MLflow's database has tables of a later MLflow (revision {found}) than the one installed here "
                f"(revision {newest}): {redact_line(err)}. Start the version of Windsock that it was last used with, "
                'or restore the backup from before (docs/runbook.md, "Backups").'
            ) from err
        log.info("MLflow's database has tables of an earlier MLflow (revision %s): migrating to %s.", found, newest)
        mlflow._upgrade_db(engine)
    finally:
        engine.dispose()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    try:
        bring_up_to_date(os.environ["MLFLOW_BACKEND_STORE_URI"])
    except WindsockError as err:
        log.error("%s", err)
        sys.exit(err.exit_code)
