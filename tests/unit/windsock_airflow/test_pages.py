"""The pages in the Airflow UI: for users only, from the store only, sandboxed; and light to load."""

import subprocess
import sys
from pathlib import Path

import pytest

from windsock.settings import REPO_ROOT
from windsock_airflow.pages import make_app, model_of, read_page, read_plan


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WINDSOCK_STORE", str(tmp_path))
    for name in ("reports/fraud/2026-03-01/drift.html", "runs/fraud/r1/gate.json", "runs/fraud/r1/model/model.html"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return tmp_path


def test_reports_and_verdicts_are_served(store: Path):
    page, record = "reports/fraud/2026-03-01/drift.html", "runs/fraud/r1/gate.json"
    assert read_page(page) == (page.encode(), "text/html; charset=utf-8")
    assert read_page(record) == (record.encode(), "application/json")


@pytest.mark.parametrize(
    "path",
    [
        "secrets/admin_password",
        "reports/../secrets/x.json",
        "runs/fraud/../x.html",
        "runs/fraud/r1/model/model.html",
        "/etc/passwd",
        "reports/fraud/2026-03-01/absent.html",
    ],
)
def test_nothing_else_is_served(store: Path, path: str):
    assert read_page(path) is None


def test_every_page_asks_who_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    from airflow.api_fastapi.core_api.security import get_user

    assert [d.dependency for d in make_app().router.dependencies] == [get_user]


def test_a_dag_leads_to_the_plan_of_its_model(store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WINDSOCK_MODELS", str(REPO_ROOT / "include" / "models"))
    assert model_of("fraud_train") == "fraud"
    assert model_of("fraud") is None
    assert model_of("somebody_elses_train") is None
    assert "fraud   against nothing" in read_plan("fraud")


def test_loading_the_plugin_imports_no_web_framework(tmp_path: Path):
    script = f"""
import sys, runpy
from airflow.plugins_manager import AirflowPlugin
before = set(sys.modules)
found = runpy.run_path({str(REPO_ROOT / "plugins" / "windsock_pages.py")!r})
print(found["WindsockPages"].external_views)
print(sorted(m for m in set(sys.modules) - before if m in ("fastapi", "airflow.api_fastapi.app", "pandas")))
"""
    env = {"PATH": "", "AIRFLOW_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": "http://mlflow.example"}
    for own, href in (
        ({"WINDSOCK_MLFLOW_SECRET": "s" * 40}, "http://127.0.0.1:8080/windsock/mlflow"),
        (
            {},
            "http://mlflow.example",
        ),
    ):
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env={**env, **own}, capture_output=True, text=True, check=True)
        views, heavy = done.stdout.splitlines()[-2:]
        assert f"'href': '{href}'" in views
        assert "'href': '/windsock/plan/{DAG_ID}'" in views
        assert heavy == "[]"


def test_a_browser_that_is_not_logged_in_is_led_to_the_login_and_a_program_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import FastAPI, HTTPException
    from fastapi.testclient import TestClient

    def nobody() -> None:
        raise HTTPException(401, "Not authenticated")

    whole, pages = FastAPI(), make_app()
    monkeypatch.setitem(pages.dependency_overrides, get_user, nobody)
    whole.mount("/windsock", pages)
    with TestClient(whole, follow_redirects=False) as client:
        asked = "/windsock/mlflow?to=/models"
        led = client.get(asked, headers={"Accept": "text/html,*/*"})
        assert led.status_code == 303
        assert led.headers["location"].endswith("/api/v2/auth/login?next=%2Fwindsock%2Fmlflow%3Fto%3D%2Fmodels")
        assert client.get(asked).status_code == 401
