"""The ticket with which somebody who is logged in to Airflow comes in to MLflow."""

import re
from pathlib import Path

import pytest

from windsock.mlflow_keys import Kind, read
from windsock.settings import Settings
from windsock_airflow.mlflow_door import link_to, role_of, ticket_page

SECRET = "s" * 40


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """Airflow's own kind of user, judged by its own auth manager."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("WINDSOCK_MLFLOW_SECRET", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("WINDSOCK_MLFLOW_URL", "https://mlflow.example.com")
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    monkeypatch.setattr("airflow.api_fastapi.app.get_auth_manager", SimpleAuthManager)
    return SimpleAuthManagerUser


def test_airflows_roles_decide_who_writes(people: type):
    given = {role: role_of(people(username="ada", role=role)) for role in ("viewer", "user", "op", "admin")}
    assert given == {"viewer": "viewer", "user": "viewer", "op": "op", "admin": "op"}


def test_somebody_without_a_role_gets_no_ticket(people: type):
    from fastapi import HTTPException

    with pytest.raises(HTTPException) as refused:
        ticket_page(people(username="eve", role=None), "/")
    assert refused.value.status_code == 403


def test_the_page_hands_over_a_ticket_to_mlflow_alone_and_is_kept_nowhere(people: type):
    page = ticket_page(people(username="ada", role="viewer"), '"><script>alert(1)</script>')
    text = bytes(page.body).decode()
    ticket = re.search('name="ticket" value="([^"]+)"', text)
    assert ticket is not None
    assert (read(SECRET, Kind.TICKET, ticket[1]).name, read(SECRET, Kind.TICKET, ticket[1]).role) == ("ada", "viewer")
    assert 'action="https://mlflow.example.com/windsock/ticket"' in text
    assert "<script>alert" not in text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "form-action https://mlflow.example.com;" in policy
    assert page.headers["Cache-Control"] == "no-store"


def test_without_a_secret_buttons_lead_straight_to_a_companys_mlflow():
    own = Settings.from_env({"MLFLOW_TRACKING_URI": "http://m:5000", "WINDSOCK_MLFLOW_SECRET": SECRET})
    companys = Settings.from_env({"MLFLOW_TRACKING_URI": "https://mlflow.company"})
    none = Settings.from_env({})
    page = "/models/fraud/versions/1"
    assert link_to(own, "/windsock", page) == f"http://127.0.0.1:8080/windsock/mlflow?to={page}"
    assert link_to(companys, "/windsock", page) == f"https://mlflow.company/#{page}"
    assert link_to(none, "/windsock", page) == link_to(none, "/windsock") == ""
