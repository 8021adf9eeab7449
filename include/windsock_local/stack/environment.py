"""The environments of the stack's own processes, and of others that talk to it.

The embedded Airflow is configured by environment alone, and its configuration file never touched, so that two homes
and a user's own Airflow cannot mix. Variables ``AIRFLOW__*`` that are already set belong to such an other Airflow and
are ignored; to change a setting of the embedded one, put ``WINDSOCK_`` before its name:
``WINDSOCK_AIRFLOW__CORE__PARALLELISM=8``. Connections and variables (``AIRFLOW_CONN_*`` ...) pass through.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from windsock.settings import REPO_ROOT, Settings
from windsock_local.stack.home import ADMIN_USER, MLFLOW_SECRET, Home
from windsock_local.stack.probes import HOST
from windsock_local.stack.processes import MARKER_VARIABLE

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
_FOREIGN = {
    *("AIRFLOW_HOME", "AIRFLOW_CONFIG", "PYTHONDONTWRITEBYTECODE", MARKER_VARIABLE),
    # How commands get into another Airflow.
    *(f"WINDSOCK_AIRFLOW_{name}" for name in ("URL", "USER", "PASSWORD", "PASSWORD_FILE", "TOKEN", "TOKEN_FILE")),
}
_PLAIN = {
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
    *("PYTHONPATH", "VIRTUAL_ENV"),
}
_PROCESS = {
    # Otherwise process titles overwrite the home's mark in the environment, and strays could not be found.
    "SPT_NOENV": "1",
    "PYTHONUNBUFFERED": "1",
    # Each thread that ever allocated keeps an arena of its own otherwise.
    "MALLOC_ARENA_MAX": "2",
}
_MOST_THREADS = 4

AIRFLOW_TUNING = {
    # --- what runs
    "AIRFLOW__CORE__EXECUTOR": "windsock_airflow.warm_executor.WarmLocalExecutor",
    # Workers are forked at once and kept; more than two a core only wait for each other.
    "AIRFLOW__CORE__PARALLELISM": "4",
    # The warm executor lives from fork; Python 3.14 changes the default.
    "AIRFLOW__CORE__MP_START_METHOD": "fork",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # A run that waits for an earlier day counts as active. With few slots a thousand waiting
    # runs would keep out the one they wait for: never let that limit bind.
    "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "5000",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
    # --- speed
    # For plugins folders without the bell; with it the warm executor does the waiting, as it can be woken.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    # Of so many active runs the scheduler may choose in each loop. Runs that wait for a day are active, those of a
    # backfill come last: with more of them than this, the backfill that they wait for would stand still. The ones that
    # only wait are passed over (docs/adr/0033).
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "5000",
    # Tasks that wait for days are triggers, one a run.
    "AIRFLOW__TRIGGERER__CAPACITY": "5000",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP": "50",
    "AIRFLOW__SCHEDULER__CATCHUP_BY_DEFAULT": "False",
    # Tasks of a scheduler that was killed are found this often and run again (default 300).
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # The first call after boot takes seconds, and so may any call on a busy laptop.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    # A changed DAG file is parsed at once, and so are all when a model's files change (`SpecWatch`).
    # Besides that nothing changes what they say: once in a while is for what nobody thought of, as each costs seconds.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "900",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    # --- closed to others
    "AIRFLOW__API__HOST": HOST,
    "AIRFLOW__API__ENABLE_SWAGGER_UI": "False",
    "AIRFLOW__API__EXPOSE_CONFIG": "False",
    "AIRFLOW__API__INSTANCE_NAME": "Windsock",
    # No health server (it would bind all interfaces); `windsock status` asks the API.
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN_USER}:admin",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
    "AIRFLOW__CORE__TEST_CONNECTION": "Disabled",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    # Airflow sets these whatever the umask.
    "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
    "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
}
"""The numbers were measured on a 2-core machine; each carries its reason."""


def airflow_variables(home: Home, *, port: int, database_url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that configure every Airflow process of a stack.

    The home's secrets are among the values: log only the names. ``environ`` may name folders and overrides.
    """
    url = f"http://{HOST}:{port}"
    plugins_folder = _folder(environ, "WINDSOCK_PLUGINS_FOLDER", "plugins")
    variables = {
        **AIRFLOW_TUNING,
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW__CORE__DAGS_FOLDER": str(_folder(environ, "WINDSOCK_DAGS_FOLDER", "dags")),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins_folder),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": home.secret("fernet_key"),
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": home.secret("api_secret_key"),
        "AIRFLOW__API_AUTH__JWT_SECRET": home.secret("jwt_secret"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home.airflow / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(home.airflow / "logs" / "dag_processor"),
    }
    if (plugins_folder / "windsock_bell.py").is_file():
        variables["AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"] = "0"
        variables["WINDSOCK_SCHEDULER_BELL"] = str(home.scheduler_bell)
    overrides = {n.removeprefix("WINDSOCK_"): v for n, v in environ.items() if n.startswith("WINDSOCK_AIRFLOW__")}
    variables |= overrides
    users = [user.split(":")[0].strip() for user in variables["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].split(",")]
    # One that Airflow had to make up it would print.
    passwords = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.passwords_file(filter(None, users)))}
    return {**passwords, **variables}


def ignored_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the inherited settings of another Airflow or MLflow, which a stack does not obey."""
    named = ("AIRFLOW_HOME", "AIRFLOW_CONFIG", "MLFLOW_TRACKING_URI")
    return sorted(name for name in environ if name.startswith("AIRFLOW__") or name in named)


def installation_env(settings: Settings) -> dict[str, str]:
    """Return the variables that say which installation a process of Windsock's belongs to."""
    return {
        **({"WINDSOCK_COMPUTE_FILE": str(settings.compute_file)} if settings.compute_file is not None else {}),
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
    # Loopback calls stay away from a proxy that the user needs for everything else.
    no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ",".join(dict.fromkeys([*filter(None, no_proxy.split(",")), HOST, "localhost"]))
    return {
        **installation_env(settings),
        "WINDSOCK_UI_URL": airflow_url,
        "MLFLOW_TRACKING_URI": mlflow_url,
        "WINDSOCK_MLFLOW_SECRET_FILE": str(Home.of(settings).secret_file(MLFLOW_SECRET)),
        **{name: os.environ.get(name) or threads for name in limits},
        **_MANNERS,
        "no_proxy": hosts,
        "NO_PROXY": hosts,
    }


def part_env(settings: Settings, *, airflow_url: str, mlflow_url: str, airflow: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the stack's Airflow, and of its tasks."""
    inherited = {n: v for n, v in os.environ.items() if n not in _FOREIGN and not n.startswith(_FOREIGN_PREFIXES)}
    return {
        **inherited,
        **service_env(settings, airflow_url=airflow_url, mlflow_url=mlflow_url),
        **airflow,
        "WINDSOCK_GPUS": os.environ.get("WINDSOCK_GPUS") or "1",  # as many slots as the GPUs' pool gets
        **_PROCESS,
    }


def plain_env() -> dict[str, str]:
    """Return the whole environment of a part that is no Airflow: nothing of the user's that it does not need."""
    kept = {n: v for n, v in os.environ.items() if n in _PLAIN or n.startswith("LC_")}
    return {**kept, **_PROCESS}


def mlflow_env(home: Home, *, database_url: str, airflow_url: str, port: int) -> dict[str, str]:
    """Return the whole environment of MLflow's server."""
    names = [f"{host}:{port}" for host in (HOST, "localhost")]
    return {
        **plain_env(),
        **_MANNERS,
        "WINDSOCK_HOME": str(home.root),
        "WINDSOCK_UI_URL": airflow_url,
        "WINDSOCK_MLFLOW_SECRET_FILE": str(home.secret_file(MLFLOW_SECRET)),
        "MLFLOW_BACKEND_STORE_URI": database_url,
        "MLFLOW_ARTIFACTS_DESTINATION": home.mlflow_artifacts.as_uri(),
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(names),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}" for name in names),
    }


def _folder(environ: Mapping[str, str], variable: str, default: str) -> Path:
    return Path(environ.get(variable) or REPO_ROOT / default).expanduser().absolute()
