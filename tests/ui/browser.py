"""A headless Chromium that talks to nothing but the page under test."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Error, Locator, Page, expect, sync_playwright

log = logging.getLogger(__name__)

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_DEAF_TO_OFFLINE = "window.addEventListener('offline', event => event.stopImmediatePropagation(), true)"
"""A browser watches the interfaces of its machine, which other tests' pods make and remove. When the last one beside
loopback goes, it says that it is offline, and Airflow's pages then ask loopback for nothing more until it is back."""


@contextmanager
def browser_page(width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """Open a page in a browser of its own."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(30_000)
        page.context.add_init_script(_DEAF_TO_OFFLINE)
        page.on("requestfailed", lambda request: log.warning("%s %s: %s", request.method, request.url, request.failure))
        try:
            yield page
        finally:
            browser.close()


def open_at(page: Page, url: str, shows: Locator) -> None:
    """Open an address and wait until the page shows something.

    A browser breaks requests off whenever an interface of its machine comes or goes, and Airflow's pages do not repeat
    what was broken off while they loaded: then it is opened again, as a person would.
    """
    for last in (False, False, True):
        try:
            page.goto(url, wait_until="commit")  # what else it asks for may take long on a busy machine
            expect(shows).to_be_visible(timeout=60_000)
            return
        except (AssertionError, Error):
            if last:
                raise
            log.warning("%s does not show what it should; it is opened again", url)


def log_in(page: Page, url: str, user: str, password: str, *, expect_success: bool = True) -> None:
    """Log in on Airflow's own form."""
    page.goto(url)
    page.locator("input[name=username]").fill(user)
    page.locator("input[name=password]").fill(password)
    page.locator("button[type=submit]").click()
    if expect_success:
        expect(page.get_by_role("link", name="Dags").first).to_be_visible(timeout=30_000)


def open_dag(page: Page, url: str, dag_id: str) -> None:
    """Open a DAG's page."""
    open_at(page, f"{url}/dags/{dag_id}", page.get_by_role("button", name="Trigger").first)


def open_trigger_dialog(page: Page) -> Locator:
    """Open the trigger dialog of the DAG that is shown."""
    page.get_by_role("button", name="Trigger").first.click()
    dialog = page.locator("[data-scope=dialog][role=dialog]")
    expect(dialog).to_be_visible()
    return dialog
