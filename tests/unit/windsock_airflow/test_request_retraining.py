"""From the governor's decision to one run of the retrain DAG per drift."""

import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DagRunTriggerException

from windsock.days import parse_day
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.store import Store
from windsock_airflow.decisions import RequestRetraining, run_id_for, told_to_train
from windsock_airflow.runs import RunFacts

DECISION = {"retrain": True, "dedupe_key": "fraud/v1/2026-03-01 amounts", "as_of": "2026-03-09", "reasons": ["drift"]}


CONTEXT: Any = {
    "task": SimpleNamespace(upstream_task_ids={"govern"}),
    "ti": SimpleNamespace(task_id="request", xcom_pull=lambda task_ids: DECISION),
}


def request(**changes: Any) -> RequestRetraining:
    return RequestRetraining(task_id="request", model="fraud", decision={**DECISION, **changes})


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    monkeypatch.delenv("WINDSOCK_STORE", raising=False)


def test_the_run_is_named_by_the_drift_so_that_airflow_refuses_a_second():
    with pytest.raises(DagRunTriggerException) as asked:
        request().execute(CONTEXT)
    told = asked.value
    assert told.trigger_dag_id == "fraud_retrain"
    assert told.dag_run_id == "drift__fraud-v1-2026-03-01-amounts"
    assert told.skip_when_already_exists
    assert told.logical_date is None
    kept = {name: DECISION[name] for name in ("as_of", "reasons", "dedupe_key")}
    assert told.conf == kept | {"trigger": None, "recovery": None}


def test_a_request_is_answered_by_a_training_and_not_by_having_been_asked(tmp_path: Path):
    run_id = run_id_for(DECISION["dedupe_key"])
    run = SimpleNamespace(dag_id="fraud_retrain", run_id=run_id, run_type="manual", conf={})
    RunFacts.of({"dag_run": run}, model="fraud", keyed=False)  # its only task has begun, and Airflow lost the run
    with pytest.raises(DagRunTriggerException):
        request().execute(CONTEXT)

    settings = Settings.from_env()
    for as_of, key in (("2026-03-09", "another"), ("2026-03-16", DECISION["dedupe_key"])):
        Store.of(settings).write_json({"request": key}, "runs", "fraud", f"{as_of}-train-1234", "lineage.json")
    with pytest.raises(DagRunTriggerException):
        request().execute(CONTEXT)

    Store.of(settings).write_json({"request": DECISION["dedupe_key"]}, "runs/fraud/2026-03-09-own-1234/lineage.json")
    with pytest.raises(AirflowSkipException, match="training 2026-03-09-own-1234 answers this request already"):
        request().execute(CONTEXT)
    with pytest.raises(DagRunTriggerException):
        request(dedupe_key="fraud/v2/2026-04-01").execute(CONTEXT)


@pytest.mark.parametrize(("nights", "asks"), [(0, True), (1, False)])
def test_a_request_that_is_old_is_left_to_the_nights_that_were_decided_since(nights: int, asks: bool):
    run = SimpleNamespace(dag_id="fraud_retrain", run_id=run_id_for(DECISION["dedupe_key"]), run_type="manual", conf={})
    RunFacts.of({"dag_run": run}, model="fraud", keyed=False)
    decided(nights)

    with pytest.raises(DagRunTriggerException if asks else AirflowSkipException):
        request().execute(CONTEXT)


def test_of_two_requests_the_newer_one_stands():
    decided(4, requested="fraud/v1/2026-03-01 amounts#2")

    with pytest.raises(AirflowSkipException, match="a newer request, of 2026-03-13, stands in its place"):
        request().execute(CONTEXT)
    train = SimpleNamespace(is_paused=False)
    waiting: Any = {"ti": SimpleNamespace(get_dag=lambda dag_id: train), "params": DECISION}
    with pytest.raises(AirflowSkipException, match="Not asked: a newer request, of 2026-03-13"):
        told_to_train(waiting, get_spec(Settings.from_env(), "fraud"))


def decided(later: int, requested: str | None = None) -> None:
    """Record the decision of a night some days after the request's."""
    day = parse_day(DECISION["as_of"]) + timedelta(days=later)
    record = DayRecord(str(day), "published", detail={"action": "wait", "requested": requested})
    Ledger.of(Settings.from_env(), "fraud", "decisions").publish(record)


def test_no_request_is_a_skipped_task_that_says_why():
    with pytest.raises(AirflowSkipException, match="cool-down"):
        request(retrain=False, reasons=["cool-down until 2026-03-20"]).execute(CONTEXT)


def test_a_decision_that_was_marked_as_a_success_by_hand_is_missed_in_one_sentence():
    nothing = {**CONTEXT, "ti": SimpleNamespace(task_id="request", xcom_pull=lambda task_ids: None)}
    with pytest.raises(AirflowFailException, match=r"SpecError: govern left no result .* marked as a success by hand"):
        RequestRetraining(task_id="request", model="fraud", decision=None).execute(nothing)


@pytest.mark.parametrize("key", ["a b", "a/b:c", "ümlaut", "x" * 200])
def test_run_ids_are_ones_that_airflow_accepts(key: str):
    assert re.fullmatch(r"[A-Za-z0-9_.~:+-]+", run_id_for(key))
