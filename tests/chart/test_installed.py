"""Windsock installed by docs/deploy.md on a real cluster: what a first installation can do.

The tests build on each other in the order of this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import pyarrow.parquet as pq
import pytest
from installation import Installation, installation, settled

from built_images import LONGEST_BUILD_SECONDS
from churn_model import DAY, delivery
from windsock import promotions
from windsock.days import day_range
from windsock.promotions import Promotion
from windsock.spec import get_spec

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(LONGEST_BUILD_SECONDS + 900)]

HISTORY = 13
STAGES = ("ingest", "features", "score")


def day(number: int) -> date:
    """Return the first day of the model, or one so many days later."""
    return DAY + timedelta(days=number)


def deliver(installed: Installation, *days: date) -> None:
    for each in days:
        pq.write_table(delivery(each), installed.churn.home / "inbox" / f"{each}.parquet")


def champion(installed: Installation) -> Promotion | None:
    return promotions.current(installed.settings, get_spec(installed.settings, "churn"))


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


def test_a_model_goes_from_ingest_to_promotion_and_the_next_day_is_scored(installed: Installation) -> None:
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
