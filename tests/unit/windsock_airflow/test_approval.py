"""Whom the promote DAG asks: a person about a version that passed, nobody about one that cannot be promoted."""

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskAwaitingInput

from small_model import small_fraud
from windsock.alert_table import table_of_alerts
from windsock.days import utc_now
from windsock.governor.answers import note_no_approval
from windsock.store import Store
from windsock.version_index import VersionInfo, record_version
from windsock_airflow.decisions import SUPERSEDED, ask_for_approval

PASSED = {"version": "2", "champion_seen": "1", "passed": True, "checks": [], "why": "Version 2 passed all checks."}
REFUSED = {**PASSED, "passed": False, "why": "Version 2 failed 1 of 12 checks: [floor] is 0.1, at least 0.3."}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was put under *Required Actions*."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **given: made.append(given))
    return made


def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: Any, run_id: str = "manual__1") -> None:
    settings, spec = small_fraud(tmp_path)
    monkeypatch.setenv("WINDSOCK_HOME", str(settings.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(settings.models[0]))
    ti = SimpleNamespace(
        id="1",
        dag_id="fraud_promote",
        run_id=run_id,
        task_id="approval",
        try_number=1,
        xcom_pull=lambda task_ids: verdict,
    )
    run = SimpleNamespace(dag_id="fraud_promote", run_id=run_id, run_type="manual", conf={})
    task = SimpleNamespace(upstream_task_ids={"gate"})
    ask_for_approval(spec).execute({"ti": ti, "task_instance": ti, "dag_run": run, "task": task})  # type: ignore[typeddict-item]


def test_a_version_that_passed_waits_for_a_person(tmp_path, monkeypatch, asked):
    with pytest.raises(TaskAwaitingInput):
        ask(tmp_path, monkeypatch, PASSED)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "form", "said", "noted"),
    [
        ("Approve", {}, None, None),
        ("Reject", {}, "It was rejected. The champion stays.", "rejected by a person"),
        ("Reject", {SUPERSEDED: "3"}, "Version 3 was judged later, passed as well, and is", "superseded by version 3"),
    ],
)
def test_the_question_is_told_once_and_closed_by_what_is_no_approval(
    tmp_path, monkeypatch, asked, answer, form, said, noted
):
    for _ in range(2):
        with pytest.raises(TaskAwaitingInput):
            ask(tmp_path, monkeypatch, PASSED)
    settings, spec = small_fraud(tmp_path)
    record_version(settings, VersionInfo("fraud", "2", "the-run", date(2026, 3, 1)))
    names = {"dag_id": "fraud_promote", "run_id": "manual__1", "task_id": "approval", "try_number": 1}
    names["xcom_pull"] = lambda task_ids: PASSED
    given = {"params_input": form, "responded_at": utc_now(), "responded_by_user": {"id": "1", "name": "ada"}}
    ask_for_approval(spec).execute_complete(
        {"ti": SimpleNamespace(**names)},  # type: ignore[typeddict-item]
        {"chosen_options": [answer], "timedout": False, **given},
    )

    (row,) = table_of_alerts(settings, days=1)
    assert (row.first.headline, row.count) == ("Approval needed", 1)
    assert row.state == ("over" if said else "open"), "an approval is over with the promotion"
    assert said is None or row.last.sentence.startswith(said)
    kept = ("runs", "fraud", "the-run", "approval.json")
    assert (Store.of(settings).read_json(*kept)["why"] if Store.of(settings).exists(*kept) else None) == noted


def test_a_person_who_is_asked_again_is_waited_for_again(tmp_path, monkeypatch, asked):
    settings, spec = small_fraud(tmp_path)
    record_version(settings, VersionInfo("fraud", "2", "the-run", date(2026, 3, 1)))
    note_no_approval(settings, spec, "2", "rejected by a person")
    with pytest.raises(TaskAwaitingInput):
        ask(tmp_path, monkeypatch, PASSED)
    assert not Store.of(settings).exists("runs", "fraud", "the-run", "approval.json")


@pytest.mark.parametrize("left", [None, PASSED])
def test_an_answer_counts_though_the_governor_cannot_be_told(tmp_path, monkeypatch, left):
    """The verdict was marked by hand, or nothing is known of the version: a rejection is one all the same."""
    settings, spec = small_fraud(tmp_path)
    monkeypatch.setenv("WINDSOCK_HOME", str(settings.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(settings.models[0]))
    names = {"dag_id": "fraud_promote", "run_id": "manual__1", "task_id": "approval", "try_number": 1}
    ti = SimpleNamespace(**names, xcom_pull=lambda task_ids: left)
    given = {"params_input": {}, "responded_at": utc_now(), "responded_by_user": {"id": "1", "name": "ada"}}
    done = ask_for_approval(spec).execute_complete(
        {"ti": ti},  # type: ignore[typeddict-item]
        {"chosen_options": ["Reject"], "timedout": False, **given},
    )
    assert done["chosen_options"] == ["Reject"]


def test_a_question_that_nobody_answers_in_time_is_answered_for_the_governor(tmp_path, monkeypatch):
    settings, spec = small_fraud(tmp_path)
    monkeypatch.setenv("WINDSOCK_HOME", str(settings.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(settings.models[0]))
    record_version(settings, VersionInfo("fraud", "2", "the-run", date(2026, 3, 1)))
    ti = SimpleNamespace(xcom_pull=lambda task_ids: PASSED)
    with pytest.raises(HITLTimeoutError):
        ask_for_approval(spec).execute_complete(
            {"ti": ti},  # type: ignore[typeddict-item]
            {"error": "no response", "error_type": "timeout"},
        )
    assert Store.of(settings).read_json("runs", "fraud", "the-run", "approval.json")["why"].startswith("nobody has")


@pytest.mark.parametrize(
    ("verdict", "run_id", "why"),
    [
        (REFUSED, "manual__1", r"\[floor\] is 0\.1"),
        (PASSED, "backfill__1", "replay, which promotes nothing"),
    ],
)
def test_nobody_is_asked_about_what_cannot_be_promoted(tmp_path, monkeypatch, asked, verdict, run_id, why):
    with pytest.raises(AirflowSkipException, match=why):
        ask(tmp_path, monkeypatch, verdict, run_id)
    assert asked == []


def test_a_verdict_that_was_marked_as_a_success_by_hand_is_missed_in_one_sentence(tmp_path, monkeypatch, asked):
    with pytest.raises(AirflowFailException, match="gate left no result"):
        ask(tmp_path, monkeypatch, None)
    assert asked == []
