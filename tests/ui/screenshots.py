"""Take the pictures of the documentation from a finished demo whose stack still runs.

``.venv/bin/python tests/ui/screenshots.py [HOME]`` writes ``docs/images/*.png``.
"""

import sys
from pathlib import Path

from browser import browser_page, log_in, open_dag, open_trigger_dialog
from playwright.sync_api import Page

from windsock.errors import UpstreamUnavailable
from windsock.ledger import Ledger
from windsock.settings import REPO_ROOT, Settings
from windsock_local.stack.home import ADMIN_USER, Home, read_stack

IMAGES = REPO_ROOT / "docs" / "images"


def take(page: Page, name: str) -> None:
    page.wait_for_timeout(3000)  # charts fade in
    page.screenshot(path=IMAGES / f"{name}.png")


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern), key=lambda p: p.stat().st_mtime)


def main(home: Path) -> None:
    settings = Settings.from_env({"WINDSOCK_HOME": str(home)})
    stack = read_stack(settings)
    if stack is None:
        raise UpstreamUnavailable(f"No stack runs under {home}. Run `make demo` first.")
    with browser_page(1280, 860) as page:
        log_in(page, stack.airflow_url, ADMIN_USER, Home.of(settings).admin_password())
        page.goto(f"{stack.airflow_url}/dags?limit=100")
        take(page, "airflow-dags")
        open_dag(page, stack.airflow_url, "fraud_ingest")
        open_trigger_dialog(page).get_by_text("Run this Dag for a range of dates").click()
        take(page, "backfill-form")
        open_dag(page, stack.airflow_url, "fraud_train")
        open_trigger_dialog(page)
        take(page, "train-form")
        page.goto(f"{stack.airflow_url}/dags/fraud_train/runs")
        page.locator("a[href*='/fraud_train/runs/']").first.click()
        page.get_by_label("Show Graph", exact=False).click()
        take(page, "train-run")
        store = Path(settings.store)
        nights = Ledger.of(settings, "fraud", "monitor")
        drifted = max(day for day, night in nights.records(nights.days()).items() if night.detail.get("drifted"))
        for name, path in {
            "gate-report": newest(store, "runs/fraud/*/gate.html"),
            "drift-report": newest(store, f"reports/fraud/{drifted}*/*.html"),
        }.items():
            page.goto(path.absolute().as_uri())
            take(page, name)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else REPO_ROOT / "var" / "demo"))
