"""Start MLflow's server behind the door: ``python -m windsock_mlflow.server``.

It does what ``mlflow server`` does for one process, and keeps everything that makes a door: no assistant's or job
runner's process is started, and artifacts are opened below the destination alone, whatever a location in the database
says.

Environment: ``MLFLOW_BACKEND_STORE_URI``, ``MLFLOW_ARTIFACTS_DESTINATION``, ``MLFLOW_SERVER_ALLOWED_HOSTS`` and
``MLFLOW_SERVER_CORS_ALLOWED_ORIGINS`` (exact names, commas between them), ``WINDSOCK_UI_URL``, and
``WINDSOCK_MLFLOW_SECRET`` or ``WINDSOCK_MLFLOW_SECRET_FILE``.
"""

import argparse
import logging
import os
import re
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from windsock.errors import SpecError, WindsockError
from windsock.settings import Settings
from windsock_mlflow.door import Door, Doorplate
from windsock_mlflow.named import Owners
from windsock_mlflow.schema import bring_up_to_date

log = logging.getLogger(__name__)

_SHORTEST_SECRET = 32
_OWN_SCHEMES = ("mlflow-artifacts", "models", "runs")


def main() -> None:
    """Serve until the process is told to stop."""
    parser = argparse.ArgumentParser(prog="windsock_mlflow.server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").propagate = False  # it has handlers of its own
    import uvicorn

    try:
        app = make_app(os.environ)
    except WindsockError as err:
        log.error("%s", err)
        sys.exit(err.exit_code)
    from mlflow.server import _UVICORN_LOG_CONFIG

    uvicorn.run(
        app, host=given.host, port=given.port, log_config=str(_UVICORN_LOG_CONFIG), proxy_headers=False,
        server_header=False,
    )  # fmt: skip


def make_app(environ: Mapping[str, str]) -> Door:
    """Return MLflow's application behind the door; its database is made or migrated first.

    Raises:
        SpecError: The environment lacks something, or names a pattern where exact names are needed; or the database is
            a later MLflow's.
    """
    plate = _plate(environ)
    database, destination = (
        _needed(environ, f"MLFLOW_{name}") for name in ("BACKEND_STORE_URI", "ARTIFACTS_DESTINATION")
    )
    _configure(database, destination)
    bring_up_to_date(database)
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import _get_tracking_store, initialize_backend_stores

    initialize_backend_stores(database, database, os.environ[_names().ARTIFACT_ROOT_ENV_VAR])
    keep_artifacts_below(destination)
    return Door(app, plate, Owners(_get_tracking_store()))


def _plate(environ: Mapping[str, str]) -> Doorplate:
    settings = Settings.from_env(dict(environ))
    if len(settings.mlflow_secret) < _SHORTEST_SECRET:
        raise SpecError(
            f"MLflow's door needs a secret of {_SHORTEST_SECRET} characters or more to sign its keys with: set "
            "WINDSOCK_MLFLOW_SECRET_FILE, the same for MLflow and for Airflow."
        )
    hosts, origins = (
        frozenset(filter(None, re.split(r"[\s,]+", _needed(environ, f"MLFLOW_SERVER_{name}"))))
        for name in ("ALLOWED_HOSTS", "CORS_ALLOWED_ORIGINS")
    )
    if patterns := sorted(name for name in hosts | origins if "*" in name):
        raise SpecError(f"MLflow's hosts and origins are exact names, no patterns: {', '.join(patterns)}.")
    return Doorplate(settings.mlflow_secret, hosts, origins, settings.ui_url)


def _needed(environ: Mapping[str, str], name: str) -> str:
    if not environ.get(name):
        raise SpecError(f"MLflow's server needs {name} in its environment.")
    return environ[name]


def _configure(database: str, destination: str) -> None:
    """Tell MLflow's application what ``mlflow server`` would, by the variables that it reads at import."""
    names = _names()
    os.environ |= {
        names.BACKEND_STORE_URI_ENV_VAR: database,
        names.REGISTRY_STORE_URI_ENV_VAR: database,
        names.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        names.SERVE_ARTIFACTS_ENV_VAR: "true",
        names.ARTIFACTS_DESTINATION_ENV_VAR: destination,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "_MLFLOW_SERVER_BOOT_ID": uuid.uuid4().hex,
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
        "_MLFLOW_SGI_NAME": "uvicorn",
    }


def _names() -> Any:
    from mlflow.server import constants

    return constants


def keep_artifacts_below(destination: str) -> None:
    """Have MLflow open no place but the destination and what lies below it, whatever its database names.

    A location may stand there from a time without this door, and paths that lead to one are many (REST, GraphQL, the
    pages). All of them ask this registry.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact import artifact_repository_registry

    registry: Any = artifact_repository_registry._artifact_repository_registry
    root = destination.rstrip("/")

    def guarded(repository: Callable[..., Any]) -> Callable[..., Any]:
        def opened(artifact_uri: str, **options: Any) -> Any:
            if artifact_uri != destination and (
                not artifact_uri.startswith(f"{root}/") or re.search(r"[?#%\\]|(^|/)\.\.(/|$)", artifact_uri)
            ):
                raise MlflowException("Artifacts are served below the artifact proxy alone.")
            return repository(artifact_uri, **options)

        return opened

    for scheme, repository in list(registry.get_registered_artifact_repositories().items()):
        # http: the way to another server; `mlflow-artifacts:` of one's own never goes by it.
        registry.register(scheme, _closed if scheme in {"http", "https", *_OWN_SCHEMES} else guarded(repository))


def _closed(artifact_uri: str, **_: Any) -> Any:
    from mlflow.exceptions import MlflowException

    raise MlflowException("Artifacts are served below the artifact proxy alone.")


if __name__ == "__main__":
    main()
