"""From a change of the world to a champion that is good again, under a real Airflow, with a person who approves.

A small model whose minutes are counted from another point from one day on, so that what its champion has learnt of
them says nothing any more. The tests build on each other in the order of this file.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from datetime import date, timedelta
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from churn_model import DAY, Churn, delivery
from model_runs import ModelRuns, wait_until
from stack_fixture import Stack
from windsock import promotions
from windsock.alert_table import Row, table_of_alerts
from windsock.days import ONE_DAY, day_range
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.steps import run_step
from windsock_local.stack.airflow_api import run_path

pytestmark = pytest.mark.integration

MODEL = "churn"
CHANGE = DAY + timedelta(days=16)
LAST_QUIET = CHANGE - ONE_DAY
BELIEVED, TRAINED = CHANGE + ONE_DAY, CHANGE + 2 * ONE_DAY
"""The second night with a signal; and the first that has a matured day to learn from and one to judge by."""
QUIET = day_range(TRAINED + ONE_DAY, TRAINED + 2 * ONE_DAY)
"""So many quiet nights end an episode of this model."""


@pytest.fixture(scope="module")
def churn(stack: Stack) -> ModelRuns:
    """The model beside the others of the running stack, with a champion, version 1."""
    aside, deliveries = stack.home / f"{MODEL}.new", stack.post / MODEL
    Churn.make(
        aside,
        last_day=date(2026, 4, 30),
        source={"kind": "files", "url": f"{deliveries}/{{ds}}.parquet"},
        label__delay_days=1,
        training__holdout_days=7,
        gate={"floors": {"average_precision": 0.05}, "margin": 0.2, "approval": True},
        monitoring={"performance_days": 2},
        retraining={"out_of": len(QUIET)},
        schedule={"train": None, "maintenance": None},
        alerts={"digest": False},
    )
    deliveries.mkdir(parents=True)
    for day in day_range(DAY, QUIET[-1]):
        rows = delivery(day, 400)
        if day >= CHANGE:
            place = rows.column_names.index("minutes")
            rows = rows.set_column(place, "minutes", pc.add(rows["minutes"], 200.0))
        pq.write_table(rows, deliveries / f"{day}.parquet")
    here = Settings.from_env({**stack.env, "WINDSOCK_MODELS": str(aside / "models")})
    for day in day_range(DAY, LAST_QUIET - ONE_DAY):  # by Airflow they are taken in elsewhere
        for step in ("ingest", "features", "score"):
            run_step(step, model=MODEL, key=str(day), settings=here)
    (aside / "models" / MODEL).rename(stack.models / MODEL)
    shutil.rmtree(aside)
    runs = ModelRuns(stack, MODEL)
    for stage in ("ingest", "features", "score", "monitor", "retrain", "train", "promote"):
        stack.api.wait_for_dag(runs.dag(stage), 240)
        stack.api.set_paused(runs.dag(stage), False)
    train = runs.start("train")
    runs.finish("train", train)
    answer(runs, question(runs), "Approve")
    assert champion(runs) == "1"
    return runs


def champion(runs: ModelRuns) -> str | None:
    found = promotions.current(runs.stack.settings, get_spec(runs.stack.settings, MODEL))
    return found.version if found is not None else None


def state_of(runs: ModelRuns, run_id: str, task: str) -> str | None:
    tasks = runs.stack.api.task_instances(runs.dag("promote"), run_id)
    return next((t["state"] for t in tasks if t["task_id"] == task), None)


def question(runs: ModelRuns, known: Collection[str] = ()) -> str:
    """Wait until a run that is not known asks a person, and return it."""
    run_id = runs.only_run("promote", known=known)
    wait_until(lambda: state_of(runs, run_id, "approval") == "awaiting_input", 120, f"a question of {run_id}")
    return run_id


def answer(runs: ModelRuns, run_id: str, option: str) -> None:
    """Answer as a person does under *Required Actions*."""
    place = f"{run_path(runs.dag('promote'), run_id)}/taskInstances/approval/-1/hitlDetails"
    runs.stack.api.call("PATCH", place, {"chosen_options": [option], "params_input": {}})
    runs.finish("promote", run_id)


def night(runs: ModelRuns, day: date) -> dict[str, Any]:
    """Let a day come in and its night pass, and return what was decided."""
    runs.finish("ingest", runs.start("ingest", day))
    runs.wait_for_days("score", [day], 120)
    run = runs.start("monitor", day)
    runs.finish("monitor", run)
    return dict(runs.result("monitor", run, "govern"))


def alerts(runs: ModelRuns, kind: str) -> list[Row]:
    """Return the troubles of a kind, in the order in which they began."""
    rows = sorted(table_of_alerts(runs.stack.settings, days=1), key=lambda row: row.first.at)
    return [row for row in rows if (row.first.model, row.first.kind) == (MODEL, kind)]


def test_a_newer_version_is_judged_while_an_older_one_waits_for_a_person_and_takes_its_place(churn: ModelRuns):
    api, runs = churn.stack.api, list[str]()
    for changed in ({"window_days": 3}, {"holdout_days": 6}):
        known = churn.ids("promote")
        churn.finish("train", api.trigger(churn.dag("train"), conf=changed))
        runs.append(question(churn, known))
    older, newer = runs

    churn.finish("promote", older)  # nobody has answered it
    assert [state_of(churn, older, task) for task in ("approval", "promote")] == ["success", "skipped"]
    assert "Version 3 was judged later" in api.task_log(churn.dag("promote"), older, "approval")
    open_questions = api.pages(
        f"{run_path(churn.dag('promote'), '~')}/hitlDetails", "hitl_details", response_received=False
    )
    assert [asked["subject"] for asked in open_questions] == ["Make version 3 of churn the champion?"]
    _, first, second = alerts(churn, "approval")
    assert (first.state, second.state) == ("over", "open")
    assert f"trigger {churn.dag('promote')} with its number" in first.last.sentence

    answer(churn, newer, "Reject")
    assert champion(churn) == "1"


def test_nobody_hears_of_a_drift_before_it_is_believed(churn: ModelRuns):
    assert [night(churn, day)["action"] for day in (LAST_QUIET, CHANGE)] == ["none", "wait"]
    assert alerts(churn, "drift") == []


def test_people_are_told_on_the_first_night_that_believes_it_and_of_what_follows(churn: ModelRuns):
    decision = night(churn, BELIEVED)
    assert (decision["action"], decision["useful_from"]) == ("wait", str(TRAINED))
    (told,) = alerts(churn, "drift")
    assert (told.state, told.first.day) == ("open", str(BELIEVED))
    assert f"Retraining waits until {TRAINED}" in told.first.sentence
    assert not churn.all("retrain")


def test_the_training_that_it_asks_for_is_proven_better_and_goes_into_force(churn: ModelRuns):
    known = churn.ids("promote")
    decision = night(churn, TRAINED)
    assert (decision["action"], decision["recovery"]) == ("retrain", str(CHANGE))

    promote = question(churn, known)
    look = churn.result("promote", promote, "gate")["look"]
    assert (look["number"], look["champion"], look["request"]) == (1, "1", decision["dedupe_key"])
    answer(churn, promote, "Approve")

    assert champion(churn) == churn.result("promote", promote, "promote")["version"] == look["version"]
    (promoted,) = [row for row in alerts(churn, "promotion") if "It is a recovery after a drift" in row.first.sentence]
    assert f"scores events from {QUIET[0]} on" in promoted.first.sentence


def test_the_nights_after_are_quiet_and_the_episode_is_over(churn: ModelRuns):
    before = churn.ids("train")
    assert [night(churn, day)["action"] for day in QUIET] == ["none"] * len(QUIET)
    found = Ledger.of(churn.stack.settings, MODEL, "monitor").get(QUIET[-1])
    assert found is not None
    assert (found.detail["drifted"], found.detail["degraded"]) == (False, False)
    assert found.detail["champion"] == champion(churn) != "1"
    (told,) = alerts(churn, "drift")
    assert told.state == "over"
    assert churn.ids("train") == before
