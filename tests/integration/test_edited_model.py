"""A model that people edit every week, under a real Airflow: nothing is planned, and nothing goes silently wrong.

Its days are delivered as files that hold one column more than it declares. The tests build on each other in the order
of this file: a champion, then an edited view, a new column and a longer delay of labels, then the way back.
"""

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from model_runs import ModelRuns
from small_model import small_fraud
from stack_fixture import Stack
from training_world import AS_OF, FIRST, TRAINING, payments
from windsock import promotions, tables
from windsock.days import day_range, start_of
from windsock.features.feature_tables import feature_tables
from windsock.features.frozen import spec_of_version
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.steps import run_step
from windsock.store import Store

pytestmark = pytest.mark.integration

MODEL = "edited"
ROWS = 300


@pytest.fixture(scope="module")
def edited(stack: Stack) -> ModelRuns:
    """A model beside the others of the running stack, with a champion, version 1."""
    aside, deliveries = stack.home / f"{MODEL}.new", stack.post / MODEL
    views = [
        {"name": name, "entity": entity, "sql": f"{name}.sql", "lookback_days": 3, "ttl_days": 10}
        for name, entity in (("customer_spending", "customer"), ("terminal_risk", "terminal"))
    ]
    training = {**TRAINING, "holdout_days": 3, "evaluation": {"alert_entity": "CUSTOMER_ID", "alerts_per_day": 5}}
    small_fraud(
        aside,
        source={"kind": "files", "url": f"{deliveries}/{{ds}}.parquet"},
        label={"column": "TX_FRAUD", "task": "binary", "delay_days": 2},
        features={"row": {"TX_AMOUNT": "TX_AMOUNT"}, "views": views},
        training={**training, "categorical": []},
        gate={"floors": {"average_precision": 0.05}, "margin": 0.5},
        last_day="2026-04-30",
    )
    deliveries.mkdir(parents=True)
    folder = (aside / "models" / "fraud").rename(aside / "models" / MODEL)
    edit(folder, name=MODEL)
    for day in day_range(FIRST, AS_OF + timedelta(days=4)):
        deliver(deliveries, day)
    here = Settings.from_env({**stack.env, "WINDSOCK_MODELS": str(aside / "models")})
    for day in day_range(FIRST, AS_OF):  # by Airflow they are taken in elsewhere
        for step in ("ingest", "features"):
            run_step(step, model=MODEL, key=str(day), settings=here)
    folder.rename(stack.models / MODEL)
    shutil.rmtree(aside)
    runs = ModelRuns(stack, MODEL)
    for stage in ("ingest", "features", "score", "train", "promote", "rollback"):
        stack.api.wait_for_dag(runs.dag(stage), 240)
        stack.api.set_paused(runs.dag(stage), False)
    train_and_promote(runs)
    return runs


def deliver(folder: Path, day: date) -> None:
    """Write a day's file; its merchant category lifts the chance of fraud."""
    rows = payments(day, ROWS)
    start = start_of(day)
    table = {
        "TRANSACTION_ID": [day.toordinal() * 10_000 + n for n in range(len(rows))],
        "TX_DATETIME": pa.array([start + timedelta(seconds=row[0]) for row in rows], pa.timestamp("us")),
        "CUSTOMER_ID": [row[1] for row in rows],
        "TERMINAL_ID": [row[2] for row in rows],
        "TX_AMOUNT": [row[3] for row in rows],
        "MCC": [1 + (row[3] > 150) + row[0] % 3 for row in rows],
        "TX_FRAUD": pa.array([row[4] for row in rows], pa.int64()),
    }
    pq.write_table(pa.table(table), folder / f"{day}.parquet")


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **fields}, sort_keys=False))


def spec_now(runs: ModelRuns) -> ModelSpec:
    return get_spec(runs.stack.settings, MODEL)


def train_and_promote(runs: ModelRuns) -> dict[str, Any]:
    """Train by hand, wait until the gate has promoted the version, and return what ``prepare`` said."""
    known = runs.ids("promote")
    run = runs.start("train")
    runs.finish("train", run)
    promoted = runs.only_run("promote", known=known)
    runs.finish("promote", promoted)
    runs.wait_until_quiet()
    champion = promotions.current(runs.stack.settings, spec_now(runs))
    assert champion is not None
    assert champion.version == runs.result("train", run, "register")["version"]
    return runs.result("train", run, "prepare")


