"""How a step's outcome becomes a task's: done, waiting, skipped, failed for good or to be retried."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

import windsock.steps
from windsock.errors import (
    DayRejected,
    GateFailed,
    NotReady,
    SpecError,
    TooLittleHistory,
    UpstreamUnavailable,
)
from windsock.settings import Settings
from windsock.store import Store
from windsock.upkeep.waits import waits_of
from windsock_airflow.step import StepOperator

EVENTS = Asset(name="m_events", uri="x-windsock://m/events")


class Outlet:
    def __init__(self) -> None:
        self.extra: dict[str, Any] = {}
        self.keys: set[str] = set()

    def add_partitions(self, keys: list[str]) -> None:
        self.keys.update(keys)


def event(run_id: str = "manual__1", second: int = 0, **extra: Any) -> SimpleNamespace:
    at = datetime(2026, 3, 1, 0, 0, second, tzinfo=UTC)
    return SimpleNamespace(extra=extra, source_run_id=run_id, timestamp=at)


def context(
    key: str | None = "2026-03-01",
    run_id: str = "manual__now",
    run_type: str = "manual",
    events: tuple[Any, ...] = (),
    **params: Any,
) -> dict[str, Any]:
    run = SimpleNamespace(dag_id="m_ingest", run_id=run_id, run_type=run_type, conf={}, triggering_user_name="ada")
    ti = SimpleNamespace(get_first_reschedule_date=lambda _: None)
    return {
        "dag_run": run,
        "partition_key": key,
        "params": params,
        "triggering_asset_events": {EVENTS: list(events)},
        "outlet_events": {EVENTS: Outlet()},
        "ti": ti,
    }


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    monkeypatch.delenv("WINDSOCK_STORE", raising=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Replace the steps by one that records how it was called and does what ``outcome`` says."""
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    made: list[dict[str, Any]] = []

    def run_step(name: str, **given: Any) -> dict[str, Any]:
        made.append({"step": name, **given})
        if isinstance(run_step.outcome, Exception):
            raise run_step.outcome
        return dict(run_step.outcome)

    run_step.outcome = {"rows": 3}  # type: ignore[attr-defined]
    monkeypatch.setattr(windsock.steps, "run_step", run_step)
    return made


def outcome(value: Any) -> None:
    windsock.steps.run_step.outcome = value  # type: ignore[attr-defined]


def step(**given: Any) -> StepOperator:
    return StepOperator(**{"step": "ingest", "model": "m", "outlets": [EVENTS], **given})


def test_the_first_poke_runs_the_step_and_its_result_is_the_xcom(calls: list[dict[str, Any]]):
    assert step().execute(context()) == {"rows": 3}
    (call,) = calls
    assert call["key"] == "2026-03-01"
    assert call["live"] is True
    assert call["origin"] == "manual__now"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (SpecError("x"), AirflowFailException),
        (DayRejected("x"), AirflowFailException),
        (GateFailed("x"), AirflowSkipException),
        (UpstreamUnavailable("x"), UpstreamUnavailable),
        (RuntimeError("x"), RuntimeError),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Exception) else "",
)
def test_only_what_a_retry_may_mend_is_retried(calls: list[dict[str, Any]], error: Exception, raised: type[Exception]):
    outcome(error)
    with pytest.raises(raised, match="x"):
        step().execute(context())


def test_not_ready_reschedules_and_gives_up_with_the_sentence(calls: list[dict[str, Any]]):
    outcome(NotReady("2026-02-27 is missing"))
    with pytest.raises(AirflowRescheduleException):
        step().execute(context())
    late = context()
    late["ti"].get_first_reschedule_date = lambda _: datetime.now(UTC) - timedelta(days=15)
    with pytest.raises(AirflowSensorTimeout, match="2026-02-27 is missing"):
        step().execute(late)


