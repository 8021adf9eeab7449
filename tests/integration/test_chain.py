"""The daily chain under a real Airflow: backfill, reruns, changed, refused and missing days, alerts.

A model of its own on a stack that other tests share; the tests build on each other in the order of this file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import create_engine, text

from fake_slack import FakeSlack
from feature_tables import feature_days
from model_runs import wait_until, wait_until_quiet
from small_model import small_fraud
from stack_fixture import Stack
from windsock.cli import main
from windsock.days import day_range
from windsock.ingest.sources.delivery import fetch
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.store import Store
from windsock_local.stack.airflow_api import run_path
from windsock_local.stack.airflow_session import AirflowRefused
from windsock_local.stack.home import ADMIN_USER, Home, read_stack
from windsock_local.stack.stuck_runs import stuck_runs

pytestmark = pytest.mark.integration

MODEL = "daily"
STAGES = ("ingest", "features", "score", "monitor", "retrain", "train", "promote")
FIRST, LAST = date(2026, 3, 1), date(2026, 3, 13)
REFUSED, CHANGED = date(2026, 3, 8), date(2026, 3, 10)
LOOKBACK, WINDOW, DELAY, HOLDOUT = 2, 4, 2, 3
"""A training as of the last day needs them all: it learns from 3 to 6 March, and the refused day lies in the gap."""
RECENT_SQL = f"""
select CUSTOMER_ID, TX_DATETIME as event_timestamp,
       count(*) over recent as NB_TX, avg(TX_AMOUNT) over recent as AVG_AMOUNT
from history
window recent as (
    partition by CUSTOMER_ID order by epoch(TX_DATETIME)::bigint
    range between {LOOKBACK * 86400 - 1} preceding and current row
)
"""


VICTIM = f"""
import os, signal
from airflow.sdk import dag, task
from windsock_airflow.callbacks import on_task_failure

@dag(dag_id="{MODEL}_victim", schedule=None, is_paused_upon_creation=False)
def victim():
    @task(retries=1, retry_delay=1, on_failure_callback=[on_task_failure])
    def killed():
        os.kill(os.getpid(), signal.SIGKILL)
    killed()

victim()
"""
"""A DAG of the model whose task's process is killed in each try, as happens where memory runs out."""
WAITING = ("up_for_reschedule", "deferred")
NEVER = date(2026, 4, 20)
"""A day whose lookback is not there: features of it wait."""


@pytest.fixture(scope="module")
def chain(stack: Stack) -> Stack:
    """The stack with one model more."""
    row = {"TX_AMOUNT": "TX_AMOUNT"}
    view = {"name": "recent", "entity": "customer", "sql": "recent.sql", "lookback_days": LOOKBACK, "ttl_days": 30}
    label = {"column": "TX_FRAUD", "task": "binary", "delay_days": DELAY}
    aside = stack.home / f"{MODEL}.new"  # appears whole
    small_fraud(aside, last_day="2026-04-30")
    folder = aside / "models" / "fraud"
    (folder / "recent.sql").write_text(RECENT_SQL, encoding="utf-8")
    change_spec(folder, name=MODEL, features={"row": row, "views": [view]}, label=label)
    change_source(folder, {"day": str(REFUSED), "kind": "missing_column"})
    folder.rename(stack.models / MODEL)
    (stack.home / "dags" / "victim.py").write_text(VICTIM, encoding="utf-8")
    shutil.rmtree(aside)
    for stage in STAGES:
        stack.api.wait_for_dag(f"{MODEL}_{stage}", 240)
    stack.api.wait_for_dag(f"{MODEL}_victim", 60)
    stack.api.trigger(f"{MODEL}_victim")  # a while before the test that looks what became of it
    return stack


def change_spec(folder: Path, **fields: Any) -> None:
    path = folder / "model.yaml"
    raw = {**yaml.safe_load(path.read_text(encoding="utf-8")), **fields}
    raw["training"] |= {"window_days": WINDOW, "holdout_days": HOLDOUT, "categorical": []}
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


def change_source(folder: Path, *dirt: dict[str, str]) -> None:
    source = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))["source"]
    change_spec(folder, source={**source, "dirt": [*source.get("dirt", []), *dirt]})


