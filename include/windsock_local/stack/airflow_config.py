"""How the embedded Airflow is configured, as data: ``(section, key) -> value``.

The numbers were measured on a 2-core machine; each carries its reason. Airflow's own
configuration file is never touched: everything goes by environment, so that two homes
and a user's own Airflow cannot mix. Variables ``AIRFLOW__*`` that are already set belong
to such an other Airflow and are ignored; to change a setting of the embedded one, put
``WINDSOCK_`` before its name: ``WINDSOCK_AIRFLOW__CORE__PARALLELISM=8``.
Connections and variables (``AIRFLOW_CONN_*``, ``AIRFLOW_VAR_*``) pass through.
"""

from collections.abc import Mapping
from pathlib import Path

from windsock_local.stack.credentials import ADMIN_USER, Credentials
from windsock_local.stack.layout import Home
from windsock_local.stack.ports import HOST

_BELL_PLUGIN = "windsock_bell.py"
OVERRIDE_PREFIX = "WINDSOCK_AIRFLOW__"

_TUNING: dict[tuple[str, str], str] = {
    # --- what runs
    ("core", "executor"): "windsock_airflow.warm_executor.WarmLocalExecutor",
    # Workers are forked at once and kept; more than two a core only wait for each other.
    ("core", "parallelism"): "4",
    # The warm executor lives from fork; Python 3.14 changes the default.
    ("core", "mp_start_method"): "fork",
    ("core", "load_examples"): "False",
    ("core", "dags_are_paused_at_creation"): "True",
    # A run that waits for an earlier day counts as active. With few slots a thousand waiting
    # runs would keep out the one they wait for: never let that limit bind.
    ("core", "max_active_runs_per_dag"): "5000",
    ("core", "max_active_tasks_per_dag"): "64",
    # --- speed
    # For plugins folders without the bell; with it the warm executor does the waiting, as it can be woken.
    ("scheduler", "scheduler_idle_sleep_time"): "0.1",
    # One look at every active run per loop, not 20 of a thousand.
    ("scheduler", "max_dagruns_per_loop_to_schedule"): "100",
    ("scheduler", "max_dagruns_to_create_per_loop"): "50",
    ("scheduler", "catchup_by_default"): "False",
    # Tasks of a scheduler that was killed are found this often and run again (default 300).
    ("scheduler", "orphaned_tasks_check_interval"): "20",
    ("workers", "min_heartbeat_interval"): "1",
    # The first call after boot takes seconds, and so may any call on a busy laptop.
    ("workers", "execution_api_timeout"): "30",
    ("dag_processor", "refresh_interval"): "10",
    # A changed DAG file is parsed at once, and so are all when a model's files change (`spec_watch`).
    ("dag_processor", "min_file_process_interval"): "120",
    ("dag_processor", "parsing_processes"): "1",
    # --- closed to others
    ("api", "host"): HOST,
    ("api", "workers"): "1",
    ("api", "enable_swagger_ui"): "False",
    ("api", "expose_config"): "False",
    ("api", "instance_name"): "Windsock",
    # No health server (it would bind all interfaces); `windsock status` asks the API.
    ("scheduler", "enable_health_check"): "False",
    ("core", "simple_auth_manager_users"): f"{ADMIN_USER}:admin",
    ("core", "simple_auth_manager_all_admins"): "False",
    ("core", "test_connection"): "Disabled",
    # --- quiet
    ("logging", "logging_level"): "INFO",
    ("logging", "dag_processor_log_target"): "file",
    ("logging", "colored_console_log"): "False",
}


def airflow_variables(
    *,
    home: Home,
    dags_folder: Path,
    plugins_folder: Path,
    port: int,
    database_url: str,
    credentials: Credentials,
    environ: Mapping[str, str],
) -> dict[str, str]:
    """Return the environment that configures every Airflow process of a stack.

    The secrets of ``credentials`` end up in the values: log only the names. Overrides
    (``WINDSOCK_AIRFLOW__SECTION__KEY``) are looked up in ``environ``.
    """
    url = f"http://{HOST}:{port}"
    placed: dict[tuple[str, str], str] = {
        ("core", "dags_folder"): str(dags_folder),
        ("core", "plugins_folder"): str(plugins_folder),
        ("core", "execution_api_server_url"): f"{url}/execution/",
        ("core", "fernet_key"): credentials.fernet_key,
        ("core", "simple_auth_manager_passwords_file"): str(credentials.passwords_file),
        ("api", "port"): str(port),
        ("api", "base_url"): url,
        ("api", "secret_key"): credentials.api_secret_key,
        ("api_auth", "jwt_secret"): credentials.jwt_secret,
        ("database", "sql_alchemy_conn"): database_url,
        ("logging", "base_log_folder"): str(home.airflow / "logs"),
        ("logging", "dag_processor_child_process_log_directory"): str(home.airflow / "logs" / "dag_processor"),
    }
    rung = {}
    if (plugins_folder / _BELL_PLUGIN).is_file():
        placed["scheduler", "scheduler_idle_sleep_time"] = "0"
        rung["WINDSOCK_SCHEDULER_BELL"] = str(home.scheduler_bell)
    variables = rung | {_variable(*place): value for place, value in {**_TUNING, **placed}.items()}
    variables["AIRFLOW_HOME"] = str(home.airflow)
    for name, value in environ.items():
        if name.startswith(OVERRIDE_PREFIX):
            variables[name.removeprefix("WINDSOCK_")] = value
    return variables


def ignored_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the inherited settings of another Airflow, which a stack does not obey."""
    named = {"AIRFLOW_HOME", "AIRFLOW_CONFIG"}
    return sorted(name for name in environ if name.startswith("AIRFLOW__") or name in named)


def _variable(section: str, key: str) -> str:
    return f"AIRFLOW__{section.upper()}__{key.upper()}"