def score_of(runs: ModelRuns, day: date) -> DayRecord:
    """Let a day come in, and return the record of its predictions."""
    runs.finish("ingest", runs.start("ingest", day))
    runs.wait_for_days("score", [day], 120)
    runs.wait_until_quiet()
    record = Ledger.of(runs.stack.settings, MODEL, "score").get(day)
    assert record is not None
    return record


def table_names(settings: Settings, spec: ModelSpec, version: str) -> set[str]:
    return {table.name for table in feature_tables(spec_of_version(settings, spec, version))}


def test_a_view_that_is_edited_between_two_days_leaves_the_champion_as_an_unedited_twin(edited: ModelRuns, tmp_path):
    settings, model = edited.stack.settings, edited.stack.models / MODEL
    twin_models = tmp_path / "models"
    shutil.copytree(model, twin_models / MODEL)
    sql = model / "customer_spending.sql"
    sql.write_text(sql.read_text().replace("avg(TX_AMOUNT)  over d7", "sum(TX_AMOUNT)  over d7"))
    spec, day = spec_now(edited), AS_OF + timedelta(days=1)

    record = score_of(edited, day)

    used = {name.rpartition("/")[0] for name in record.inputs if name.startswith("features/")}
    assert used == table_names(settings, spec, "1")
    # Both stand from this day on, each in a table of its own.
    wanted = {table.name for table in feature_tables(spec)} | used
    assert len(wanted) == 3
    assert all(Ledger.of(settings, MODEL, name).get(day) is not None for name in wanted)
    # The same store, and a spec that nobody has edited.
    shutil.copytree(settings.store, tmp_path / "store")
    twin = Settings.from_env(
        {"WINDSOCK_HOME": str(tmp_path), "WINDSOCK_STORE": str(tmp_path / "store"), "WINDSOCK_MODELS": str(twin_models)}
    )
    ledger = Ledger.of(twin, MODEL, "score")
    run_step("score", model=MODEL, key=str(day), settings=twin, options={"rescore": True})
    made = ledger.get(day)
    assert made is not None
    assert made.outputs["predictions"].hash == record.outputs["predictions"].hash


def test_the_next_training_asks_for_what_it_lacks_and_takes_in_a_dropped_column_and_a_longer_delay(edited: ModelRuns):
    settings, model = edited.stack.settings, edited.stack.models / MODEL
    raw = yaml.safe_load((model / "model.yaml").read_text())
    raw["events"]["columns"]["MCC"] = "int64"
    raw["label"]["delay_days"] = 3
    raw["features"]["row"]["MCC"] = "MCC"
    edit(model, **raw)
    spec, day = spec_now(edited), AS_OF + timedelta(days=2)
    new = {table.name for table in feature_tables(spec)}
    assert score_of(edited, day).detail["model_version"] == "1"
    known = edited.ids("features")

    prepared = train_and_promote(edited)

    # Of the view's new definition no day is there. The delay is no part of one: the readers of labels are out of date.
    stale = {name: bool(days["stale"]) for name, days in prepared["lacking"].items()}
    (edited_view,) = new - table_names(settings, spec, "1")
    (reader,) = new - {edited_view}
    assert reader.startswith("features/terminal_risk@")
    assert stale == {edited_view: False, reader: True}
    assert set(edited.days("features", known=known)) == set(prepared["days"])  # ordinary runs, which people see
    assert table_names(settings, spec, "2") == new
    run = Store.of(settings).read_json(MODEL, "versions", "2.json")["run"]
    train = pq.read_table(Path(settings.store) / "runs" / MODEL / run / "train.parquet")
    assert train["MCC"].null_count == 0
    days = Ledger.of(settings, MODEL, "ingest")
    first = train["event_timestamp"].to_pylist()[0].date()
    record = days.get(first)
    assert record is not None
    events = tables.read_events(Store.of(settings), spec, [record])
    assert events["MCC"].null_count == 0  # taken in from the delivery that was kept
    scored = score_of(edited, day + timedelta(days=1))
    assert scored.detail["model_version"] == "2"
    assert {name.rpartition("/")[0] for name in scored.inputs if name.startswith("features/")} == new


def test_the_way_back_is_whole_though_the_spec_has_gone_on(edited: ModelRuns):
    settings, spec = edited.stack.settings, spec_now(edited)
    run = edited.stack.api.trigger(edited.dag("rollback"), conf={"to_version": "1", "reason": "tried"})
    edited.finish("rollback", run)
    record = score_of(edited, AS_OF + timedelta(days=4))
    assert record.detail["model_version"] == "1"
    used = {name.rpartition("/")[0] for name in record.inputs if name.startswith("features/")}
    assert used == table_names(settings, spec, "1")
