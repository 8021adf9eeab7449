"""Windsock installed by docs/deploy.md on a real cluster, and what operators then do to it.

The tests build on each other in the order of this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import pyarrow.parquet as pq
import pytest
from cluster import wait_for
from installation import Installation, installation, settled

from built_images import LONGEST_BUILD_SECONDS
from churn_model import DAY, delivery
from windsock import promotions
from windsock.days import day_range
from windsock.ledger import Ledger
from windsock.promotions import Promotion
from windsock.spec import get_spec

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(LONGEST_BUILD_SECONDS + 900)]

HISTORY = 7
STAGES = ("ingest", "features", "score")
OF_PARTS = {"api-server", "dag-processor", "scheduler", "triggerer", "run-airflow-migrations"}


def day(number: int) -> date:
    """Return the first day of the model, or one so many days later."""
    return DAY + timedelta(days=number)


def deliver(installed: Installation, *days: date) -> None:
    for each in days:
        pq.write_table(delivery(each), installed.churn.home / "inbox" / f"{each}.parquet")


def champion(installed: Installation) -> Promotion | None:
    return promotions.current(installed.settings, get_spec(installed.settings, "churn"))


def scored_by(installed: Installation, of: date) -> str | None:
    """Return the version that a day was scored by."""
    record = Ledger.of(installed.settings, "churn", "score").get(of)
    return None if record is None else record.detail.get("model_version")


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    with installation() as running:
        yield running


def test_a_first_installation_by_the_document_has_the_models_dags(installed: Installation) -> None:
    for stage in (*STAGES, "monitor", "train", "promote"):
        installed.api.wait_for_dag(f"churn_{stage}", 240)
    assert installed.api.import_errors() == []
    installed.api.wait_for_dag("windsock_watch", 60)
    installed.api.set_paused("windsock_watch", True)  # it would start runs at times of its own
    assert "Airflow at http://airflow-api-server:8080: ready" in installed.windsock("status")


def test_a_model_goes_from_ingest_to_promotion_and_its_champion_scores(installed: Installation) -> None:
    history, first = day_range(DAY, day(HISTORY - 1)), day(HISTORY)
    deliver(installed, *history, first)
    installed.api.set_paused("churn_ingest", False)
    installed.api.backfill("churn_ingest", history[0], history[-1])
    settled(installed, history, "score", 600)

    train = installed.runs.start("train")
    installed.runs.finish("train", train, 600)
    installed.runs.finish("promote", installed.runs.only_run("promote"), 300)
    installed.runs.start("ingest", first)
    settled(installed, [first], "score", 300)

    found = champion(installed)
    assert found is not None
    assert found.version == installed.runs.result("train", train, "register")["version"]
    assert scored_by(installed, first) == found.version


def test_a_day_makes_no_pods_neither_while_it_runs_nor_while_it_waits(installed: Installation) -> None:
    lacking, waits = day(HISTORY + 1), day(HISTORY + 2)
    deliver(installed, waits)
    installed.runs.start("ingest", waits)
    settled(installed, [waits], "ingest", 300)
    run = installed.runs.only_run("features", known={r["dag_run_id"] for r in done(installed, "features")})
    installed.runs.wait_for_state("features", run, "deferred", 240)

    assert {pod.metadata.labels.get("component") for pod in installed.pods("tier=airflow")} <= OF_PARTS
    assert f"{lacking}" in installed.runs.log("features", run)


def done(installed: Installation, stage: str) -> list[dict[str, str]]:
    return [run for run in installed.runs.all(stage) if run["state"] == "success"]


def test_an_upgrade_loses_neither_a_training_in_its_pod_nor_a_day_that_waits(installed: Installation) -> None:
    train = installed.api.trigger("churn_train", conf={"trials": 200})
    (pod,) = wait_for(lambda: installed.pods("windsock.io/step=fit"), 240, "the trainer's pod", pause=1.0)
    before = installed.pod_of("scheduler").metadata.uid

    installed.values["scheduler"]["podAnnotations"] = {"example.com/upgraded": "yes"}
    installed.values["triggerer"]["podAnnotations"] = {"example.com/upgraded": "yes"}
    installed.helm("upgrade", installed.values)
    installed.wait_until_ready()
    deliver(installed, day(HISTORY + 1))
    installed.runs.start("ingest", day(HISTORY + 1))

    assert installed.pod_of("scheduler").metadata.uid != before
    settled(installed, [day(HISTORY + 1), day(HISTORY + 2)], "score", 400)
    installed.runs.finish("train", train, 600)
    tasks = {t["task_id"]: t["try_number"] for t in installed.api.task_instances("churn_train", train)}
    assert set(tasks.values()) == {1}, tasks
    assert pod.metadata.name in installed.runs.log("train", train, "fit")


def test_a_killed_scheduler_costs_no_day(installed: Installation) -> None:
    days = [day(HISTORY + 3), day(HISTORY + 4)]
    deliver(installed, *days)
    for each in days:
        installed.runs.start("ingest", each)
    wait_for(
        lambda: [r for r in installed.api.runs("churn_ingest", state=["running"]) if r["state"] == "running"],
        60,
        "a running day",
    )
    killed = installed.pod_of("scheduler").metadata
    installed.core.delete_namespaced_pod(killed.name, killed.namespace, grace_period_seconds=0)

    settled(installed, days, "score", 500)
    assert installed.pod_of("scheduler").metadata.uid != killed.uid


def test_what_was_there_before_an_uninstallation_is_there_after_the_next_installation(installed: Installation) -> None:
    stood, runs = champion(installed), installed.runs.ids("ingest")

    installed.helm("uninstall", installed.values)
    wait_for(lambda: not installed.pods("release=airflow"), 300, "the parts to go", pause=1.0)
    installed.helm("install", installed.values)
    installed.wait_until_ready()
    installed.api.wait_for_dag("churn_ingest", 240)  # the forwarded port finds the new server after a moment
    deliver(installed, day(HISTORY + 5))
    installed.runs.start("ingest", day(HISTORY + 5))
    settled(installed, [day(HISTORY + 5)], "score", 400)

    assert champion(installed) == stood
    assert runs < installed.runs.ids("ingest")
    assert stood is not None
    assert scored_by(installed, day(HISTORY + 5)) == stood.version
    containers = [state for pod in installed.pods("tier=airflow") for state in pod.status.container_statuses or ()]
    assert {state.name: state.restart_count for state in containers if state.restart_count} == {}
