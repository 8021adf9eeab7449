"""Windsock on one host by docs/deploy.md: up from nothing, a model through the chain, a killed scheduler, down and up.

The tests build on each other in the order of this file.
"""

import os
from collections.abc import Iterator
from datetime import date, timedelta

import pyarrow.parquet as pq
import pytest
from composed import Composed, composed, settled

from built_images import LONGEST_BUILD_SECONDS
from churn_model import DAY, delivery
from model_runs import wait_until
from windsock.days import day_range

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(LONGEST_BUILD_SECONDS + 900),
    pytest.mark.skipif(
        not os.environ.get("WINDSOCK_TEST_COMPOSE"),
        reason="a daemon, its images and seven containers take ten minutes of two cores: make test-compose, or .ci/run",
    ),
]

HISTORY = 7


def day(number: int) -> date:
    return DAY + timedelta(days=number)


def deliver(stack: Composed, *days: date) -> None:
    for each in days:
        pq.write_table(delivery(each), stack.churn.home / "inbox" / f"{each}.parquet")


@pytest.fixture(scope="module")
def stack() -> Iterator[Composed]:
    with composed() as running:
        yield running


def scored_by(stack: Composed, of: date) -> str:
    """Return the version that a day was scored by."""
    (run,) = (r["dag_run_id"] for r in stack.runs.all("score") if r["partition_key"] == str(of))
    return str(stack.runs.result("score", run)["model_version"])


def test_up_from_nothing_is_healthy_and_lets_the_admin_in_and_nobody_else(stack: Composed) -> None:
    stack.api.wait_for_dag("churn_ingest", 240)
    said = stack.windsock("status")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "Airflow at http://api-server:8080: ready" in said.stdout
    wait_until(lambda: stack.windsock("doctor").returncode == 0, 180, "a doctor who finds nothing")


def test_a_model_goes_from_ingest_to_promotion_and_its_champion_scores(stack: Composed) -> None:
    history, first = day_range(DAY, day(HISTORY - 1)), day(HISTORY)
    deliver(stack, *history, first)
    for stage in ("ingest", "features", "score", "train", "promote"):
        stack.api.set_paused(f"churn_{stage}", False)
    stack.api.backfill("churn_ingest", history[0], history[-1])
    settled(stack, history, "score", 400)

    stack.runs.finish("train", train := stack.api.trigger("churn_train"), 300)
    wait_until(lambda: any(r["state"] == "success" for r in stack.runs.all("promote")), 120, "a promotion")
    stack.runs.start("ingest", first)
    settled(stack, [first], "score", 240)
    assert scored_by(stack, first) == str(stack.runs.result("train", train, "register")["version"])


def test_a_killed_scheduler_is_healthy_again_and_what_ran_and_what_waited_are_done(stack: Composed) -> None:
    days = [day(HISTORY + 1), day(HISTORY + 2)]
    deliver(stack, *days)
    for each in days:
        stack.runs.start("ingest", each)
    wait_until(lambda: bool(stack.api.runs("churn_ingest", state=["running"])), 60, "a running day")
    stack.kill("scheduler")

    settled(stack, days, "score", 240)
    wait_until(lambda: stack.health("scheduler") == "healthy", 120, "a scheduler that is healthy")


def test_down_and_up_again_goes_on_where_it_was(stack: Composed) -> None:
    before, next_day = scored_by(stack, day(HISTORY)), day(HISTORY + 3)
    runs = stack.runs.ids("ingest")

    stack.compose("down")
    deliver(stack, next_day)
    stack.up()
    stack.runs.start("ingest", next_day)
    settled(stack, [next_day], "score", 240)

    assert runs < stack.runs.ids("ingest")
    assert scored_by(stack, next_day) == before
