"""The pages in the Airflow UI: for users only, from the store only, sandboxed; and light to load."""

import contextlib
import os
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from windsock.settings import REPO_ROOT
from windsock_airflow.page_files import open_page
from windsock_airflow.pages import make_app, model_of, read_plan

HTML = "text/html; charset=utf-8"
PAGE, RECORD = "reports/fraud/2026-03-01/drift.html", "runs/fraud/r1/gate.json"
DOCS = "great_expectations/uncommitted/data_docs/local_site"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store and a home with some pages, and things that are none."""
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WINDSOCK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    names = (PAGE, RECORD, "runs/fraud/r1/model/model.html", "runs/fraud/r1/request.py", "secrets/fraud/r1/x.json")
    home = (f"{DOCS}/index.html", f"{DOCS}/static/styles/a.css", f"{DOCS}/../secret.html", "secrets/admin_password")
    for path in [*(tmp_path / "store" / name for name in names), *(tmp_path / "home" / name for name in home)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name, encoding="utf-8")
    return tmp_path / "store"


@pytest.fixture
def client(store: Path) -> TestClient:
    """The app, asked by somebody who is logged in."""
    from airflow.api_fastapi.core_api.security import get_user

    app = make_app.__wrapped__()
    app.dependency_overrides[get_user] = lambda: "somebody"
    return TestClient(app, raise_server_exceptions=True)


def test_reports_verdicts_and_data_docs_are_served_sandboxed(client: TestClient):
    for path, kind in ((PAGE, HTML), (RECORD, "application/json"), ("data-docs/index.html", HTML),
                       ("data-docs/static/styles/a.css", "text/css; charset=utf-8")):  # fmt: skip
        answer = client.get(f"/pages/{path}")
        assert (answer.status_code, answer.text) == (200, path.rpartition("/")[2]), path
        assert answer.headers["content-type"] == kind
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("sandbox ")
        assert "allow-same-origin" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def hostile(store: Path) -> list[str]:
    """Return paths that lead to no page, though there is something at the end of many of them."""
    home, folder = store.parent / "home", store / "reports/fraud/2026-03-01"
    for name, target in (("link.html", home / "secrets/admin_password"), ("inside.html", store / RECORD),
                         ("relative.html", Path("../../../../home/secrets/admin_password")),
                         ("itself.html", folder / "itself.html"), ("device.html", Path("/dev/zero"))):  # fmt: skip
        (folder / name).symlink_to(target)
    (store / "reports/fraud/elsewhere").symlink_to(home / DOCS)
    (store / "runs/other").symlink_to("/etc")
    (home / DOCS / "link.html").symlink_to(home / "secrets/admin_password")
    (home / DOCS / "out").symlink_to(home)
    os.mkfifo(folder / "pipe.html")
    (folder / "folder.html").mkdir()
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(folder):
        listening.bind("socket.html")  # a socket is bound by at most 107 bytes
    day = "reports/fraud/2026-03-01"
    return [
        "", "/", ".", "..", "%00", "reports", "reports/", f"{day}/", day, "data-docs", "data-docs/", "data-docs/..",
        "secrets/admin_password", "secrets/fraud/r1/x.json", "/etc/passwd", "//etc/passwd", "file:///etc/passwd",
        "http://localhost/x.html", "s3://bucket/reports/fraud/d/x.html", "reports/../secrets/x.json",
        "runs/fraud/../x.html", "reports/fraud/../../secrets/fraud/r1/x.json", "..%2fhome%2fsecrets%2fadmin_password",
        f"{day}/..%2f..%2f..%2fsecrets%2fx.json", f"{day}\\drift.html", f"{PAGE}%00", f"{PAGE}/",
        f"{PAGE}/x.html", f"{PAGE} ", f" {PAGE}", PAGE.upper(), f"{day}/absent.html", f"{day}/{'a' * 300}.html",
        f"{day}/{'a' * 60_000}.html", f"{'reports/' * 5000}x.html", f"{day}/.hidden.html", f"{day}/drift.htm",
        f"{day}/drift.html.exe", f"{day}/dr\u0131ft.html", f"{day}/drift\u2024html", "runs/fraud/r1/model/model.html",
        "runs/fraud/r1/request.py", "runs/other/ssl/openssl.json", "reports/fraud/elsewhere/index.html",
        f"{day}/link.html", f"{day}/relative.html", f"{day}/itself.html", f"{day}/device.html", f"{day}/pipe.html",
        f"{day}/folder.html", f"{day}/socket.html", "data-docs/link.html", "data-docs/out/secrets/admin_password",
        f"data-docs/out/{DOCS}/../secret.html", "data-docs/../secret.html", "data-docs/..%2fsecret.html",
        f"data-docs/{'a/' * 500}x.html", "data-docs/index.py",
    ]  # fmt: skip


def test_sixty_odd_requests_get_404_and_nothing_of_what_lies_elsewhere(client: TestClient, store: Path):
    asked = hostile(store)
    assert len(set(asked)) >= 40
    for path in asked:
        answer = client.get(f"/pages/{path}")
        assert answer.status_code == 404, path
        assert len(answer.content) < 200, path
        assert "admin_password" not in answer.text
    assert client.get("/pages/reports/fraud/2026-03-01/inside.html").text == "gate.json"  # it leads nowhere else
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, f"/pages/{PAGE}").status_code == 405
    for odd in ("fraud", "_train", "../fraud_train", "fraud_train/x", "%00_train", "a" * 10_000):
        assert client.get(f"/plan/{odd}").status_code == 404, odd


def test_a_large_page_is_read_in_parts_and_closed(store: Path):
    with (store / PAGE).open("wb") as file:
        file.truncate(64 << 20)
    page = open_page(PAGE)
    assert page is not None
    tracemalloc.start()
    assert sum(map(len, page.parts())) == 64 << 20
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert page.file.closed


def test_a_store_that_cannot_be_read_is_said(client: TestClient, store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WINDSOCK_STORE", "nosuch://bucket/store")
    answer = client.get(f"/pages/{PAGE}")
    assert answer.status_code == 503
    assert "cannot be opened" in answer.json()["detail"]


def test_every_page_asks_who_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    from airflow.api_fastapi.core_api.security import get_user

    asking = {r.path: {d.call for d in r.dependant.dependencies} for r in make_app().routes if hasattr(r, "dependant")}
    assert {path for path, asked in asking.items() if get_user not in asked} == {"/metrics"}, "which asks for its token"
    assert len(asking) > 4


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