def settle(stack: Stack) -> None:
    """Wait until no run of the model is active and no event is on its way to one."""
    wait_until_quiet(stack, 400, {f"{MODEL}_{stage}" for stage in STAGES})


def keys_of(stack: Stack, dag_id: str, state: str = "success", known: set[str] | None = None) -> Counter[str]:
    runs = stack.api.runs(dag_id)
    return Counter(r["partition_key"] for r in runs if r["state"] == state and r["dag_run_id"] not in (known or set()))


def run_ids(stack: Stack, dag_id: str) -> set[str]:
    return {run["dag_run_id"] for run in stack.api.runs(dag_id)}


def run_day(stack: Stack, day: date, dag_id: str = f"{MODEL}_ingest", **conf: Any) -> dict[str, Any]:
    run_id = stack.api.trigger(dag_id, partition_key=str(day), conf=conf)
    return stack.api.wait_for_run(dag_id, run_id, 120)


def feature_bytes(settings: Settings) -> dict[str, str]:
    """Return a hash per feature file in force, and per record that names them."""
    found: dict[str, str] = {}
    root = Path(settings.store)
    for record in (r for days in feature_days(settings, get_spec(settings, MODEL)).values() for r in days.values()):
        found[f"record {record.ds} of {' '.join(record.outputs)}"] = record.content_hash
        for output in record.outputs.values():
            for file in output.files:
                found[file] = hashlib.sha256((root / file).read_bytes()).hexdigest()
    return found


def online_rows(home: Path) -> dict[str, list[Any]]:
    """Return every row of the model that the online store serves."""
    with sqlite3.connect(f"file:{home / 'feast' / 'online.db'}?mode=ro", uri=True) as db:
        tables = [name for (name,) in db.execute("select name from sqlite_master where type = 'table'")]
        ours = [table for table in tables if table.startswith(f"windsock_{MODEL}__")]
        return {table: sorted(map(repr, db.execute(f'select * from "{table}"'))) for table in ours}


def days_as_keys(*days: date) -> Counter[str]:
    return Counter(map(str, days))


def test_thirteen_days_four_at_a_time_give_each_day_exactly_one_run_per_dag(chain: Stack):
    api = chain.api
    api.set_paused(f"{MODEL}_ingest", False)
    api.backfill(f"{MODEL}_ingest", FIRST, LAST, max_active_runs=4)
    runs = list(api.wait_for_days(f"{MODEL}_ingest", FIRST, LAST, 400).values())
    assert Counter(r["partition_key"] for r in runs) == days_as_keys(*day_range(FIRST, LAST))
    assert [r["partition_key"] for r in runs if r["state"] != "success"] == [str(REFUSED)]
    assert most_at_once(runs) == 4

    settle(chain)
    published = days_as_keys(*(d for d in day_range(FIRST, LAST) if d != REFUSED))
    for stage in ("features", "score"):
        assert keys_of(chain, f"{MODEL}_{stage}") == published
        assert len(api.runs(f"{MODEL}_{stage}")) == len(published)
    # Nothing of a backfill reaches the model chain.
    assert not api.runs(f"{MODEL}_train")


def most_at_once(runs: list[dict[str, Any]]) -> int:
    edges = [(r["start_date"], 1) for r in runs] + [(r["end_date"], -1) for r in runs]
    most = active = 0
    for _, step in sorted(edges):
        active += step
        most = max(most, active)
    return most


def test_running_a_day_again_changes_no_byte_and_no_online_value(chain: Stack):
    before = feature_bytes(chain.settings), online_rows(chain.home)
    assert len(before[0]) > 2 * 11
    assert before[1]
    assert all(before[1].values())
    known = run_ids(chain, f"{MODEL}_features")
    day = date(2026, 3, 6)
    assert run_day(chain, day)["state"] == "success"
    settle(chain)
    assert keys_of(chain, f"{MODEL}_features", known=known) == days_as_keys(day)
    assert (feature_bytes(chain.settings), online_rows(chain.home)) == before


