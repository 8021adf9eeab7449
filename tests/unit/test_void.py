"""A day's record is taken out again: for everybody the day is as if it had not been done, and nothing is lost."""

import os
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from churn_model import DAY, Churn, delivery
from examples import examples
from feature_tables import at, publish, table_of, two_views
from kill import DieAt, Steps, snapshot, stray_files
from small_model import small_fraud
from windsock import tables
from windsock.cli import main
from windsock.completeness import settled_days, stale_days
from windsock.days import utc_now
from windsock.errors import NotReady
from windsock.featurestore.online_db import micros_of
from windsock.featurestore.sinks import open_sink
from windsock.ledger import DayRecord, Ledger, records_after, stages_of
from windsock.promotions import Promotion, append, champion_on, current
from windsock.steps import run_step
from windsock.store import Store
from windsock_local.stack import doctor

SECOND, THIRD, FOURTH = (DAY + timedelta(days=n) for n in (1, 2, 3))
STAGES = ["ingest", "labels", "features", "features/usage@1a2b3c4d", "score", "monitor", "decisions"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Churn:
    """Four days, ingested, with features of the last two, whose view looks back two days."""
    made = Churn.make(tmp_path_factory.mktemp("world"))
    for day in (DAY, SECOND, THIRD, FOURTH):
        made.ingest(delivery(day), day)
    for day in (THIRD, FOURTH):
        made.step("features", day)
    return made


@pytest.fixture
def churn(world: Churn, tmp_path: Path) -> Churn:
    """A copy of it."""
    made = Churn.make(tmp_path)
    for folder in ("inbox", "store"):
        shutil.copytree(world.home / folder, tmp_path / folder, dirs_exist_ok=True)
    return made


def void(churn: Churn, stage: str, day: date, reason: str = "a mistyped key", **options: Any) -> dict[str, Any]:
    return churn.step("void", day, stage=stage, reason=reason, **options)


def test_a_day_taken_out_is_missed_by_whoever_needs_it_and_read_by_nobody(churn: Churn) -> None:
    result = void(churn, "ingest", SECOND)

    assert result["voided"] == {"ingest": {"status": "published", "origin": "manual"}}
    assert result["made_from_it"] == {churn.table.name: [str(THIRD), str(FOURTH)]}
    with pytest.raises(NotReady, match=r"ingest of 1 of 4 needed days is still missing: 2026-03-02\."):
        settled_days(churn.settings, churn.spec, "ingest", DAY, FOURTH)
    with pytest.raises(NotReady, match="still missing: 2026-03-02"):
        churn.step("features", FOURTH)
    with pytest.raises(NotReady, match="2026-03-02 cannot be scored, its step 'ingest' has not been run"):
        churn.step("score", SECOND)
    ingest = Ledger.of(churn.settings, "churn", "ingest")
    seen = tables.read_events(churn.store, churn.spec, ingest.all().values())
    assert {str(t.date()) for t in seen["seen_at"].to_pylist()} == {str(DAY), str(THIRD), str(FOURTH)}


def test_what_was_made_from_it_is_out_of_date_until_the_same_rows_are_back(churn: Churn) -> None:
    before = {day: churn.record(churn.table.name, day).content_hash for day in (THIRD, FOURTH)}
    void(churn, "ingest", SECOND)
    assert stale_days(churn.settings, churn.spec, SECOND) == [THIRD, FOURTH]

    assert churn.step("ingest", SECOND)["refresh"] == []
    churn.step("features", FOURTH)
    assert {day: churn.record(churn.table.name, day).content_hash for day in before} == before

    void(churn, "ingest", SECOND)
    churn.ingest(delivery(SECOND, rows=150), SECOND)
    assert stale_days(churn.settings, churn.spec, SECOND) == [THIRD, FOURTH]


def test_labels_of_a_delivery_taken_out_leave_the_features_made_from_them_out_of_date(tmp_path: Path) -> None:
    files = {"url": "labels/{ds}.csv", "key": "event_id", "horizon_days": 5}
    churn = Churn.make(tmp_path, label__files=files)
    labels, features = (Ledger.of(churn.settings, "churn", stage) for stage in ("labels", churn.table.name))
    mark = labels.publish(DayRecord(str(SECOND), "published")).data_hash
    for day in (SECOND, THIRD):
        made = DayRecord(str(day), "published", inputs={f"labels/{SECOND}": mark}, detail={"lookback_days": 2})
        features.publish(made)
    assert stale_days(churn.settings, churn.spec, SECOND, itself=True) == []

    void(churn, "labels", SECOND)

    assert stale_days(churn.settings, churn.spec, SECOND, itself=True) == [SECOND, THIRD]


def test_who_why_and_what_is_kept_and_a_pinned_training_finds_its_rows(churn: Churn) -> None:
    ingest = Ledger.of(churn.settings, "churn", "ingest")
    pins, rows = ingest.pins([SECOND]), churn.rows("events", days=2)

    void(churn, "ingest", SECOND, "delivered twice", by="ann")

    kept = ingest.last_void(SECOND)
    assert kept is not None
    assert kept.recorded_at
    assert (kept.status, kept.origin, kept.detail["reason"]) == ("void", "ann", "delivered twice")
    assert kept.detail["instead_of"] == pins[str(SECOND)]
    for path in Path(churn.settings.store).rglob("*.parquet"):
        os.utime(path, (0, 0))  # as if written long ago
    cleaned = run_step("maintain", model="churn", settings=churn.settings, options={"dry_run": True})
    assert cleaned["deleted"] == 0
    first = Ledger.of(churn.settings, "churn", "ingest").get(DAY)
    assert tables.read(churn.store, [first, *ingest.pinned(pins).values()], "events").equals(rows)


def test_every_stage_has_days_that_can_be_taken_out_and_a_group_goes_whole(churn: Churn) -> None:
    for stage in STAGES:
        Ledger.of(churn.settings, "churn", stage).publish(DayRecord("2062-01-01", "published"))
    assert set(STAGES) <= set(stages_of(churn.store, "churn"))
    assert records_after(churn.store, "churn", FOURTH) == [(stage, date(2062, 1, 1)) for stage in sorted(STAGES)]

    assert set(void(churn, "features", date(2062, 1, 1))["voided"]) == {"features", "features/usage@1a2b3c4d"}
    for stage in ("ingest", "labels", "score", "monitor", "decisions"):
        void(churn, stage, date(2062, 1, 1))

    assert records_after(churn.store, "churn", FOURTH) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["scores", "2026-03-02"], "Did you mean 'score'? Known: features, ingest, score."),
        (["score", "2026-03-03"], "score has no record of 2026-03-03: it was taken out at "),
        (
            ["ingest", "2027-01-01"],
            "ingest has no record of 2027-01-01. Days nearby that have one: 2026-03-03..2026-03-04.",
        ),
        (["ingest", "2025-01-01"], "Days nearby that have one: 2026-03-01..2026-03-02."),
        (["ingest", "2026-02-30"], "The day '2026-02-30' is not a day."),
        (["ingest", "2026-03-02", "--reason", ""], "say why 2026-03-02 is taken out"),
    ],
)
def test_what_cannot_be_taken_out_is_told_with_what_can(
    churn: Churn,
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WINDSOCK_HOME", str(churn.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(churn.home / "models"))
    Ledger.of(churn.settings, "churn", "score").publish(DayRecord(str(THIRD), "no_champion"))
    void(churn, "score", THIRD, "no such model", by="ann")
    before = snapshot(churn.settings, "churn", ["ingest", "features", "score"])
    stage, day, *more = arguments

    assert main(["void", "churn", stage, day, *(more or ["--reason", "why"])]) == 64

    assert sentence in capsys.readouterr().err
    assert snapshot(churn.settings, "churn", ["ingest", "features", "score"]) == before


DAYS = [date(2026, 3, n) for n in range(1, 5)]
DEEDS = st.tuples(st.sampled_from(DAYS), st.one_of(st.none(), st.integers(0, 2)))


@examples(60, suppress=[HealthCheck.function_scoped_fixture])
@given(deeds=st.lists(DEEDS, min_size=1, max_size=12))
def test_a_day_is_what_was_published_last_unless_it_was_taken_out_since(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[date, int | None]]
) -> None:
    ledger = Ledger(Store(str(tmp_path_factory.mktemp("store"))), "m", "score")
    there: dict[date, DayRecord] = {}
    every: dict[str, str] = {}
    for day, content in deeds:
        if content is None:
            assert ledger.void(day, "why") == there.pop(day, None)
        else:
            record = ledger.publish(DayRecord(str(day), "published", detail={"n": content}))
            there[day], every[str(day)] = record, record.content_hash
        assert ledger.all() == ledger.between(DAYS[0], DAYS[-1]) == dict(sorted(there.items()))
        assert ledger.days() == sorted(there)
        assert ledger.pins(DAYS) == {r.ds: r.content_hash for r in there.values()}
        assert set(ledger.pinned(every)) == {date.fromisoformat(ds) for ds in every}


