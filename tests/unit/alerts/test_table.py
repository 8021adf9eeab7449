"""The table of alerts, in a shell and in the Airflow UI: one row for each trouble, and whether it is over."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from fake_slack import FakeSlack
from small_model import small_fraud
from windsock.alerts import Alert, report, send_waiting
from windsock.cli.alerts import alerts
from windsock.settings import Settings
from windsock_airflow.pages import make_app


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A failure that came twice and is over, one that goes on, and a promotion."""
    _, spec = small_fraud(tmp_path)
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    monkeypatch.delenv("WINDSOCK_STORE", raising=False)
    with FakeSlack("error") as slack:
        settings = Settings.from_env({"WINDSOCK_HOME": str(tmp_path), **slack.env})
        for number in (1, 2):
            report(settings, Alert("fraud_ingest", f"<b>no {number}</b>", cause=f"a{number}", thread="failed a"), spec)
        over = Alert("fraud_ingest", "It runs again.", cause="a over", thread="failed a", closes=True)
        report(settings, over, spec)
        url = "http://ui/runs/1"
        going_on = Alert("fraud_score", "Store away", "score", "2026-03-05", url, cause="b", thread="failed b")
        report(settings, going_on, spec)
        told = Alert("fraud_promote", "Version 2", headline="New champion", cause="c", kind="promotion")
        report(settings, told, spec)
        send_waiting(settings)
    return settings


def test_a_shell_lists_each_trouble_once_newest_first(installation: Settings) -> None:
    rows = json.loads(CliRunner().invoke(alerts, ["--json"]).output)
    assert [(row["headline"], row["count"], row["state"], row["waiting"]) for row in rows] == [
        ("New champion", 1, "told", True),
        ("Task failed", 1, "open", True),
        ("Task failed", 2, "over", True),
    ]
    assert rows[2]["sentence"] == "It runs again."
    shown = CliRunner().invoke(alerts, ["--open"], env={"COLUMNS": "200"}).output
    assert "Store away" in shown
    assert "New champion" not in shown
    assert "Nothing was reported" in CliRunner().invoke(alerts, ["-m", "nobody"]).output


def test_the_page_shows_them_to_users_only_and_runs_nothing(installation: Settings) -> None:
    from airflow.api_fastapi.core_api.security import get_user

    app = make_app.__wrapped__()
    assert TestClient(app).get("/alerts").status_code == 401
    app.dependency_overrides[get_user] = lambda: "somebody"
    answer = TestClient(app).get("/alerts")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert '<a target="_blank" rel="noreferrer" href="http://ui/runs/1">🔴 Task failed</a>' in answer.text
    assert "Task failed (2×)" in answer.text
    assert "<b>no" not in answer.text