def test_an_older_day_again_leaves_every_online_value_as_it_was(chain: Stack):
    before = online_rows(chain.home)
    backfill = chain.api.backfill(f"{MODEL}_ingest", date(2026, 3, 5), date(2026, 3, 5), reprocess="completed")
    wait_until(lambda: keys_of(chain, f"{MODEL}_ingest")["2026-03-05"] == 2, 240, "a second run of the day")
    settle(chain)
    assert backfill
    assert online_rows(chain.home) == before


def test_a_changed_day_refreshes_exactly_the_later_days_within_the_lookback(chain: Stack):
    before = feature_bytes(chain.settings)
    known = run_ids(chain, f"{MODEL}_features")
    change_source(chain.models / MODEL, {"day": str(CHANGED), "kind": "half_day"})
    run = run_day(chain, CHANGED, accept_worse=True, reason="half of it was another shop's")
    assert run["state"] == "success"
    accepted = Ledger.of(chain.settings, MODEL, "ingest").get(CHANGED).detail["accepted_worse"]
    assert (accepted["by"], accepted["reason"]) == ("admin", "half of it was another shop's")
    stale = day_range(CHANGED + timedelta(days=1), CHANGED + timedelta(days=LOOKBACK))
    result = chain.api.xcom(f"{MODEL}_ingest", run["dag_run_id"], "ingest")
    assert result["changed"]
    assert result["refresh"] == [str(day) for day in stale]
    settle(chain)
    assert keys_of(chain, f"{MODEL}_features", known=known) == days_as_keys(CHANGED, *stale)
    after = feature_bytes(chain.settings)
    records = [name for name in before if name.startswith("record") and before[name] != after[name]]
    changed = {name.removeprefix("record ").partition(" ")[0] for name in records}
    assert changed <= {str(day) for day in (CHANGED, *stale)}
    assert str(stale[0]) in changed


@pytest.mark.parametrize("stage", ["ingest", "monitor"])
def test_a_run_without_a_day_fails_in_its_first_task_and_says_so(chain: Stack, stage: str):
    dag_id = f"{MODEL}_{stage}"
    chain.api.set_paused(dag_id, False)
    run_id = chain.api.trigger(dag_id)
    assert chain.api.wait_for_run(dag_id, run_id, 60)["state"] == "failed"
    assert "The partition key is missing" in chain.api.task_log(dag_id, run_id, stage)


def test_a_malformed_day_is_refused_by_the_form_or_by_the_first_task(chain: Stack):
    with pytest.raises(AirflowRefused, match="does not match"):
        chain.api.trigger(f"{MODEL}_ingest", partition_key="2026-02-30")
    run_id = chain.api.trigger(f"{MODEL}_features", partition_key="yesterday")
    assert chain.api.wait_for_run(f"{MODEL}_features", run_id, 60)["state"] == "failed"
    assert chain.api.unanswered_run(f"{MODEL}_promote") is None, "as Airflow itself answers"
    assert "'yesterday' is not a day" in chain.api.task_log(f"{MODEL}_features", run_id, "features")


def test_a_task_that_is_killed_in_each_try_is_reported(chain: Stack, slack: FakeSlack):
    dag_id = f"{MODEL}_features"
    waiting = run_path(dag_id, chain.api.trigger(dag_id, partition_key=str(NEVER)))
    state = f"{waiting}/taskInstances/features"
    wait_until(lambda: chain.api.call("GET", state)["state"] in WAITING, 60, "a waiting task")
    chain.api.call("PATCH", state, {"new_state": "failed"})  # by hand: the last test looks whether it was reported

    def told() -> list[str]:
        return [m["text"] for m in slack.messages if f"{MODEL}_victim" in m["text"]]

    wait_until(lambda: bool(told()), 120, "a message")
    (text,) = told()
    assert "was killed, ran out of memory or lost its worker" in text