PLACES = [
    pytest.param(DieAt("windsock.store:Store.write_json"), False, id="before-the-reason"),
    pytest.param(DieAt("windsock.store:Store.write_json", after=True), False, id="between-reason-and-removal"),
    pytest.param(DieAt("windsock.store:Store.remove", after=True), True, id="after-the-removal"),
]


@pytest.mark.kill
@pytest.mark.parametrize(("place", "done"), PLACES)
def test_a_kill_leaves_the_day_in_force_or_taken_out_and_the_next_try_completes(
    churn: Churn, place: DieAt, done: bool
) -> None:
    stages = ["ingest", "features"]
    ingest, record = Ledger.of(churn.settings, "churn", "ingest"), churn.record("ingest", SECOND)
    before = snapshot(churn.settings, "churn", stages)
    after = {name: seen for name, seen in before.items() if name != f"ingest/{SECOND}"}
    steps, options = Steps(churn.settings, "churn"), {"stage": "ingest", "reason": "a mistyped key"}

    trial = steps.run("void", key=str(SECOND), options=options, die_at=place)

    assert trial.killed, trial.error
    assert snapshot(churn.settings, "churn", stages) == (after if done else before)
    again = steps.run("void", key=str(SECOND), options=options)
    assert again.error is None or (done and "it was taken out at" in again.error)
    assert snapshot(churn.settings, "churn", stages) == after
    assert ingest.last_void(SECOND).detail["reason"] == "a mistyped key"  # type: ignore[union-attr]
    assert stray_files(churn.settings) == []
    ingest.publish(record)
    assert snapshot(churn.settings, "churn", stages) == before


