"""The pages of the UI plugin: for users only, from the store only, sandboxed."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from windsock.settings import REPO_ROOT


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    monkeypatch.setenv("WINDSOCK_STORE", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    found = importlib.util.spec_from_file_location("windsock_pages", REPO_ROOT / "plugins" / "windsock_pages.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_a_report_is_served_and_cannot_reach_out(plugin: Any, tmp_path: Path):
    report = tmp_path / "reports" / "fraud" / "2026-03-01" / "drift.html"
    report.parent.mkdir(parents=True)
    report.write_text("<h1>drift</h1>", encoding="utf-8")
    shown = plugin.page("reports/fraud/2026-03-01/drift.html")
    assert shown.body == b"<h1>drift</h1>"
    assert shown.headers["content-security-policy"].startswith("sandbox")
    assert "allow-same-origin" not in shown.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "secrets/admin_password",
        "reports/../secrets/x.json",
        "runs/fraud/../x.html",
        "runs/fraud/r1/model/model.txt",
        "/etc/passwd",
        "reports/fraud/2026-03-01/absent.html",
    ],
)
def test_nothing_else_is_served(plugin: Any, path: str):
    from fastapi import HTTPException

    with pytest.raises(HTTPException) as refused:
        plugin.page(path)
    assert refused.value.status_code == 404


def test_every_page_asks_who_is_there_and_mlflow_has_its_place(plugin: Any):
    from airflow.api_fastapi.core_api.security import get_user

    assert [d.dependency for d in plugin.app.router.dependencies] == [get_user]
    (view,) = plugin.WindsockPages.external_views
    assert view["href"] == "http://127.0.0.1:5000"