def test_a_run_that_waits_for_days_sleeps_until_they_are_there(chain: Stack):
    dag_id, days = f"{MODEL}_features", day_range(LAST + timedelta(days=1), LAST + timedelta(days=3))
    run_id = chain.api.trigger(dag_id, partition_key=str(days[-1]))
    state = f"{run_path(dag_id, run_id)}/taskInstances/features"
    wait_until(lambda: chain.api.call("GET", state)["state"] == "deferred", 60, "a deferred task")

    chain.api.backfill(f"{MODEL}_ingest", days[0], days[-1])
    assert chain.api.wait_for_run(dag_id, run_id, 120)["state"] == "success"
    log = chain.api.task_log(dag_id, run_id, "features")
    assert log.count("Not ready") <= 5, "it asks while the days may just be made, and once more when they are there"
    settle(chain)


def test_a_failing_task_posts_one_message_and_a_backfill_none(chain: Stack, slack: FakeSlack):
    def messages() -> list[dict[str, Any]]:
        return [m for m in slack.messages if str(REFUSED) in str(m)]

    assert not messages(), "the backfill has alerted"
    run = run_day(chain, REFUSED)
    assert run["state"] == "failed"
    wait_until(lambda: bool(messages()), 90, "a message")  # the scheduler sends, not the task
    time.sleep(1)
    (message,) = messages()
    text = str(message)
    for part in (f"{MODEL}_ingest", "ingest", str(REFUSED), "column", "/runs/"):
        assert part in text
    log = chain.api.task_log(f"{MODEL}_ingest", run["dag_run_id"], "ingest")
    assert "DayRejected" in log

    given_up = chain.api.trigger(f"{MODEL}_ingest", partition_key=str(REFUSED), conf={"no_delivery": True})
    assert chain.api.wait_for_run(f"{MODEL}_ingest", given_up, 120)["state"] == "success"
    head = message["blocks"][0]["text"]
    assert head["text"].startswith("🔴 File rejected")
    wait_until(lambda: "over" in messages()[0]["blocks"][0]["text"]["text"], 120, "a thread that is closed")


def test_with_slack_away_the_run_ends_the_same_and_the_message_is_in_the_log_and_comes_later(
    chain: Stack, slack: FakeSlack
):
    before = len(slack.messages)
    with slack.away():
        started = time.monotonic()
        run = run_day(chain, REFUSED)
        assert run["state"] == "failed"
        assert time.monotonic() - started < 30
        assert len(slack.messages) == before
    wait_until(lambda: str(REFUSED) in str(slack.messages[before:]), 150, "the message, once Slack is back")
    log = chain.api.task_log(f"{MODEL}_ingest", run["dag_run_id"], "ingest")
    assert str(REFUSED) in log
    assert f"{MODEL}_ingest" in log.split("Post Execute")[-1]


def test_a_request_crosses_from_the_daily_to_the_model_chain_once(chain: Stack):
    api = chain.api
    onset = FIRST + timedelta(days=8)  # three days of it have matured: the last one judges
    conf = {"as_of": str(LAST), "reasons": ["asked by a test"], "dedupe_key": "test", "trigger": "drift"}
    conf["recovery"] = str(onset)
    request = {"logical_date": None, "conf": conf, "dag_run_id": "drift__test"}
    api.set_paused(f"{MODEL}_train", True)  # Airflow drops events of paused DAGs: the request waits
    api.call("POST", f"dags/{MODEL}_retrain/dagRuns", request)
    announcing = f"dags/{MODEL}_retrain/dagRuns/drift__test/taskInstances/announce"
    wait_until(lambda: api.call("GET", announcing)["state"] == "up_for_reschedule", 60, "a request that waits")
    api.set_paused(f"{MODEL}_train", False)
    assert api.wait_for_run(f"{MODEL}_retrain", "drift__test", 60)["state"] == "success"
    wait_until(lambda: bool(api.runs(f"{MODEL}_train")), 30, "a training")
    (train,) = api.runs(f"{MODEL}_train")
    train = api.wait_for_run(f"{MODEL}_train", train["dag_run_id"], 180)
    assert train["state"] == "success"
    assert api.xcom(f"{MODEL}_train", train["dag_run_id"], "assemble")["as_of"] == str(LAST)
    version = api.xcom(f"{MODEL}_train", train["dag_run_id"], "register")["version"]
    wait_until(lambda: bool(api.runs(f"{MODEL}_promote")), 30, "a verdict")
    (promote,) = api.runs(f"{MODEL}_promote")
    # 300 customers teach little: whether it passes is not the point, that it was judged is.
    judged = api.wait_for_run(f"{MODEL}_promote", promote["dag_run_id"], 180)
    assert judged["state"] == "success", "a refused challenger is a result, and red is for what is broken"
    passed = api.xcom(f"{MODEL}_promote", judged["dag_run_id"], "gate")["passed"]
    last = api.call("GET", f"dags/{MODEL}_promote/dagRuns/{judged['dag_run_id']}/taskInstances/promote")
    assert last["state"] == ("success" if passed else "skipped")
    the_verdict_is_a_page_for_users(chain)
    assert version == "1"
    with pytest.raises(AirflowRefused):
        api.call("POST", f"dags/{MODEL}_retrain/dagRuns", request)
    (lineage,) = Path(chain.settings.store).glob(f"runs/{MODEL}/{LAST}-*/lineage.json")
    asked = json.loads(lineage.read_text(encoding="utf-8"))
    assert (asked["trigger"], asked["reason"], asked["request"]) == ("drift", "asked by a test", "test")
    assert (asked["recovery"], asked["windows"]["gap"]) == (str(onset), [])
    assert asked["windows"]["holdout"] == [str(LAST - timedelta(days=DELAY))]
    api.call("DELETE", run_path(f"{MODEL}_retrain", "drift__test"))  # the store knows of its training all the same
    api.call("POST", f"dags/{MODEL}_retrain/dagRuns", request)
    assert api.wait_for_run(f"{MODEL}_retrain", "drift__test", 60)["state"] == "success"
    assert api.call("GET", announcing)["state"] == "skipped"
    assert len(api.runs(f"{MODEL}_train")) == 1