def test_a_waiting_run_is_noted_with_its_sentence_until_it_ends(calls: list[dict[str, Any]], tmp_path: Path):
    store = Store.of(Settings.from_env({"WINDSOCK_HOME": str(tmp_path)}))
    for end in ({"rows": 3}, DayRejected("no"), NotReady("still")):
        outcome(NotReady("2026-02-27 is missing"))
        with pytest.raises(AirflowRescheduleException):
            step().execute(context())
        (wait,) = waits_of(store, "m")
        assert (wait.step, wait.key, wait.live, wait.sentence) == (
            "ingest",
            "2026-03-01",
            True,
            "2026-02-27 is missing",
        )
        again = {**context(), "task_reschedule_count": 1}
        again["ti"].get_first_reschedule_date = lambda _: datetime.now(UTC) - timedelta(days=15)
        outcome(end)
        with suppress(AirflowFailException, AirflowSensorTimeout):
            step().execute(again)
        assert list(waits_of(store, "m")) == []


def test_who_has_waited_for_days_a_while_leaves_that_to_the_triggerer_until_the_time_is_up(calls: list[dict[str, Any]]):
    days = [date(2026, 2, 27), date(2026, 2, 28)]
    outcome(NotReady("two days are missing", stage="ingest", days=days))
    with pytest.raises(AirflowRescheduleException):
        step().execute(context())  # they may just be made
    waiting, begun = context(), datetime.now(UTC) - timedelta(minutes=1)
    waiting["ti"].get_first_reschedule_date = lambda _: begun
    with pytest.raises(TaskDeferred) as deferred:
        step(timeout=timedelta(hours=1)).execute(waiting)

    path, arguments = deferred.value.trigger.serialize()
    assert path == "windsock_airflow.waiting.DaysTrigger"
    assert (arguments["model"], arguments["stage"]) == ("m", "ingest")
    assert arguments["days"] == ["2026-02-27", "2026-02-28"]
    assert 3500 < arguments["longest"] <= 3540, "what is left of the hour"
    assert deferred.value.method_name == "go_on"
    outcome({"rows": 3})
    assert step().go_on(waiting, event={}) == {"rows": 3}
    begun -= timedelta(hours=1)
    outcome(NotReady("two days are missing", stage="ingest", days=days))
    with pytest.raises(AirflowSensorTimeout, match="two days are missing"):
        step(timeout=timedelta(hours=1)).go_on(waiting, event={})


def test_pauses_grow_with_the_time_waited():
    pause = step()._get_next_poke_interval
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert [pause(start, lambda s=s: s, 1) for s in (0.0, 60.0, 86400.0)] == [5.0, 15.0, 300.0]


@pytest.mark.parametrize("error", [NotReady("no day"), TooLittleHistory("no day")])
def test_the_weekly_run_is_skipped_while_there_are_too_few_days(calls: list[dict[str, Any]], error: Exception):
    outcome(error)
    weekly = step(keyed=False, skip_on_schedule=True)
    with pytest.raises(AirflowSkipException, match="no day"):
        weekly.execute(context(key=None, run_type="scheduled"))
    with pytest.raises((AirflowRescheduleException, AirflowFailException)):
        weekly.execute(context(key=None, run_type="manual", run_id="manual__2"))


@pytest.mark.parametrize("key", [None, "", "2026-3-1", "2026-02-30", "yesterday"])
def test_a_missing_or_malformed_day_fails_before_the_step_starts(calls: list[dict[str, Any]], key: str | None):
    with pytest.raises(AirflowFailException, match="partition key"):
        step().execute(context(key=key))
    assert not calls


def test_a_day_where_none_belongs_fails_too(calls: list[dict[str, Any]]):
    with pytest.raises(AirflowFailException, match="without a partition key"):
        step(keyed=False).execute(context())


@pytest.mark.parametrize(
    ("given", "live"),
    [
        ({}, True),
        ({"run_type": "scheduled"}, True),
        ({"run_type": "backfill"}, False),
        ({"run_id": "backfill__2026"}, False),
        ({"events": (event(live=True),)}, True),
        ({"events": (event(from_rest_api=True),)}, True),
        ({"events": (event(live=False),)}, False),
        ({"events": (event("backfill__2026"),)}, False),
        ({"events": (event(live=True), event(live=False))}, False),
    ],
)
def test_a_run_is_live_unless_a_backfill_is_among_its_causes(
    calls: list[dict[str, Any]], given: dict[str, Any], live: bool
):
    step().execute(context(**given))
    assert calls[0]["live"] is live


