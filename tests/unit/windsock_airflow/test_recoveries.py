"""Threads about failed runs end when what had failed has succeeded, however long that took."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from sqlalchemy.orm import Session

from small_model import small_fraud
from windsock.alerts import Alert, report
from windsock.outbox import Outbox
from windsock.settings import Settings
from windsock.store import Store
from windsock_airflow.failures import Watch

FAILED = "failed fraud_train"


@pytest.fixture
def installation(tmp_path: Path) -> Settings:
    """One whose training failed."""
    settings, spec = small_fraud(tmp_path)
    report(settings, Alert("fraud_train", "x", cause="x", thread=FAILED), spec)
    return settings


def end(session: Session, run_id: str, state: str, at: datetime, **more: Any) -> None:
    if session.get(DagModel, "fraud_train") is None:
        session.add(DagModel(dag_id="fraud_train", bundle_name="dags"))
        session.flush()
    run = DagRun(dag_id="fraud_train", run_id=run_id, run_type="manual", run_after=at, state=state, **more)
    run.start_date = run.end_date = at
    session.add(run)
    session.commit()


def test_a_later_run_that_succeeds_ends_the_trouble_and_an_earlier_one_does_not(
    installation: Settings, session: Session
) -> None:
    box, now = Outbox(Store.of(installation)), datetime.now(UTC)
    end(session, "before", "success", now - timedelta(days=1))
    end(session, "again", "failed", now)
    Watch(installation).report_recoveries(session)
    assert box.open_threads() == {FAILED}

    end(session, "after", "success", now + timedelta(minutes=1))
    Watch(installation).report_recoveries(session)
    assert box.open_threads() == set()


def test_a_trouble_that_is_older_than_any_memory_of_it_ends_as_well(installation: Settings, session: Session) -> None:
    box, now = Outbox(Store.of(installation)), datetime.now(UTC)
    for path in Path(installation.store, "alerts").rglob("*.json"):
        long_ago = (now - timedelta(days=100)).timestamp()
        os.utime(path, (long_ago, long_ago))
    box.prune()
    assert (box.messages(), box.open_threads()) == ([], {FAILED})
    Watch(installation).report_recoveries(session)
    assert box.open_threads() == {FAILED}, "nothing has succeeded"

    end(session, "after", "success", now)
    Watch(installation).report_recoveries(session)
    assert box.open_threads() == set()