def the_verdict_is_a_page_for_users(stack: Stack) -> None:
    (verdict,) = Path(stack.settings.store).glob(f"runs/{MODEL}/*/gate.html")
    page = f"{stack.airflow_url}/windsock/pages/{verdict.relative_to(stack.settings.store)}"
    login = {"username": ADMIN_USER, "password": Home(stack.home).admin_password()}
    with httpx.Client(trust_env=False, timeout=30) as browser:
        assert browser.get(page).status_code == 401
        token = browser.post(f"{stack.airflow_url}/auth/token", json=login).json()["access_token"]
        shown = browser.get(page, headers={"Authorization": f"Bearer {token}"})
    assert shown.status_code == 200
    assert shown.headers["Content-Security-Policy"].startswith("sandbox")


def test_more_waiting_runs_than_tasks_may_run_keep_no_backfill_from_being_done(chain: Stack):
    api, day = chain.api, date(2026, 3, 5)
    api.wait_for_dag("waiter")
    # More than the eight tasks that this DAG, and the four that all of them, may have running at once, and more than
    # the 20 runs that Airflow by default looks at in one loop.
    waiting = [api.trigger("waiter") for _ in range(24)]
    try:
        wait_until(lambda: len(api.runs("waiter", state=["running"])) == len(waiting), 120, "all of them waiting")
        api.backfill(f"{MODEL}_ingest", day, day, reprocess="completed")
        runs = api.wait_for_days(f"{MODEL}_ingest", day, day, 120)
        assert {run["state"] for run in runs.values()} == {"success"}
    finally:
        for run_id in waiting:
            api.call("PATCH", run_path("waiter", run_id), {"state": "failed"})
    settle(chain)


def test_a_backfill_that_is_waited_for_tells_of_days_whoever_ran_them(chain: Stack, monkeypatch, capsys):
    for name, value in chain.env.items():
        if name.startswith("WINDSOCK_"):
            monkeypatch.setenv(name, value)
    again = ["--from", str(REFUSED), "--to", str(REFUSED + timedelta(days=1)), "--wait", "120"]

    assert main(["backfill", MODEL, *again]) == 1

    said = capsys.readouterr()
    assert f"1 days are left out, as they have a run (failed): {REFUSED}; --again failed runs them again" in said.out
    assert "2 days: 1 published, 1 rejected" in said.out
    assert f"The newest run of 1 of 2 days failed: {REFUSED}" in said.err

    run = chain.api.newest_runs(f"{MODEL}_ingest", REFUSED, REFUSED)[REFUSED]
    chain.api.call("PATCH", run_path(f"{MODEL}_ingest", run["dag_run_id"]), {"state": "success"})
    assert main(["backfill", MODEL, *again]) == 0
    assert "2 days: 1 published, 1 rejected" in capsys.readouterr().out