def test_replays_are_skipped_where_they_must_not_act(calls: list[dict[str, Any]]):
    with pytest.raises(AirflowSkipException, match="does not run for replays"):
        step(skip_replayed=True).execute(context(run_type="backfill"))
    assert not calls


def test_the_event_tells_of_the_day_and_of_those_it_made_out_of_date(calls: list[dict[str, Any]]):
    outcome({"rows": 3, "refresh": ["2026-03-02", "2026-03-03"], "version": "7"})
    given = context(run_type="backfill", run_id="backfill__x")
    step(announce=["version", "absent"]).execute(given)
    made = given["outlet_events"][EVENTS]
    assert made.keys == {"2026-03-01", "2026-03-02", "2026-03-03"}
    assert made.extra == {"live": False, "origin": "backfill__x", "key": "2026-03-01", "version": "7"}


def test_nothing_is_announced_when_the_step_says_so(calls: list[dict[str, Any]]):
    outcome({"announce": False})
    silent, given = step(), context()
    silent.execute(given)
    assert silent.outlets == []
    assert not given["outlet_events"][EVENTS].keys


def test_options_come_from_the_form_before_the_cause_and_empty_fields_stay_out(calls: list[dict[str, Any]]):
    asks = step(keyed=False, form=["as_of", "trials"], cause=["as_of", "reasons"], options={"run": "r1", "note": None})
    causes = (event(second=1, as_of="2026-03-02", reasons=["a"]), event(second=0, as_of="2026-03-01"))
    asks.execute(context(key=None, events=causes, as_of=None, trials=3))
    asks.execute(context(key=None, events=causes, as_of="2026-02-01", trials=None))
    assert [call["options"] for call in calls] == [
        {"as_of": "2026-03-02", "reasons": ["a"], "trials": 3, "run": "r1", "by": "ada"},
        {"as_of": "2026-02-01", "reasons": ["a"], "run": "r1", "by": "ada"},
    ]


def test_what_a_task_marked_as_a_success_by_hand_would_have_said_is_missed_by_name(calls: list[dict[str, Any]]):
    promote = step(keyed=False, options={"version": "7", "champion_seen": None, "by": None})
    promote.options = {"version": "7", "champion_seen": None, "by": ""}  # as rendered: no champion yet, nobody answered
    left: dict[str, Any] = {"gate": {"version": "7"}, "approval": None}
    given = context(key=None)
    given["task"] = SimpleNamespace(upstream_task_ids=set(left))
    given["ti"].task_id, given["ti"].xcom_pull = "promote", lambda task_ids: left[task_ids]

    with pytest.raises(AirflowFailException, match=r"^SpecError: approval left no result that promote .* Clear it"):
        promote.execute(given)
    assert calls == []

    left["approval"] = {"responded_by_user": {"name": "ada"}}
    promote.options["by"] = "ada"
    promote.execute(given)
    assert [call["options"] for call in calls] == [{"version": "7", "by": "ada"}]


def test_a_parameter_that_no_form_has_is_an_error_and_runs_nothing(calls):
    made = context(key=None, as_of=None)
    made["dag"] = SimpleNamespace(params={"as_of": None})
    made["dag_run"].conf = {"asof": "2026-03-01"}

    with pytest.raises(AirflowFailException, match="No parameter named 'asof'"):
        StepOperator(step="prepare", model="m", keyed=False, form=["as_of"]).execute(made)
    assert calls == []
    made["dag_run"].conf = {"as_of": "2026-03-01", "live": False}
    StepOperator(step="prepare", model="m", keyed=False, form=["as_of"]).execute(made)
    assert len(calls) == 1
