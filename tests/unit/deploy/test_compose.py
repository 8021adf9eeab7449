"""What must hold for the compose file: closed containers, no password in it, everything watched and in order."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from windsock.settings import REPO_ROOT

DOCKER = REPO_ROOT / "docker"
TEXT = (DOCKER / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service["restart"] == "no"}
AIRFLOW = {"init", "api-server", "scheduler", "dag-processor", "triggerer"}

every_service = pytest.mark.parametrize("name", SERVICES)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that make-env.sh has filled."""
    folder = tmp_path_factory.mktemp("compose") / "made"
    subprocess.run([str(DOCKER / "make-env.sh"), str(folder)], check=True, capture_output=True)
    return folder


def secrets(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in (folder / "secrets").iterdir()}


@every_service
def test_a_container_is_closed(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert "privileged" not in service
    if name == "s3-volume":  # gives a fresh volume to the server's user; has no network and ends at once
        assert service["cap_add"] == ["CHOWN"]
        assert service["network_mode"] == "none"
    else:
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
        assert "cap_add" not in service


@every_service
def test_a_service_waits_until_what_it_needs_is_ready(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert how == {"condition": wanted}


@every_service
def test_an_image_is_pinned_by_digest_or_is_ours(name: str) -> None:
    image = SERVICES[name]["image"]
    assert image.startswith("${WINDSOCK_IMAGE:?") or re.search(r":[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}$", image)


@every_service
def test_ports_are_bound_to_loopback(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_databases_can_be_reached_by_the_services_alone() -> None:
    assert COMPOSE["networks"]["data"] == {"internal": True}
    for name in ("postgres", "s3", "redis"):
        assert SERVICES[name]["networks"] == ["data"]
        assert "ports" not in SERVICES[name]


@every_service
def test_no_variable_holds_a_secret(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("PASSWORD|SECRET|FERNET|ACCESS_KEY|TOKEN|SQL_ALCHEMY_CONN|REDIS|STUDIES", variable):
            secret = re.fullmatch(r"(?:cat )?(?:/run/secrets/(\w+)|/tmp/passwords\.json)", str(value))
            assert secret, f"{variable} of {name} is not read from a secret's file"
            assert secret.group(1) is None or secret.group(1) in SERVICES[name]["secrets"]


def test_every_secret_is_declared_and_used_and_made(made: Path) -> None:
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    assert used <= set(secrets(made))
    for name, source in COMPOSE["secrets"].items():
        assert re.fullmatch(r"\$\{WINDSOCK_SECRETS(:\?[^}]*)?\}/" + name, source["file"])


def test_what_a_command_or_check_reads_is_among_the_secrets_of_its_service() -> None:
    for name, service in SERVICES.items():
        named = set(re.findall(r"/run/secrets/(\w+)", json.dumps(service)))
        assert named <= set(service.get("secrets", [])), name


def test_secrets_are_closed_to_others_and_stay_out_of_the_settings(made: Path) -> None:
    assert stat.S_IMODE((made / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((made / "compose.env").stat().st_mode) == 0o600
    settings = (made / "compose.env").read_text()
    assert f"WINDSOCK_SECRETS={made}/secrets\n" in settings
    assert not [name for name, value in secrets(made).items() if value and value in settings + TEXT]


def test_secrets_are_random_and_kept_when_the_script_runs_again(made: Path, tmp_path: Path) -> None:
    before = secrets(made)
    for folder in (made, tmp_path / "other"):
        subprocess.run([str(DOCKER / "make-env.sh"), str(folder)], check=True, capture_output=True)
    assert secrets(made) == before
    other = secrets(tmp_path / "other")
    assert not [name for name, value in before.items() if value and value == other[name]]
    assert all(len(value) >= 20 for name, value in before.items() if name != "slack_token")


def test_the_generated_files_fit_who_reads_them(made: Path) -> None:
    from cryptography.fernet import Fernet
    from sqlalchemy import make_url

    found = secrets(made)
    Fernet(found["airflow_fernet"])
    assert json.loads(found["airflow_passwords"]) == {"admin": found["airflow_admin"]}
    assert len(found["airflow_jwt"]) >= 64
    for database in ("airflow", "mlflow", "studies"):
        url = make_url(found[f"url_{database}"])
        assert (url.username, url.password, url.database) == (database, found[f"postgres_{database}"], database)
    assert found["redis_conf"] == f"requirepass {found['redis_password']}\n"
    assert found["redis_url"].endswith(f"password={found['redis_password']}")


def test_urls_lead_to_the_servers_that_were_named(tmp_path: Path) -> None:
    servers = {"PATH": os.environ["PATH"], "POSTGRES": "db.example.com:5433", "REDIS": "cache.example.com:6380"}
    subprocess.run([str(DOCKER / "make-env.sh"), str(tmp_path)], check=True, capture_output=True, env=servers)
    found = secrets(tmp_path)
    assert all(f"@db.example.com:5433/{name}" in found[f"url_{name}"] for name in ("airflow", "mlflow", "studies"))
    assert found["redis_url"].startswith("cache.example.com:6380,db=0,password=")


def test_what_compose_sets_stands_in_the_chapter_on_services_without_containers() -> None:
    chapter = (REPO_ROOT / "docs/deploy.md").read_text().split("## Services without containers")[1].split("\n## ")[0]
    shared = COMPOSE["x-airflow-environment"] | COMPOSE["x-windsock-environment"]
    assert [name for name in shared if name.removesuffix("_FILE") not in chapter] == []


def test_every_variable_of_the_file_stands_in_the_example_with_its_default() -> None:
    example = dict(
        line.split("=", 1)
        for line in (DOCKER / "compose.env.example").read_text().splitlines()
        if re.match(r"\w+=", line)
    )
    used = re.findall(r"(?<!\$)\$\{(\w+)(?::([-?])((?:[^{}]|\$\{[^}]*\})*))?\}", TEXT)
    assert {name for name, _, _ in used} == set(example)
    for name, kind, default in used:
        if kind == "-":
            assert example[name] == ("" if "${" in default else default), name


def test_another_port_alone_changes_the_addresses_that_people_are_sent_to() -> None:
    for port, address in (("AIRFLOW_PORT", "WINDSOCK_UI_URL"), ("MLFLOW_PORT", "WINDSOCK_MLFLOW_URL")):
        uses = [line.strip() for line in TEXT.splitlines() if f"${{{address}" in line]
        assert uses
        assert all(f"${{{address}:-http://127.0.0.1:${{{port}:-" in line for line in uses)


def test_all_processes_of_airflow_have_the_same_configuration() -> None:
    shared = COMPOSE["x-airflow-environment"] | COMPOSE["x-windsock-environment"]
    for name in AIRFLOW:
        environment = SERVICES[name]["environment"]
        assert {key: environment[key] for key in shared} == shared
        assert SERVICES[name]["volumes"] == ["logs:/opt/airflow/logs", "home:/var/lib/windsock"]


def test_mlflow_stands_behind_the_door_and_only_airflow_signs_keys_to_it() -> None:
    mlflow = SERVICES["mlflow"]
    assert "windsock_mlflow.server" in mlflow["command"]
    assert {name for name, service in SERVICES.items() if "mlflow_secret" in service.get("secrets", ())} == (
        AIRFLOW | {"mlflow"}
    )
    assert mlflow["environment"]["WINDSOCK_UI_URL"] == SERVICES["api-server"]["environment"]["WINDSOCK_UI_URL"]
    assert "*" not in mlflow["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]


def test_feast_differs_in_its_online_store_alone() -> None:
    ours = yaml.safe_load((DOCKER / "feature_store.yaml").read_text())
    shipped = yaml.safe_load((REPO_ROOT / "feature_repo" / "feature_store.yaml").read_text())
    assert ours.pop("online_store") == {"type": "redis", "connection_string": "${WINDSOCK_REDIS}"}
    shipped.pop("online_store")
    assert ours == shipped


@pytest.mark.parametrize("part", ["dag-processor", "triggerer"])
@pytest.mark.parametrize(("status", "exit_code"), [("healthy", 0), ("unhealthy", 1), (None, 1)])
def test_a_health_check_ends_as_airflow_says_the_part_is(
    part: str, status: str | None, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = part.replace("-", "_")
    beat = "2026-01-01T00:00:00+00:00" if status else None
    said = {key: {"status": status, f"latest_{key}_heartbeat": beat}}
    monkeypatch.setattr("windsock_local.stack.probes.airflow_health", lambda _url, timeout_seconds: said)

    with pytest.raises(SystemExit) as ended:
        exec(SERVICES[part]["healthcheck"]["test"][-1], {})

    assert int(ended.value.code) == exit_code
