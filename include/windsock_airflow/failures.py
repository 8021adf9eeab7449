"""Troubles that no task reports, from where each is seen: a thread of the scheduler.

A task whose process is killed (what happens when memory runs out) says nothing, and Airflow calls its callback only
if the worker is lost too. So the scheduler, told of each run that fails, looks a little later at the tasks that failed
lately, and reports those that nobody has; what a scheduler that was killed meanwhile did not see, the next one finds
when it starts. The same thread withdraws the question about a version that a newer one has superseded, reports
approvals that wait for a day and challengers that nobody judged, says when what had failed is mended, and sends to
Slack what all processes report.

The top of this module is imported by every task: nothing heavy may stand there. ``plugins/windsock_alerts.py``
registers it.
"""

import logging
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.listeners import hookimpl

from windsock.alerts import Alert, report, send_waiting
from windsock.messages import approval_thread
from windsock.outbox import Message, Outbox
from windsock.settings import Settings
from windsock.spec import load_specs
from windsock.store import Store
from windsock_airflow.callbacks import FAILURES, cause_of, model_of, on_task_failure, spec_of
from windsock_airflow.runs import run_url
from windsock_airflow.scheduler_threads import Looks, in_scheduler, start_thread
from windsock_airflow.slack_connection import with_token

log = logging.getLogger(__name__)

_GRACE = timedelta(seconds=30)
"""So long after a task failed, it has said what it has to say itself."""
_LOOK_BACK = timedelta(hours=6)
_LONG_WAIT = timedelta(hours=24)
_MEMORY = timedelta(days=30)
_ROUND_S = 60.0
_ROUNDS_BETWEEN_WAITS = 10
_ROUNDS_BETWEEN_CHALLENGERS = 60
_failed, _succeeded = threading.Event(), threading.Event()


@hookimpl
def on_starting(component: Any) -> None:
    """Start the thread if this process is a scheduler."""
    if in_scheduler(component):
        start_thread("windsock-alerts", _watch_for_ever, Settings.from_env())


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """Have the thread look; in other processes nobody does."""
    _failed.set()


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Have the thread look whether what had failed is mended."""
    _succeeded.set()


class Watch:
    """One scheduler's looks at the database; ``known`` are the causes that it has dealt with."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: set[str] = set()
        self._unjudged: dict[str, str] = {}
        """Model to the version that nobody had judged at the last look."""

    def report_failures(self, session: Any, now: datetime) -> None:
        """Report the tasks that failed lately and for good, unless a person failed them or they are reported."""
        from airflow.models.log import Log
        from airflow.models.taskinstance import TaskInstance
        from sqlalchemy import exists, select

        since = now - _LOOK_BACK
        by_hand = exists().where(
            Log.dag_id == TaskInstance.dag_id,
            Log.run_id == TaskInstance.run_id,
            Log.event.in_(_BY_HAND),
            Log.dttm >= TaskInstance.start_date,
        )
        failed = select(TaskInstance).where(
            TaskInstance.state == "failed", TaskInstance.end_date.between(since, now - _GRACE), ~by_hand
        )
        for ti in session.scalars(failed):
            if (cause := cause_of(ti)) not in self._known and model_of(self._settings, ti.dag_id) is not None:
                self._known.add(cause)
                run = ti.dag_run
                on_task_failure({"ti": ti, "dag_run": run, "run_id": ti.run_id, "partition_key": run.partition_key})

    def report_recoveries(self, session: Any) -> None:
        """Close the threads about failed runs of which each has succeeded since, or another one for its day."""
        from airflow.models.dagrun import DagRun
        from sqlalchemy import select

        outbox = Outbox(Store.of(self._settings))
        threads = {name for name in outbox.open_threads() if name.startswith(FAILURES)}
        told: dict[str, list[Message]] = {name: [] for name in threads}
        for message in outbox.messages(_MEMORY) if threads else ():
            if message.thread in told:
                told[message.thread] = [] if message.closes else [*told[message.thread], message]
        for name, messages in told.items():
            dag_id = name.partition(" ")[2]
            if (spec := spec_of(self._settings, dag_id)) is None:
                continue
            wanted = select(DagRun).where(DagRun.dag_id == dag_id, DagRun.state == "success")
            # Of what is older than our memory only the DAG is known.
            failed = [datetime.fromisoformat(message.at) for message in messages] or [datetime.now(UTC) - _MEMORY]
            good = list(session.scalars(wanted.where(DagRun.end_date > min(failed) - _GRACE)))
            if good and all(any(_mends(run, message) for run in good) for message in messages):
                days = ", ".join(sorted({m.day for m in messages if m.day})[-5:])
                sentence = f"It runs again{days and f', for {days} too'}: what had failed has succeeded since."
                headline, kind = (messages[-1].headline, messages[-1].kind) if messages else ("Task failed", "failure")
                cause = f"over {name} {messages[-1].cause if messages else ''}"
                alert = Alert(dag_id, sentence, None, None, None, headline, cause, kind)  # type: ignore[arg-type]
                report(self._settings, replace(alert, thread=name, closes=True), spec)

    def withdraw_questions(self, session: Any) -> None:
        """Answer what people are asked about an older version where a later run asks about a newer one."""
        newest = dict[str, Any]()
        for ti in _unanswered(session):  # the later run last
            spec, older = spec_of(self._settings, ti.dag_id), newest.get(ti.dag_id)
            if spec is None:
                continue
            newest[ti.dag_id] = ti
            if older is not None:
                version = ti.xcom_pull(task_ids="gate", session=session)["version"]
                _supersede(session, older, version)
                log.info("%s %s: version %s is asked about instead", older.dag_id, older.run_id, version)

    def report_waits(self, session: Any, now: datetime) -> None:
        """Report approvals that nobody has answered for a day."""
        for ti in _unanswered(session):
            if ti.start_date >= now - _LONG_WAIT:
                continue
            cause = f"unanswered {ti.dag_id} {ti.run_id} {ti.try_number}"
            spec = spec_of(self._settings, ti.dag_id)
            if cause in self._known or spec is None:
                continue
            self._known.add(cause)
            sentence = (
                f"A version of {spec.name} passed the gate and waits for Approve or Reject since "
                f"{ti.start_date:%Y-%m-%d %H:%M} UTC. Answer it under Required Actions; until then the champion "
                "stays."
            )
            url = run_url(self._settings, ti.dag_id, ti.run_id, ti.task_id)
            alert = Alert(ti.dag_id, sentence, ti.task_id, None, url, "Approval waits", cause, "approval", ti.run_id)
            report(self._settings, replace(alert, thread=approval_thread(ti)), spec)

    def report_challengers(self, session: Any) -> None:
        """Report the newest version of a model that nobody has judged since the last look, nor is about to."""
        from airflow.models.dagrun import DagRun
        from sqlalchemy import func, select

        from windsock.living_versions import unjudged_version

        for model, spec in load_specs(self._settings)[0].items():
            version, before = unjudged_version(self._settings, spec), self._unjudged.pop(model, None)
            if version is None:
                continue
            self._unjudged[model] = version
            dag_id, cause = f"{model}_promote", f"unjudged {model} {version}"
            at_work = select(func.count()).where(DagRun.dag_id == dag_id, DagRun.state.in_(("queued", "running")))
            if version != before or cause in self._known or session.scalar(at_work):
                continue
            self._known.add(cause)
            sentence = (
                f"Version {version} of {model} was registered, and no run of {dag_id} has judged it: the DAG was "
                f"paused, or its event was lost. Trigger {dag_id}; the champion stays meanwhile."
            )
            alert = Alert(dag_id, sentence, headline="Challenger waits", cause=cause, kind="deadline")
            report(self._settings, alert, spec)


