"""The scheduler passes over the runs that only wait, and over no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskreschedule import TaskReschedule
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from airflow_tables import task_values
from windsock_airflow import waiting_runs
from windsock_airflow.waiting_runs import due

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LONG_AGO, JUST_NOW = 120.0, 1.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be noon."""
    monkeypatch.setattr(waiting_runs, "utc_now", lambda: NOW)


@pytest.fixture
def original(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Airflow's own method, which is there again afterwards."""
    before = DagRun.__dict__["get_running_dag_runs_to_examine"]
    yield before
    DagRun.get_running_dag_runs_to_examine = before  # type: ignore[method-assign]


def add_run(session: Session, name: str, seen: float | None, *tasks: Any, state: str = "running") -> None:
    """Add a run that was looked at so many seconds ago.

    Its tasks are a state, the seconds since they changed, and to the next poke, if it is known.
    """
    if session.get(DagModel, "fraud_features") is None:
        session.add(DagModel(dag_id="fraud_features", bundle_name="dags", is_paused=False, is_stale=False))
        session.flush()
    begun = NOW - timedelta(hours=5)
    run = DagRun(dag_id="fraud_features", run_id=name, run_type="manual", state=state, start_date=begun)
    run.run_after = begun
    run.last_scheduling_decision = None if seen is None else NOW - timedelta(seconds=seen)
    session.add(run)
    session.flush()
    for n, (task_state, changed, *pokes) in enumerate(tasks):
        values, id_ = task_values("fraud_features", name, f"t{n}", task_state), uuid4()
        session.execute(insert(TaskInstance).values(id=id_, **values, updated_at=NOW - timedelta(seconds=changed)))
        for seconds in (-1000, *pokes) if pokes else ():
            at = NOW + timedelta(seconds=seconds)
            session.execute(
                insert(TaskReschedule).values(ti_id=id_, start_date=NOW, end_date=NOW, duration=0, reschedule_date=at)
            )
    session.commit()


def names(runs: Sequence[DagRun]) -> list[str]:
    return [run.run_id for run in runs]


@pytest.mark.parametrize(
    ("seen", "tasks", "is_due"),
    [
        pytest.param(60, [("deferred", LONG_AGO)], False, id="it waits"),
        pytest.param(60, [("deferred", LONG_AGO), (None, LONG_AGO)], False, id="it waits, others wait for that"),
        pytest.param(60, [("success", LONG_AGO), ("deferred", LONG_AGO)], False, id="it waits, another was done"),
        pytest.param(60, [("scheduled", LONG_AGO), (None, LONG_AGO)], False, id="a task waits for a slot"),
        pytest.param(60, [("queued", LONG_AGO)], False, id="a task waits for a worker"),
        pytest.param(60, [("running", LONG_AGO)], False, id="a task runs"),
        pytest.param(60, [("awaiting_input", LONG_AGO)], False, id="a person is asked"),
        pytest.param(60, [("up_for_reschedule", LONG_AGO, +30)], False, id="a sensor pokes later"),
        pytest.param(None, [("deferred", LONG_AGO)], True, id="it was never looked at, or is cleared"),
        pytest.param(60, [("deferred", JUST_NOW)], True, id="it began to wait after the last look"),
        pytest.param(60, [("deferred", LONG_AGO), ("success", JUST_NOW)], True, id="another task was done meanwhile"),
        pytest.param(60, [("deferred", 60.5)], True, id="the change was not yet to be seen at the last look"),
        pytest.param(60, [("scheduled", JUST_NOW)], True, id="its trigger has woken it"),
        pytest.param(60, [("success", LONG_AGO), (None, LONG_AGO)], True, id="nothing in it is under way"),
        pytest.param(60, [("up_for_retry", LONG_AGO), ("deferred", LONG_AGO)], True, id="a task is tried again"),
        pytest.param(60, [("up_for_reschedule", LONG_AGO, -1), ("running", LONG_AGO)], True, id="a sensor pokes now"),
        pytest.param(60, [("up_for_reschedule", LONG_AGO)], True, id="nobody knows when a sensor pokes"),
        pytest.param(301, [("deferred", 1000)], True, id="it was not looked at for five minutes"),
        pytest.param(60, [], True, id="it has no tasks"),
    ],
)
def test_a_run_is_passed_over_if_it_waits_and_nothing_in_it_has_changed(
    session: Session, seen: float | None, tasks: list[Any], is_due: bool
) -> None:
    add_run(session, "run", seen, *tasks)

    assert names(due(session.scalars(select(DagRun)).all(), session)) == ["run"] * is_due


def test_runs_that_nobody_has_looked_at_for_long_come_a_few_in_each_loop_and_keep_no_other_out(
    session: Session,
) -> None:
    for n in range(30):
        add_run(session, f"waits{n}", 1000 - n, ("deferred", 2000))
    add_run(session, "works", 1, ("running", JUST_NOW))
    runs = session.scalars(select(DagRun).order_by(DagRun.last_scheduling_decision)).all()

    first = names(due(runs, session))
    for run in runs[:20]:
        run.last_scheduling_decision = NOW
    second = names(due(runs, session))

    assert first == [*(f"waits{n}" for n in range(20)), "works"]
    assert second == [*(f"waits{n}" for n in range(20, 30)), "works"]


def test_airflows_own_choice_is_what_is_chosen_from(original: Any, session: Session) -> None:
    add_run(session, "waits", 60, ("deferred", LONG_AGO))
    add_run(session, "works", 60, ("running", JUST_NOW))
    add_run(session, "done", 60, ("success", LONG_AGO), state="success")
    before = names(DagRun.get_running_dag_runs_to_examine(session=session).all())

    assert waiting_runs.pass_over_waiting_runs()
    assert waiting_runs.pass_over_waiting_runs(), "wrapping twice is the same as once"

    assert before == ["waits", "works"]
    assert names(list(DagRun.get_running_dag_runs_to_examine(session=session))) == ["works"]


def test_an_unknown_scheduler_is_left_alone(original: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as changed:
        changed.setattr("airflow.__version__", "3.4.0")
        assert not waiting_runs.pass_over_waiting_runs()

    def other(session: Any, limit: int) -> None:
        return None

    monkeypatch.setattr(DagRun, "get_running_dag_runs_to_examine", other)

    assert not waiting_runs.pass_over_waiting_runs()
    assert DagRun.get_running_dag_runs_to_examine is other


@pytest.mark.parametrize(("part", "is_scheduler"), [("scheduler", True), ("triggerer", False), ("api-server", False)])
def test_it_is_the_scheduler_that_passes_over_them(
    original: Any, monkeypatch: pytest.MonkeyPatch, part: str, is_scheduler: bool
) -> None:
    monkeypatch.setattr("sys.argv", ["airflow", part])

    waiting_runs.on_starting(object())

    assert (DagRun.__dict__["get_running_dag_runs_to_examine"] is not original) == is_scheduler
