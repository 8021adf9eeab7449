"""The environments: of the stack's own processes, and of others that talk to it."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from windsock.settings import REPO_ROOT, Settings
from windsock_local.stack.airflow_config import ignored_variables
from windsock_local.stack.layout import Home
from windsock_local.stack.processes import MARKER_VARIABLE
from windsock_local.stack.state import running_stack

# Nothing here phones home, and no library may spin on a core that another task needs.
_MANNERS = {
    "OMP_WAIT_POLICY": "passive",
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "FEAST_USAGE": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
# libpq would obey PGPORT and friends, MLflow what another project has set.
_FOREIGN_PREFIXES = ("AIRFLOW__", "_AIRFLOW", "PG", "MLFLOW_", "_MLFLOW_", "UVICORN_", "GUNICORN_")
_FOREIGN = {"AIRFLOW_HOME", "AIRFLOW_CONFIG", "PYTHONDONTWRITEBYTECODE", MARKER_VARIABLE}
_MOST_THREADS = 4


def folder_setting(environ: Mapping[str, str], variable: str, default: str) -> Path:
    """Return a folder named by a variable, or ``default`` in the repository."""
    return Path(environ.get(variable) or REPO_ROOT / default).expanduser().absolute()


def installation_env(settings: Settings) -> dict[str, str]:
    """Return the variables that say which installation a process of Windsock's belongs to."""
    named = {"WINDSOCK_COMPUTE_FILE": str(settings.compute_file)} if settings.compute_file is not None else {}
    return {
        **named,
        "WINDSOCK_HOME": str(settings.home),
        "WINDSOCK_STORE": settings.store,
        "WINDSOCK_MODELS": os.pathsep.join(str(folder) for folder in settings.models),
        "WINDSOCK_FEATURE_REPO": str(settings.feature_repo),
        "WINDSOCK_GX_ROOT": str(settings.gx_root),
        "WINDSOCK_COMPUTE": settings.compute,
    }


def service_env(settings: Settings, *, airflow_url: str, mlflow_url: str) -> dict[str, str]:
    """Return the variables that lead Windsock's own code to a stack's services."""
    threads = str(min(os.cpu_count() or 1, _MOST_THREADS))
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **installation_env(settings),
        "WINDSOCK_UI_URL": airflow_url,
        "MLFLOW_TRACKING_URI": mlflow_url,
        **{name: os.environ.get(name) or threads for name in limits},
        **_MANNERS,
        **_no_proxy(os.environ),
    }


def part_env(settings: Settings, *, airflow_url: str, mlflow_url: str, airflow: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the stack's own processes."""
    return {
        **_inherited(os.environ),
        **service_env(settings, airflow_url=airflow_url, mlflow_url=mlflow_url),
        **airflow,
        "WINDSOCK_GPUS": os.environ.get("WINDSOCK_GPUS") or "1",  # as many slots as `pools` gives
        MARKER_VARIABLE: str(Home.of(settings).root),
        # Otherwise process titles overwrite the mark above, and strays could not be found.
        "SPT_NOENV": "1",
        "PYTHONUNBUFFERED": "1",
        # Each thread that ever allocated keeps an arena of its own otherwise.
        "MALLOC_ARENA_MAX": "2",
    }


def stack_env(settings: Settings) -> dict[str, str]:
    """Return the variables with which another process uses the running stack.

    Add them to ``os.environ`` of a step, a test or a shell; they hold no secret.

    Raises:
        UpstreamUnavailable: No stack runs under this home.
    """
    info = running_stack(settings)
    return service_env(settings, airflow_url=info.airflow_url, mlflow_url=info.mlflow_url)


def stack_settings(settings: Settings) -> Settings:
    """Return the settings with the addresses of the running stack in them.

    Raises:
        UpstreamUnavailable: No stack runs under this home.
    """
    info = running_stack(settings)
    return replace(settings, mlflow_uri=info.mlflow_url, ui_url=info.airflow_url)


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    ignored = {*ignored_variables(environ), *_FOREIGN}
    return {
        name: value for name, value in environ.items() if name not in ignored and not name.startswith(_FOREIGN_PREFIXES)
    }


def _no_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """Keep loopback calls away from a proxy that the user needs for everything else."""
    named = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = [host for host in named.split(",") if host]
    hosts += [host for host in ("127.0.0.1", "localhost") if host not in hosts]
    return {"no_proxy": ",".join(hosts), "NO_PROXY": ",".join(hosts)}