_BY_HAND = (
    *("patch_task_instance", "bulk_task_instances", "patch_task_group_instances", "patch_dag_run", "bulk_dag_runs"),
)
"""What Airflow's audit log calls it when a person sets the state of tasks and runs."""


def _unanswered(session: Any) -> list[Any]:
    """Return the tasks that wait for a person's approval, in the order in which their runs were made."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    from windsock_airflow.decisions import APPROVAL

    wanted = select(TaskInstance).join(TaskInstance.dag_run).order_by(DagRun.id)
    return list(session.scalars(wanted.where(TaskInstance.task_id == APPROVAL, TaskInstance.state == "awaiting_input")))


def _supersede(session: Any, ti: Any, version: str) -> None:
    """Answer for a person as Airflow's own route does: its rows are locked in the same order."""
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from sqlalchemy import select

    from windsock_airflow.decisions import SUPERSEDED, AskForApproval

    locked = session.get(TaskInstance, ti.id, with_for_update={"of": TaskInstance}, populate_existing=True)
    asked = select(HITLDetail).where(HITLDetail.ti_id == ti.id).with_for_update(of=HITLDetail)
    question = session.scalar(asked.execution_options(populate_existing=True))
    if locked is None or locked.state != "awaiting_input" or question is None or question.response_received:
        return  # a person was faster
    question.responded_by = {"id": "windsock", "name": "windsock"}
    question.responded_at = datetime.now(UTC)
    question.chosen_options = [AskForApproval.REJECT]
    question.params_input = {SUPERSEDED: version}
    answer = TriggerEvent(question.as_resume_event_payload())  # type: ignore[no-untyped-call]
    handle_event_submit(answer, task_instance=locked, session=session)


def _mends(run: Any, failed: Message) -> bool:
    """Say whether a run that succeeded makes up for one that failed: it is the same, or later and for the same day."""
    if run.run_id == failed.run_id:
        return True
    return run.partition_key in (None, failed.day) and run.end_date > datetime.fromisoformat(failed.at)


def _watch_for_ever(settings: Settings) -> None:
    from airflow.utils.session import create_session

    watch, look, rounds = Watch(settings), True, 0
    looks = Looks(log, "Alerts could not be looked after")
    while True:
        if _failed.wait(_ROUND_S):
            _failed.clear()
            look = True
            with looks.look():
                send_waiting(with_token(settings))  # what the task has said itself
            time.sleep(_GRACE.total_seconds() + 1)
        with looks.look():
            now = datetime.now(UTC)
            with create_session() as session:
                watch.withdraw_questions(session)
                if look:
                    watch.report_failures(session, now)
                if rounds % _ROUNDS_BETWEEN_WAITS == 0:
                    watch.report_waits(session, now)
                if rounds % _ROUNDS_BETWEEN_CHALLENGERS == 0:
                    watch.report_challengers(session)
                if _succeeded.is_set():
                    _succeeded.clear()
                    watch.report_recoveries(session)
            look, rounds = False, rounds + 1
            send_waiting(with_token(settings))