def test_online_a_day_taken_out_is_taken_out_by_correcting_it(tmp_path: Path) -> None:
    settings, spec = two_views(tmp_path)
    ours, mistake = date(2026, 3, 2), date(2026, 3, 30)
    for day, entities in ((ours, [1]), (mistake, [1, 2])):
        publish(settings, spec, day, {"spending": [(e, at(day.day, 9), 1, 1.0) for e in entities], "everything": []})
        run_step("materialize", model="fraud", key=str(day), settings=settings)
    table = table_of(spec, "spending")

    def served() -> dict[Any, int]:
        return {e: row.micros for e, row in open_sink(settings, [table]).read(table, [1, 2]).items()}

    run_step(
        "void", model="fraud", key=str(mistake), settings=settings, options={"stage": "features", "reason": "typo"}
    )
    at_thirty = micros_of(at(30, 9))
    assert served() == {1: at_thirty, 2: at_thirty}, "taking out a record alone changes nothing that is served"
    with pytest.raises(NotReady):
        run_step("materialize", model="fraud", key=str(mistake), settings=settings)
    for _ in range(2):
        run_step("materialize", model="fraud", key=str(mistake), settings=settings, options={"correct": True})

        assert served() == {1: micros_of(at(2, 9))}


def test_a_store_with_a_key_in_2062_is_well_again_by_the_commands_that_the_doctor_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, spec = small_fraud(tmp_path)
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    monkeypatch.setenv("WINDSOCK_MODELS", str(tmp_path / "models"))
    yesterday, mistake = utc_now().date() - timedelta(days=1), date(2062, 1, 1)
    old = append(settings, spec, Promotion(0, "promote", "1", "r1", None, yesterday, DAY, "test"), after=None)
    for stage in ("ingest", "features", "score"):
        for day in (yesterday, mistake):
            Ledger.of(settings, "fraud", stage).publish(DayRecord(str(day), "published"))
    late = mistake + timedelta(days=1)
    append(settings, spec, Promotion(0, "promote", "2", "r2", "1", late, DAY, "test"), after=old)
    assert champion_on(settings, spec, yesterday + timedelta(days=1)).version == "1"  # type: ignore[union-attr]

    def found() -> list[doctor.Check]:
        return [check for check in doctor.examine(settings) if check.name == "days"]

    commands = [check.next_step for check in found()]
    assert commands == [
        "windsock void fraud features 2062-01-01 --reason ...",
        "windsock void fraud ingest 2062-01-01 --reason ...",
        "windsock void fraud score 2062-01-01 --reason ...",
        "windsock correct-promotion fraud --reason ...",
    ]
    for command in commands:
        assert main(command.split()[1:]) == 0
    assert "instead of 2062-01-02" in capsys.readouterr().out

    assert [(check.verdict, check.next_step) for check in found()] == [("ok", "")]
    assert champion_on(settings, spec, yesterday).version == "1"  # type: ignore[union-attr]
    assert champion_on(settings, spec, yesterday + timedelta(days=1)).version == "2"  # type: ignore[union-attr]
    assert current(settings, spec).kind == "correct"  # type: ignore[union-attr]
