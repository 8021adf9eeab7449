"""What the stack's processes inherit, and what they do not."""

import json
from pathlib import Path

import pytest

from windsock.settings import Settings
from windsock_local.stack.environment import airflow_variables, ignored_variables, part_env, service_env
from windsock_local.stack.home import SECRETS, Home
from windsock_local.stack.parts import MLFLOW, POSTGRES, make_parts
from windsock_local.stack.postgres import Postgres


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "h")
    home.create()
    return home


def airflow(home: Home, environ: dict[str, str]) -> dict[str, str]:
    url = "postgresql+psycopg2://postgres@/airflow?host=/h/run/pg"
    return airflow_variables(home, port=8123, database_url=url, environ=environ)


def test_the_embedded_airflow_listens_on_loopback_and_knows_its_address(home: Home) -> None:
    variables = airflow(home, {})

    assert variables["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8123/execution/"
    assert variables["AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK"] == "False"
    assert home.admin_password() not in variables.values()


def test_the_scheduler_waits_for_a_bell_only_where_a_plugin_rings_it(home: Home) -> None:
    rung, polled = airflow(home, {}), airflow(home, {"WINDSOCK_PLUGINS_FOLDER": str(home.run)})

    assert rung["WINDSOCK_SCHEDULER_BELL"] == str(home.scheduler_bell)
    assert float(rung["AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"]) == 0
    assert "WINDSOCK_SCHEDULER_BELL" not in polled
    assert float(polled["AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"]) > 0, "else it would never pause"


def test_waiting_runs_cannot_fill_up_a_dag(home: Home) -> None:
    assert int(airflow(home, {})["AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG"]) >= 1000


def test_a_setting_is_changed_by_its_prefixed_name_only(home: Home) -> None:
    environ = {"AIRFLOW__CORE__PARALLELISM": "99", "WINDSOCK_AIRFLOW__CORE__PARALLELISM": "6"}

    assert airflow(home, environ)["AIRFLOW__CORE__PARALLELISM"] == "6"
    assert ignored_variables({**environ, "AIRFLOW_HOME": "/x", "AIRFLOW_CONN_S3": "y", "MLFLOW_TRACKING_URI": "z"}) == [
        "AIRFLOW_HOME",
        "AIRFLOW__CORE__PARALLELISM",
        "MLFLOW_TRACKING_URI",
    ]


def test_variables_of_other_programs_do_not_reach_the_parts(monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    names = ("AIRFLOW__CORE__EXECUTOR", "AIRFLOW_HOME", "PGPORT", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE")
    for name in (*names, "WINDSOCK_AIRFLOW_PASSWORD", "WINDSOCK_AIRFLOW_TOKEN"):
        monkeypatch.setenv(name, "wrong")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgresql://w")
    settings = Settings.from_env({"WINDSOCK_HOME": str(home.root)})

    env = part_env(settings, airflow_url="http://a", mlflow_url="http://m", airflow=airflow(home, {}))

    assert "wrong" not in env.values()
    assert env["MLFLOW_TRACKING_URI"] == "http://m"
    assert env["AIRFLOW_HOME"] == str(home.airflow)
    assert env["AIRFLOW_CONN_WAREHOUSE"] == "postgresql://w"


def test_mlflow_and_the_database_get_nothing_of_airflows_and_nothing_of_the_users(
    monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    for name in ("AIRFLOW_CONN_WAREHOUSE", "AWS_SECRET_ACCESS_KEY", "WINDSOCK_SLACK_TOKEN", "WINDSOCK_STUDIES"):
        monkeypatch.setenv(name, "the user's")
    variables = airflow(home, {})
    parts = {part.name: part for part in make_parts(home, Postgres(home), airflow_port=1, mlflow_port=2)}

    for name in (MLFLOW, POSTGRES):
        env = parts[name].environment
        assert env is not None
        assert "the user's" not in env.values()
        assert not [variable for variable in env if variable.startswith("AIRFLOW")]
        assert not {home.secret(secret) for secret in SECRETS} & set(env.values())
    assert "WINDSOCK_MLFLOW_SECRET_FILE" not in parts[POSTGRES].environment  # type: ignore[operator]
    assert {part.environment for part in parts.values() if part.name not in (MLFLOW, POSTGRES)} == {None}
    assert variables["AIRFLOW__API__SECRET_KEY"] == home.secret("api_secret_key")


def test_passwords_of_further_users_are_made_before_airflow_would_print_them(home: Home) -> None:
    airflow(home, {})
    users = {"WINDSOCK_AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin, bob:viewer"}

    file = Path(airflow(home, users)["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])

    passwords = json.loads(file.read_text())
    assert passwords.keys() == {"admin", "bob"}
    assert passwords["admin"] == home.admin_password() != passwords["bob"]
    airflow(home, users)
    assert json.loads(file.read_text()) == passwords


def test_nothing_phones_home_and_loopback_never_goes_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NO_PROXY", "corp.example")
    monkeypatch.delenv("no_proxy", raising=False)
    settings = Settings.from_env({"WINDSOCK_HOME": str(tmp_path)})

    env = service_env(settings, airflow_url="http://a", mlflow_url="http://m")

    assert env["NO_PROXY"] == env["no_proxy"] == "corp.example,127.0.0.1,localhost"
    assert env["GX_ANALYTICS_ENABLED"] == "false"
    assert env["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert env["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert "WINDSOCK_STACK_HOME" not in env, "a step started by hand must not be swept away with a stack"
