"""What people do in Airflow's web UI, done in a real browser: log in, trigger with the form, backfill.

``python tests/ui/screenshots.py`` takes the pictures of the documentation.
"""

import shutil
from collections.abc import Iterator
from datetime import date

import pytest
from browser import CHROMIUM_NAMES, browser_page, log_in, open_at, open_dag, open_trigger_dialog
from playwright.sync_api import Page, expect

from windsock_local.stack.home import ADMIN_USER, Home

pytestmark = [pytest.mark.ui, pytest.mark.integration]

STAGES = ("ingest", "features", "score", "monitor", "retrain", "train", "promote", "rollback", "maintenance")


@pytest.fixture(scope="module")
def page(stack) -> Iterator[Page]:
    if not any(shutil.which(name) for name in CHROMIUM_NAMES):
        pytest.skip(f"no browser: install Chromium (one of {', '.join(CHROMIUM_NAMES)} on the PATH)")
    for stage in STAGES:
        stack.api.wait_for_dag(f"fraud_{stage}")
    with browser_page() as opened:
        log_in(opened, stack.airflow_url, ADMIN_USER, Home.of(stack.settings).admin_password())
        yield opened


def test_a_wrong_password_is_refused_and_a_right_one_shows_the_dags_of_every_stage(stack, page: Page):
    stranger = page.context.browser.new_page()  # shares no cookie with the page that is logged in
    log_in(stranger, stack.airflow_url, ADMIN_USER, "not the password", expect_success=False)
    expect(stranger.get_by_text("Invalid credentials")).to_be_visible()
    stranger.close()
    for stage in STAGES:  # the page lists what was parsed when it was opened
        stack.api.wait_for_dag(f"fraud_{stage}", 240)
    first_stage = page.get_by_role("link", name=f"fraud_{STAGES[0]}", exact=True).first
    # Of each DAG that it lists the page asks several things; those of other models need not be among them.
    open_at(page, f"{stack.airflow_url}/dags?limit=100&name_pattern=fraud_", first_stage)
    for stage in STAGES:
        expect(page.get_by_role("link", name=f"fraud_{stage}", exact=True).first).to_be_visible(timeout=30_000)


def test_the_training_form_comes_from_the_spec_and_its_values_reach_the_run(stack, page: Page):
    open_dag(page, stack.airflow_url, "fraud_train")
    dialog = open_trigger_dialog(page)
    expect(dialog.locator("input[name=element_window_days]")).to_have_value("21")
    dialog.locator("input[name=element_trials]").fill("3")
    dialog.locator("input[name=element_reason]").fill("from the browser")
    dialog.get_by_test_id("trigger-dag-submit").click()
    expect(dialog).to_be_hidden(timeout=30_000)
    runs = [r for r in stack.api.runs("fraud_train") if r["conf"].get("reason") == "from the browser"]
    assert len(runs) == 1
    assert runs[0]["conf"]["trials"] == 3
    assert runs[0]["run_type"] == "manual"


def test_a_backfill_started_in_the_browser_runs_the_days_through_the_chain(stack, page: Page):
    for stage in ("ingest", "features", "score"):
        stack.api.set_paused(f"fraud_{stage}", False)
    open_dag(page, stack.airflow_url, "fraud_ingest")
    dialog = open_trigger_dialog(page)
    dialog.get_by_text("Run this Dag for a range of dates").click()
    for day in ("2026/09/01", "2026/09/03"):
        dialog.get_by_text("Select date and time").first.click()
        page.get_by_placeholder("YYYY/MM/DD").last.fill(day)
        page.get_by_placeholder("HH:mm").last.fill("00:00")
        page.keyboard.press("Enter")
        dialog.get_by_text("Date Range").click()  # closes the calendar
    start = dialog.get_by_role("button", name="Run Backfill")
    expect(start).to_be_enabled()
    start.click()
    expect(dialog).to_be_hidden(timeout=30_000)
    backfills = list(stack.api.pages("backfills", "backfills", dag_id="fraud_ingest"))
    assert len(backfills) == 1
    runs = stack.api.wait_for_days("fraud_ingest", date(2026, 9, 1), date(2026, 9, 3), 180).values()
    assert sorted((r["partition_key"], r["state"]) for r in runs) == [(f"2026-09-0{n}", "success") for n in (1, 2, 3)]


def test_airflows_menu_leads_into_mlflow_without_another_login(page: Page, stack):
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status in {401, 403} else None)
    page.goto(f"{stack.airflow_url}/windsock/mlflow?to=/models")
    expect(page).to_have_url(f"{stack.mlflow_url}/#/models")
    expect(page.get_by_text("Registered Models").first).to_be_visible(timeout=30_000)
    page.goto(f"{stack.mlflow_url}/#/experiments")
    expect(page.get_by_text("Experiments").first).to_be_visible(timeout=30_000)
    assert refused == []


def test_who_opens_mlflow_itself_is_led_by_airflows_login(page: Page, stack):
    stranger = page.context.browser.new_page()
    stranger.goto(stack.mlflow_url)
    stranger.get_by_role("link", name="sign in there").click()
    stranger.locator("input[name=username]").fill(ADMIN_USER)
    stranger.locator("input[name=password]").fill(Home.of(stack.settings).admin_password())
    stranger.locator("button[type=submit]").click()
    stranger.wait_for_url(f"{stack.mlflow_url}/**", timeout=30_000)
    expect(stranger.get_by_text("Experiments").first).to_be_visible(timeout=30_000)
    stranger.close()
