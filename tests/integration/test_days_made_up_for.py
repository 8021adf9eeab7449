"""Days that nobody ran are closed by the system itself, under a real scheduler: live, in order, told of once.

A model of its own on the session's stack. What an outage leaves behind is made here as it is: by the absence of runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from fake_slack import FakeSlack
from model_runs import ModelRuns, wait_until
from small_model import small_fraud
from stack_fixture import Stack
from windsock.days import day_range, utc_now
from windsock.ledger import Ledger

pytestmark = pytest.mark.integration

MODEL, WATCH = "outage", "windsock_watch"
TODAY = utc_now().date()
FIRST, YESTERDAY = TODAY - timedelta(days=6), TODAY - timedelta(days=1)
GAP = day_range(FIRST + timedelta(days=1), YESTERDAY)
SQL = """
select CUSTOMER_ID, TX_DATETIME as event_timestamp, count(*) over recent as NB_TX
from events
window recent as (
    partition by CUSTOMER_ID order by epoch(TX_DATETIME)::bigint range between 172799 preceding and current row
)
"""


@pytest.fixture(scope="module")
def outage(stack: Stack) -> Iterator[ModelRuns]:
    """A model whose first day is there, and no later one."""
    aside = stack.home / f"{MODEL}.new"
    view = {"name": "recent", "entity": "customer", "sql": "recent.sql", "lookback_days": 2, "ttl_days": 30}
    small_fraud(aside)
    folder = aside / "models" / "fraud"
    (folder / "recent.sql").write_text(SQL, encoding="utf-8")
    raw = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
    raw |= {
        "name": MODEL,
        "first_day": str(FIRST),
        "features": {"row": {"TX_AMOUNT": "TX_AMOUNT"}, "views": [view]},
        "schedule": {"ingest": "0 0 * * *", "monitor": "0 0 * * *", "train": None, "maintenance": None},
    }
    raw["training"]["categorical"] = []
    (folder / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    folder.rename(stack.models / MODEL)
    runs = ModelRuns(stack, MODEL)
    for stage in ("ingest", "features", "score", "monitor"):
        stack.api.wait_for_dag(runs.dag(stage), 240)
    stack.api.set_paused(WATCH, False)
    yield runs
    stack.api.set_paused(WATCH, True)


def look(runs: ModelRuns) -> dict[str, object]:
    """Let the watch look once, and return what it wants."""
    run_id = runs.stack.api.trigger(WATCH)
    run = runs.stack.api.wait_for_run(WATCH, run_id, 120)
    assert run["state"] == "success", runs.stack.api.task_log(WATCH, run_id, "look")
    return dict(runs.stack.api.xcom(WATCH, run_id, "look"))


def settled(runs: ModelRuns, stage: str) -> list[date]:
    return Ledger.of(runs.stack.settings, MODEL, stage).days()


def long_ago(runs: ModelRuns, stage: str) -> None:
    """Let the records of a stage be old enough that what follows should have begun."""
    for path in Path(runs.stack.settings.store, MODEL, "ledger", stage).glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        record["recorded_at"] = (utc_now() - timedelta(hours=2)).isoformat()
        path.write_text(json.dumps(record), encoding="utf-8")


def messages(slack: FakeSlack) -> list[str]:
    return [m["text"] for m in slack.messages if MODEL in m["text"]]


def test_days_that_nobody_ran_go_through_the_whole_chain_by_themselves_as_live_days(
    outage: ModelRuns, slack: FakeSlack
):
    for stage in ("ingest", "monitor"):
        outage.stack.api.set_paused(outage.dag(stage), False)
        outage.start(stage, FIRST)
    wait_until(lambda: FIRST in settled(outage, "monitor"), 180, "the first night")
    for _ in range(2):  # a clock that is wrong for a moment starts nothing; the scheduler's thread looks beside
        look(outage)
    wait_until(lambda: settled(outage, "score") == [FIRST, *GAP], 240, "every day scored")

    started = [run for run in outage.all("ingest") if run["dag_run_id"].startswith("catch_up__")]
    order = [run["partition_key"] for run in sorted(started, key=lambda run: run["start_date"])]
    assert order == sorted(order)
    assert set(order) >= {str(day) for day in GAP[:-1]}
    assert "(live)" in outage.log("ingest", started[0]["dag_run_id"])
    assert [text for text in messages(slack) if "made up for" not in text] == []


def test_nights_follow_one_after_another(outage: ModelRuns, slack: FakeSlack):
    long_ago(outage, "score")
    for night in GAP[:-1]:
        look(outage)
        wait_until(lambda day=night: day in settled(outage, "monitor"), 120, f"night {night}")
        outage.wait_until_quiet(stages=["monitor"])
    nights = [run for run in outage.all("monitor") if run["dag_run_id"].startswith("catch_up__")]
    nights.sort(key=lambda run: run["start_date"])
    assert [run["partition_key"] for run in nights] == [str(night) for night in GAP[:-1]]
    assert all(before["end_date"] <= after["start_date"] for before, after in pairwise(nights))
    assert look(outage)["start"] == []
    assert len(messages(slack)) == 1


def test_days_whose_events_a_pause_has_lost_are_caught_up_with(outage: ModelRuns, slack: FakeSlack):
    api, day = outage.stack.api, GAP[-1]
    api.set_paused(outage.dag("score"), True)
    Path(outage.stack.settings.store, MODEL, "ledger", "score", f"{day}.json").unlink()  # as if never scored
    long_ago(outage, "ingest")
    outage.finish("features", outage.start("features", day))
    look(outage)
    look(outage)
    assert "is paused" in messages(slack)[-1]

    api.set_paused(outage.dag("score"), False)
    look(outage)
    wait_until(lambda: day in settled(outage, "score"), 120, "the day scored")
    assert len(messages(slack)) == 3
