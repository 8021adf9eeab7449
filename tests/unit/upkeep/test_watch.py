"""Gaps are closed in order, once, by live runs; what cannot be closed is told once. Airflow is a list of runs here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from fake_slack import FakeSlack, faults_of
from small_model import small_fraud
from windsock.alerts import Alert, report, send_waiting
from windsock.days import ONE_DAY, day_range, utc_now
from windsock.features.feature_tables import feature_tables
from windsock.ledger import DayRecord, Ledger
from windsock.outbox import Outbox
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.upkeep.stage_days import days_of_stages
from windsock.upkeep.told import Told
from windsock.upkeep.waits import Wait, forget, note, waits_of
from windsock.upkeep.watch import RunState, look_after

TODAY = utc_now().date() + ONE_DAY
"""So that all that a test records has rested for a while by noon."""
NOON = datetime.combine(TODAY, time(12), UTC)
YESTERDAY = TODAY - ONE_DAY


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


@dataclass
class Runs:
    """A scheduler: what is paused, the runs that there are, and those that were asked for, in order."""

    paused: set[str] = field(default_factory=set)
    states: dict[tuple[str, str], RunState] = field(default_factory=dict)
    on_their_way: dict[str, dict[str, datetime | None]] = field(default_factory=dict)
    started: list[tuple[str, str, str]] = field(default_factory=list)
    asked: int = 0

    def is_paused(self, dag_id: str) -> bool:
        self.asked += 1
        return dag_id in self.paused

    def days_on_their_way(self, dag_id: str) -> dict[str, datetime | None]:
        self.asked += 1
        return self.on_their_way.get(dag_id, {})

    def run_state(self, dag_id: str, run_id: str) -> RunState | None:
        self.asked += 1
        return self.states.get((dag_id, run_id))

    def start(self, dag_id: str, run_id: str, key: str) -> None:
        self.started.append((dag_id, run_id, key))
        self.states[dag_id, run_id] = RunState("running")
        self.on_their_way.setdefault(dag_id, {})[key] = None

    def end(self, state: str = "success", at: datetime = NOON - timedelta(hours=1)) -> None:
        """End all runs that were started."""
        self.states = {run: RunState(state, at) for run in self.states}
        self.on_their_way.clear()

    def take(self) -> list[str]:
        """Return DAG and day of the runs that were started since the last time."""
        taken, self.started = [f"{dag} {key}" for dag, _, key in self.started], []
        return taken


@dataclass
class World:
    settings: Settings
    spec: ModelSpec
    slack: FakeSlack
    runs: Runs = field(default_factory=Runs)

    def settle(self, stage: str, *days: date, status: Any = "empty") -> None:
        store = Store.of(self.settings)
        ledgers = [Ledger(store, "fraud", name) for name in (stage, *(["decisions"] if stage == "monitor" else []))]
        if stage == "features":
            ledgers = [table.ledger(store) for table in feature_tables(self.spec)]
        for day in days:
            for ledger in ledgers:
                ledger.publish(DayRecord(str(day), status))

    def settle_all(self, *days: date, nights: bool = True) -> None:
        for stage in ("ingest", "features", "score", *(["monitor"] if nights else [])):
            self.settle(stage, *days)

    def look(self, now: datetime = NOON) -> bool:
        return look_after(self.settings, self.spec, self.runs, now)

    def told(self) -> list[str]:
        texts = [message["text"] for message in self.slack.messages]
        self.slack.messages.clear()
        return texts


@pytest.fixture
def world(tmp_path: Path) -> Any:
    settings, spec = small_fraud(tmp_path, first_day=str(ago(200)), schedule={"monitor": "0 3 * * *"})
    with FakeSlack() as slack:
        yield World(Settings.from_env({**slack.env, **env_of(settings)}), spec, slack)


def env_of(settings: Settings) -> dict[str, str]:
    return {"WINDSOCK_HOME": str(settings.home), "WINDSOCK_MODELS": str(settings.models[0])}


def test_where_nothing_is_lacking_airflow_is_asked_nothing_and_nothing_is_written(world: World):
    world.look()
    world.settle_all(*day_range(ago(60), YESTERDAY))
    world.look()
    assert (world.runs.asked, world.told()) == (0, [])


def test_after_eight_days_switched_off_each_stage_is_made_up_for_in_order_and_one_message_says_so(world: World):
    world.settle_all(*day_range(ago(60), ago(9)))
    gap = day_range(ago(8), YESTERDAY)
    world.runs.on_their_way["fraud_ingest"] = {str(YESTERDAY): NOON}  # by the clock, once the machine was on again

    assert world.look()  # a clock that is wrong for a moment starts nothing
    assert world.runs.take() == []
    assert world.look(NOON + timedelta(minutes=1))
    assert world.runs.take() == [f"fraud_ingest {day}" for day in gap[:-1]]
    (text,) = world.told()
    for part in (f"ingest of {ago(8)}..{ago(2)}", "live", "fraud", "nothing need be done"):
        assert part.lower() in text.lower()

    world.runs.end()
    world.settle("ingest", *gap)
    world.runs.on_their_way["fraud_features"] = dict.fromkeys(map(str, gap), NOON)  # started by the events of ingest
    assert world.look()
    assert world.runs.take() == []
    world.runs.end()
    world.settle("features", *gap)
    world.settle("score", *gap)
    nights = []
    for _ in gap:  # one after another, as each night's decision counts on those before
        world.look()
        world.look()
        (night,) = world.runs.take()
        nights.append(night)
        world.runs.end()
        world.settle("monitor", date.fromisoformat(night.split()[1]))
    assert nights == [f"fraud_monitor {day}" for day in gap]
    assert not world.look()
    assert (world.runs.take(), world.told()) == ([], [])


@pytest.mark.parametrize(
    ("stage", "by", "settled"),
    [
        ("features", "fraud_features", ("ingest",)),
        ("score", "fraud_features", ("ingest", "features")),
        ("monitor", "fraud_monitor", ("ingest", "features", "score")),
    ],
)
def test_days_whose_events_were_lost_while_a_dag_was_paused_are_run_once_it_is_not(
    world: World, stage: str, by: str, settled: tuple[str, ...]
):
    world.settle_all(*day_range(ago(60), ago(4)))
    for each in settled:
        world.settle(each, *day_range(ago(3), YESTERDAY))
    world.runs.paused = {f"fraud_{stage}"}
    for _ in range(3):
        world.look()
    (text,) = world.told()
    assert f"fraud_{stage} is paused" in text
    assert f"{ago(3)}..{YESTERDAY}" in text
    assert world.runs.take() == []

    world.runs.paused = set()
    world.look()
    first = world.runs.take()
    assert first == [f"{by} {day}" for day in day_range(ago(3), YESTERDAY)][: 1 if stage == "monitor" else 3]


def test_history_before_the_first_ingested_day_is_nobodys_gap(world: World):
    world.settle_all(YESTERDAY)
    world.look()
    assert not world.look()
    assert (world.runs.take(), world.told()) == ([], [])


def test_a_night_whose_run_ended_between_its_report_and_its_decision_is_run_again(world: World):
    world.settle_all(*day_range(ago(60), YESTERDAY))
    for day in (ago(60), ago(3), YESTERDAY):  # far back, a person is asked
        Ledger.of(world.settings, "fraud", "decisions").store.remove("fraud", "ledger", "decisions", f"{day}.json")
    for night in (ago(3), YESTERDAY):
        world.look()
        world.look()
        assert world.runs.take() == [f"fraud_monitor {night}"]
        world.runs.end()
        world.settle("monitor", night)
    assert not world.look()
    assert [f"--from {ago(60)} --to {ago(60)} --stage monitor" in text for text in world.told()] == [True, False]


def late_run(world: World) -> None:
    world.runs.on_their_way["fraud_ingest"] = dict.fromkeys(map(str, (ago(2), YESTERDAY)), NOON - timedelta(hours=9))


def long_wait(world: World) -> None:
    world.settle("ingest", ago(2), YESTERDAY)
    world.runs.on_their_way["fraud_features"] = {str(day): NOON for day in (ago(2), YESTERDAY)}
    world.runs.on_their_way["fraud_monitor"] = {str(day): NOON for day in (ago(2), YESTERDAY)}
    now = utc_now()
    with pytest.MonkeyPatch.context() as clock:  # all since the same second
        clock.setattr("windsock.upkeep.waits.utc_now", lambda: now)
        for day in (ago(2), YESTERDAY):
            note(Store.of(world.settings), "fraud", Wait("features", str(day), "fraud_features", "r", True, "a day"))
    world.runs.states["fraud_features", "r"] = RunState("running")


def pause(world: World) -> None:
    world.runs.paused = {f"fraud_{stage}" for stage in ("ingest", "monitor")}


def nothing_for_weeks(world: World) -> None:
    world.settle_all(*day_range(ago(60), ago(40)))


@pytest.mark.parametrize(
    ("trouble", "headlines"),
    [
        (late_run, ["Day is late", "Day is late"]),
        (long_wait, ["Run waits", "Run waits"]),
        (pause, ["DAG is paused", "DAG is paused"]),
        (nothing_for_weeks, ["Days are made up for", "Days are missing"]),
        (lambda world: None, ["Days are made up for"]),
    ],
)
def test_what_a_look_told_before_it_died_the_next_one_does_not_say_again(
    world: World, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[World], None], headlines: list[str]
):
    world.settle_all(*day_range(ago(30), ago(3)))
    trouble(world)
    world.look()
    first = Runs(set(world.runs.paused), dict(world.runs.states), dict(world.runs.on_their_way))
    with monkeypatch.context() as dead:
        dead.setattr(Told, "save", interrupted)
        with pytest.raises(InterruptedError):
            world.look()
    for runs in (first, world.runs):  # as who looks at the same moment, and later
        world.runs = runs
        world.look()
    assert sorted(text.split("*")[1] for text in world.told()) == headlines


def interrupted(_: Told) -> None:
    raise InterruptedError


def test_days_beyond_the_reach_are_told_once_with_the_command_and_not_started(world: World):
    world.settle_all(*day_range(ago(60), ago(45)), *day_range(ago(40), YESTERDAY))
    for _ in range(3):
        world.look()
    (text,) = world.told()
    assert f"windsock backfill fraud --from {ago(44)} --to {ago(41)}" in text
    assert world.runs.take() == []


def test_after_a_silence_beyond_the_reach_or_with_a_clock_far_ahead_a_person_is_asked(world: World):
    world.settle_all(*day_range(ago(60), YESTERDAY))
    for _ in range(3):
        world.look(NOON + timedelta(days=400))
    assert world.runs.take() == []
    assert [f"--from {TODAY}" in text for text in world.told()] == [True]
    world.look()
    assert not world.look()
    assert (world.runs.take(), world.told()) == ([], [])


def test_a_day_is_asked_for_again_only_if_its_run_succeeded_without_a_result(world: World):
    world.settle_all(*day_range(ago(60), ago(3)), YESTERDAY)
    world.look()
    world.look()
    run_ids = [run_id for _, run_id, _ in world.runs.started]
    for _ in range(4):
        world.runs.end()
        world.look()
        run_ids += [run_id for _, run_id, _ in world.runs.started if run_id not in run_ids]
    name = f"catch_up__ingest__{ago(2)}"
    assert run_ids == [name, f"{name}__2", f"{name}__3"]
    assert sum("still nothing is recorded" in text for text in world.told()) == 1


def test_a_day_whose_run_failed_or_that_a_person_took_out_is_left_to_a_person(world: World):
    world.settle_all(*day_range(ago(60), YESTERDAY))
    Ledger.of(world.settings, "fraud", "ingest").void(ago(5), "it was not meant")
    world.look()
    world.look()
    assert world.runs.take() == []
    Ledger.of(world.settings, "fraud", "score").store.remove("fraud", "ledger", "score", f"{ago(3)}.json")
    world.look()
    world.look()
    assert world.runs.take() == [f"fraud_features {ago(3)}"]
    world.runs.end("failed")
    assert not world.look()
    assert world.runs.take() == []


def test_refused_days_lack_nothing(world: World):
    world.settle_all(*day_range(ago(60), ago(2)))
    world.settle("ingest", YESTERDAY, status="rejected")
    world.settle("monitor", YESTERDAY)
    world.look()
    assert not world.look()
    assert (world.runs.take(), world.runs.asked) == ([], 0)


@pytest.mark.parametrize("stage", ["ingest", "features", "score", "monitor"])
@pytest.mark.parametrize(("hours", "waits", "told"), [(5, False, 0), (7, False, 1), (7, True, 0)])
def test_a_day_whose_run_hangs_or_gets_no_slot_is_told_of_once_and_one_that_waits_by_its_own_sentence(
    world: World, stage: str, hours: int, waits: bool, told: int
):
    stages = ("ingest", "features", "score", "monitor")
    world.settle_all(*day_range(ago(4), ago(2)))
    for before in stages[: stages.index(stage)]:
        world.settle(before, YESTERDAY)
    world.runs.on_their_way[f"fraud_{stage}"] = {str(YESTERDAY): NOON - timedelta(hours=hours)}
    if waits:
        note(Store.of(world.settings), "fraud", Wait(stage, str(YESTERDAY), f"fraud_{stage}", "r", False, "a day"))
        world.runs.states[f"fraud_{stage}", "r"] = RunState("running")
    for _ in range(3):
        world.look()
    texts = world.told()
    assert [("Day is late" in text, f"{stage} of {YESTERDAY} is not done" in text) for text in texts] == [
        (True, True)
    ] * told
    assert world.runs.take() == []


@pytest.mark.parametrize(
    ("hours", "live", "state", "told", "kept"),
    [(5, True, "running", 0, 1), (7, True, "running", 1, 1), (7, False, "running", 0, 1), (7, True, "failed", 0, 0)],
)
def test_a_live_run_that_waits_for_too_long_is_told_of_once_with_its_sentence(
    world: World, hours: int, live: bool, state: str, told: int, kept: int
):
    store = Store.of(world.settings)
    wait = Wait("features", str(YESTERDAY), "fraud_features", "asset__1", live, "ingest of 2 days is missing.")
    note(store, "fraud", wait)
    note(store, "fraud", wait)
    world.runs.states["fraud_features", "asset__1"] = RunState(state)
    now = utc_now() + timedelta(hours=hours)
    for _ in range(3):
        world.look(now)
    texts = world.told()
    assert [("Run waits" in text, "ingest of 2 days is missing." in text) for text in texts] == [(True, True)] * told
    assert len(list(waits_of(store, "fraud"))) == kept


def test_a_wait_keeps_its_beginning_while_its_sentence_changes(world: World, monkeypatch: pytest.MonkeyPatch):
    store, at = Store.of(world.settings), datetime(2026, 3, 1, tzinfo=UTC)
    for minute, sentence in enumerate(["two days", "two days", "one day"]):
        monkeypatch.setattr("windsock.upkeep.waits.utc_now", lambda m=minute: at + timedelta(minutes=m))
        note(store, "fraud", Wait("score", "2026-02-28", "fraud_score", "r", True, sentence))
    (wait,) = waits_of(store, "fraud")
    assert (wait.sentence, wait.since) == ("one day", "2026-03-01T00:00:00+00:00")
    forget(store, "fraud", "score", "2026-02-28")
    forget(store, "fraud", "score", "2026-02-28")
    assert list(waits_of(store, "fraud")) == []


def test_what_is_due_goes_by_the_specs_own_times(world: World):
    world.settle_all(*day_range(ago(60), ago(2)))
    lacking: Callable[[int, int], list[str]] = lambda hour, minute: [  # noqa: E731
        stage
        for stage, days in days_of_stages(
            world.settings, world.spec, datetime.combine(TODAY, time(hour, minute), UTC)
        ).items()
        if days.lacking
    ]
    assert lacking(0, 40) == []  # 00:30 and a quarter of an hour
    assert lacking(0, 50) == ["ingest"]
    assert lacking(3, 20) == ["ingest", "monitor"]


def test_a_digest_a_day_says_how_a_model_stands_once_its_night_is_over(tmp_path: Path):
    settings, spec = small_fraud(tmp_path, first_day=str(ago(200)), alerts={"digest": True})
    with FakeSlack() as slack:
        world = World(Settings.from_env({**slack.env, **env_of(settings)}), spec, slack)
        world.settle_all(*day_range(ago(30), ago(2)))
        world.settle_all(YESTERDAY, nights=False)
        for thread in ("drift fraud_eu", "failed fraud_eu_ingest", "performance fraud", "failed fraud_train"):
            report(world.settings, Alert(thread, "x", cause=thread, thread=thread), spec)
        for hours in (-7, -6):  # the night is not over
            world.look(NOON + timedelta(hours=hours))
        world.settle("monitor", YESTERDAY)
        for hours in (-5, 0, 3):
            world.look(NOON + timedelta(hours=hours))
        send_waiting(world.settings)

        (message,) = [m for m in slack.messages if "daily digest" in m["text"]]
        assert message["text"].startswith(f"*fraud: daily digest*: DAG fraud_monitor, day {YESTERDAY}")
        assert "*Champion*\\nnone" in str(message["blocks"])
        assert "*Not over*\\nfailed fraud_train, performance fraud'" in str(message["blocks"]), "of no other model"
        assert faults_of(message["blocks"]) == []


def test_a_model_of_which_nothing_came_for_a_week_has_no_digest(tmp_path: Path):
    settings, spec = small_fraud(tmp_path, first_day=str(ago(200)), alerts={"digest": True})
    with FakeSlack() as slack:
        world = World(Settings.from_env({**slack.env, **env_of(settings)}), spec, slack)
        world.settle_all(*day_range(ago(60), ago(20)))
        world.look()
        assert not [m for m in Outbox(Store.of(world.settings)).messages() if m.kind == "digest"]
