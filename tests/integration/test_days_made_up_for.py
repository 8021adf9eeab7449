"""Days that nobody ran are closed by the system itself, under a real scheduler: live, in order, told of once.

A stack of its own, whose clock can be moved: the outage is that of a machine which was off for five days.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bench.chaos import WATCH, Chaos, contents, differences
from bench.chaos_days import FIRST_DAY, MODEL, NOON, write_model
from bench.clock import MovedClock, library

from fake_slack import FakeSlack
from model_runs import ModelRuns, wait_until
from stack_fixture import start_stack
from windsock.days import ONE_DAY, day_range
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.steps import run_step
from windsock_local.stack import lifecycle

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(library() is None, reason="no libfaketime here (Debian's package faketime)"),
]

FIRST, AWAY = FIRST_DAY, timedelta(days=5)
GAP = day_range(NOON.date(), FIRST + AWAY)
TROUBLES = 1
"""Seed of what happens to the last days."""


@dataclass(frozen=True)
class Outage(ModelRuns):
    """The model's runs, and the clock of its stack."""

    clock: MovedClock


@pytest.fixture(scope="module")
def outage(slack: FakeSlack) -> Iterator[Outage]:
    """A model whose first day is yesterday, by the stack's clock."""
    home = Path(tempfile.mkdtemp(prefix="windsock-"))  # short: a socket's name may have 107 bytes
    write_model(home / "models")
    clock = MovedClock(Path(tempfile.mkdtemp(prefix="windsock-clock-")))  # the home lets nobody else in
    stack = start_stack(home, WINDSOCK_MODELS=str(home / "models"), **slack.env, **clock.variables(NOON))
    try:
        runs = Outage(stack, MODEL, clock)
        for stage in ("ingest", "features", "score", "monitor"):
            stack.api.wait_for_dag(runs.dag(stage), 240)
        yield runs
    finally:
        stack.api.close()
        lifecycle.stop_stack(stack.settings)
        shutil.rmtree(clock.folder)
        if not os.environ.get("WINDSOCK_KEEP_TEST_HOME"):
            shutil.rmtree(home, ignore_errors=True)


def look(runs: Outage) -> dict[str, object]:
    """Let the watch look once, and return what it wants."""
    run_id = runs.stack.api.trigger(WATCH)
    run = runs.stack.api.wait_for_run(WATCH, run_id, 120)
    assert run["state"] == "success", runs.stack.api.task_log(WATCH, run_id, "look")
    return dict(runs.stack.api.xcom(WATCH, run_id, "look"))


def settled(runs: ModelRuns, stage: str) -> list[date]:
    return Ledger.of(runs.stack.settings, MODEL, stage).days()


def caught_up(runs: ModelRuns, stage: str) -> list[dict[str, Any]]:
    """Return the runs that made up for days, in order; days in order, and all but the few that Airflow itself ran."""
    started = [run for run in runs.all(stage) if run["dag_run_id"].startswith("catch_up__")]
    started.sort(key=lambda run: str(run["start_date"]))
    order = [run["partition_key"] for run in started]
    assert order == sorted(order)
    away = {str(day) for day in GAP}
    by_airflow = away & {run["partition_key"] for run in runs.all(stage) if run["dag_run_id"].startswith("scheduled__")}
    assert set(order) | by_airflow >= away
    assert len(by_airflow) < len(GAP) / 2, "a scheduler whose clock has jumped makes a few of them by itself"
    return started


def messages(slack: FakeSlack) -> list[str]:
    return [m["text"] for m in slack.messages if MODEL in m["text"]]


def test_after_five_days_away_every_day_goes_through_the_whole_chain_by_itself_as_a_live_day(
    outage: Outage, slack: FakeSlack
):
    for stage in ("ingest", "monitor"):
        outage.stack.api.set_paused(outage.dag(stage), False)
    wait_until(lambda: FIRST in settled(outage, "monitor"), 300, "the first night")
    outage.wait_until_quiet(stages=["ingest", "features", "score", "monitor"])

    outage.clock.move(AWAY)
    for _ in range(2):  # a clock that is wrong for a moment starts nothing; the scheduler's thread looks beside
        look(outage)
    wait_until(lambda: settled(outage, "score") == [FIRST, *GAP], 300, "every day scored")

    started = caught_up(outage, "ingest")
    assert "(live)" in outage.log("ingest", started[0]["dag_run_id"])


def test_nights_follow_one_after_another(outage: Outage, slack: FakeSlack):
    outage.clock.move(timedelta(minutes=20))
    for _ in GAP:
        if look(outage)["start"] == [] and set(GAP) <= set(settled(outage, "monitor")):
            break
        outage.wait_until_quiet(stages=["monitor"])
    assert settled(outage, "monitor") == [FIRST, *GAP]
    nights = caught_up(outage, "monitor")
    assert all(before["end_date"] <= after["start_date"] for before, after in pairwise(nights))
    assert look(outage)["start"] == []
    wait_until(lambda: bool(messages(slack)), 90, "a message")  # the scheduler sends, not who has the news
    assert len(messages(slack)) == 1


def test_days_whose_events_a_pause_has_lost_are_caught_up_with(outage: Outage, slack: FakeSlack):
    api, day = outage.stack.api, GAP[-1]
    api.set_paused(outage.dag("score"), True)
    Path(outage.stack.settings.store, MODEL, "ledger", "score", f"{day}.json").unlink()  # as if never scored
    outage.clock.move(timedelta(hours=2))
    outage.finish("features", outage.start("features", day))
    look(outage)
    look(outage)
    wait_until(lambda: "is paused" in messages(slack)[-1], 90, "a message about the pause")

    api.set_paused(outage.dag("score"), False)
    look(outage)
    wait_until(lambda: day in settled(outage, "score"), 120, "the day scored")
    wait_until(lambda: len(messages(slack)) == 3, 90, "a third message")


@pytest.mark.timeout(1200)  # it gives up itself after ten minutes, and says what is lacking
def test_days_under_random_troubles_leave_what_quiet_days_leave(outage: Outage, slack: FakeSlack, tmp_path: Path):
    before, days = len(slack.messages), day_range(GAP[-1] + ONE_DAY, GAP[-1] + 3 * ONE_DAY)
    chaos = Chaos(outage.stack.api, outage.stack.settings, outage.clock, MODEL, random.Random(TROUBLES))
    for day in days:
        chaos.live(day, troubles=2, patience_s=20.0)
    chaos.calm_down([FIRST, *GAP, *days])

    quiet = Settings.from_env({"WINDSOCK_HOME": str(tmp_path), "WINDSOCK_MODELS": str(outage.stack.models)})
    for day in [FIRST, *GAP, *days]:
        for step in ("ingest", "features", "score", "monitor", "govern"):
            run_step(step, model=MODEL, key=str(day), settings=quiet)
    assert differences(contents(outage.stack.settings, MODEL), contents(quiet, MODEL)) == []
    told = Counter(message["text"] for message in slack.messages[before:])
    assert {text: times for text, times in told.items() if times > 1} == {}
    assert chaos.done.total() >= 4, chaos.done