def test_a_query_of_postgresql_is_read_in_utc_and_up_to_the_limit(chain: Stack, tmp_path: Path, monkeypatch):
    socket = read_stack(chain.settings).database_socket
    monkeypatch.setenv("PAYMENTS", f"postgresql+psycopg2://postgres@/postgres?host={socket}")
    query = """
        select n as "TRANSACTION_ID", cast(:start as timestamptz) + n * interval '1 minute' as "TX_DATETIME"
        from generate_series(0, 99) as n where cast(:end as timestamptz) is not null
    """
    for most, whole in ((None, True), (100, True), (99, False)):
        source = {"kind": "sql", "url_env": "PAYMENTS", "query": query}
        _, spec = small_fraud(tmp_path, source=source, validation={"max_rows": most} if most else {})
        got = fetch(spec, FIRST)
        assert (got.rows is not None and got.rows.num_rows == 100) == whole, got.problem
        assert whole or "more than 99 rows" in got.problem


def test_a_replay_whose_events_were_purged_stays_one(chain: Stack):
    dag_id, day = f"{MODEL}_features", date(2026, 3, 3)
    run = chain.api.newest_runs(dag_id, day, day)[day]
    socket = read_stack(chain.settings).database_socket
    with create_engine(f"postgresql+psycopg2://postgres@/airflow?host={socket}").begin() as database:
        ours = f"select id from asset where name like '{MODEL}_%'"
        assert database.execute(text(f"delete from asset_event where asset_id in ({ours})")).rowcount > 0

    chain.api.call("POST", f"{run_path(dag_id, run['dag_run_id'])}/clear", {"dry_run": False})
    assert chain.api.wait_for_run(dag_id, run["dag_run_id"], 120)["state"] == "success"
    for number in (1, 2):
        log = chain.api.task_log(dag_id, run["dag_run_id"], "features", number)
        assert f"features {day}: started (replayed)" in log
    settle(chain)


def test_doctor_finds_a_cleared_run_of_a_cancelled_backfill(chain: Stack):
    dag_id = f"{MODEL}_monitor"
    chain.api.set_paused(dag_id, True)  # so that the run is not begun before the backfill is cancelled
    number = chain.api.backfill(dag_id, LAST, LAST)
    assert not list(stuck_runs(chain.settings)), "it is only paused"
    chain.api.call("PUT", f"backfills/{number}/cancel")
    (run,) = chain.api.runs(dag_id, run_type="backfill")
    chain.api.call("POST", f"{run_path(dag_id, run['dag_run_id'])}/clear", {"dry_run": False})
    try:
        assert chain.api.call("GET", run_path(dag_id, run["dag_run_id"]))["state"] == "queued"
        ((finding, step),) = stuck_runs(chain.settings)
        assert f"{dag_id}: runs of a cancelled backfill" in finding
        assert str(LAST) in finding
        assert f"windsock trigger {dag_id} --key DAY" in step
    finally:
        chain.api.call("DELETE", run_path(dag_id, run["dag_run_id"]))
        chain.api.set_paused(dag_id, False)


def test_each_failure_was_reported_once_and_what_a_person_did_not_at_all(chain: Stack):
    store = Store.of(chain.settings)
    causes = [store.read_json("alerts", f"{name}.json")["cause"] for name in store.json_names("alerts")]
    failed = Counter(cause.split()[1] for cause in causes if cause.startswith(f"failed {MODEL}_"))
    assert failed[f"{MODEL}_victim"] == 1
    assert failed[f"{MODEL}_ingest"] >= 2, "with Slack there, and with Slack away"
    by_hand = [run["dag_run_id"] for run in chain.api.runs(f"{MODEL}_features") if run["partition_key"] == str(NEVER)]
    assert by_hand
    assert not [cause for cause in causes if cause.split()[2] in by_hand]
