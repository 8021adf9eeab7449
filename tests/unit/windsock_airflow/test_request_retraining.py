"""From the governor's decision to one run of the retrain DAG per drift."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DagRunTriggerException

from windsock_airflow.decisions import RequestRetraining, run_id_for
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
    assert told.conf == {name: DECISION[name] for name in ("as_of", "reasons", "dedupe_key")}


def test_a_drift_is_asked_about_once_even_if_airflow_has_lost_the_run():
    run_id = run_id_for(DECISION["dedupe_key"])
    run = SimpleNamespace(dag_id="fraud_retrain", run_id=run_id, run_type="manual", conf={})
    RunFacts.of({"dag_run": run}, model="fraud", keyed=False)  # its only task has begun

    with pytest.raises(AirflowSkipException, match=r"asked about before, by run drift__.* trigger fraud_train"):
        request().execute(CONTEXT)
    with pytest.raises(DagRunTriggerException):
        request(dedupe_key="fraud/v2/2026-04-01").execute(CONTEXT)


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
