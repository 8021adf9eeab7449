"""A second model proves that nothing is wired to fraud: one folder more, and hourly bike rentals go round the loop.

Regression instead of classification, no entity, files instead of a simulator. What the
model learns is judged in ``test_second_model_trains``; here it is Airflow that runs it, on
22 days, the last six of them taken in by a backfill. The tests build on each other in the order of this file.
"""

import math
import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from model_runs import ModelRuns, wait_until
from shared_data import shared_data
from stack_fixture import Stack
from windsock import promotions, tables
from windsock.days import day_range
from windsock.features.feature_tables import feature_tables
from windsock.ledger import Ledger
from windsock.runs.run_folder import RunFolder
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.steps import run_step
from windsock.store import Store

pytestmark = pytest.mark.integration

MODEL = "bike_sharing"
STAGES = {"ingest", "features", "score", "monitor", "retrain", "train", "promote", "rollback", "maintenance"}
FIRST = date(2011, 5, 31)
LOOKBACK, WINDOW, HOLDOUT, DELAY = 8, 7, 5, 1
LAST = FIRST + timedelta(days=LOOKBACK + WINDOW + DELAY + HOLDOUT + DELAY - 1)
NEXT = LAST + timedelta(days=1)
BACKFILLED = 6
"""Days at the end that Airflow takes in; the steps of those before run here."""
LEAKS = {"casual", "registered"}


@pytest.fixture(scope="module")
def bikes(stack: Stack) -> ModelRuns:
    """The model's folder copied beside the others of the running stack, with its address and fewer days."""
    data = shared_data(MODEL) / "data.parquet"
    folder = stack.models / MODEL
    aside = stack.home / "new" / MODEL  # appears whole
    shutil.copytree(Path(__file__).parents[1] / "models" / MODEL, aside)
    raw = yaml.safe_load((aside / "model.yaml").read_text(encoding="utf-8"))
    raw["source"]["url"] = str(data)
    raw["first_day"] = FIRST
    raw["training"] |= {"window_days": WINDOW, "holdout_days": HOLDOUT, "folds": 2, "refit": True}
    raw["training"]["estimator"] |= {"trials": 2, "rounds": 150}
    (aside / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    here = Settings.from_env({**stack.env, "WINDSOCK_MODELS": str(aside.parent)})
    for day in day_range(FIRST, LAST)[:-BACKFILLED]:
        for step in ("ingest", "features", "score"):
            run_step(step, model=MODEL, key=str(day), settings=here)
    assert not dag_ids(stack, MODEL)
    aside.rename(folder)
    aside.parent.rmdir()
    return ModelRuns(stack, MODEL)


def dag_ids(stack: Stack, model: str) -> set[str]:
    return {dag["dag_id"] for dag in stack.api.pages("dags", "dags") if dag["dag_id"].startswith(f"{model}_")}


def columns(bikes: ModelRuns, stage: str, table: str) -> set[str]:
    """Return the columns that a stage's table holds over all days."""
    settings = bikes.stack.settings
    rows = tables.read(Store.of(settings), Ledger.of(settings, MODEL, stage).all().values(), table)
    assert rows is not None
    return set(rows.column_names)


def test_one_more_folder_is_one_more_set_of_dags(bikes: ModelRuns):
    wanted = {bikes.dag(stage) for stage in STAGES}
    wait_until(lambda: dag_ids(bikes.stack, MODEL) == wanted, 90, f"the DAGs of {MODEL}")
    assert not bikes.stack.api.import_errors()
    assert {d.removeprefix("fraud_") for d in dag_ids(bikes.stack, "fraud")} == STAGES


def test_its_backfill_carries_each_day_to_features_and_scores(bikes: ModelRuns):
    settings = bikes.stack.settings
    bikes.stack.api.set_paused(bikes.dag("ingest"), False)
    days = day_range(FIRST, LAST)[-BACKFILLED:]
    bikes.stack.api.backfill(bikes.dag("ingest"), days[0], LAST)
    runs = bikes.stack.api.wait_for_days(bikes.dag("ingest"), days[0], LAST, 400)
    assert {run["state"] for run in runs.values()} == {"success"}
    bikes.wait_until_quiet()
    for stage in ("ingest", "features", "score"):
        assert bikes.days(stage) == dict.fromkeys(map(str, days), 1)
        assert len(bikes.all(stage)) == len(days)
    scored = Ledger.of(settings, MODEL, "score").all().values()
    assert [record.status for record in scored] == ["no_champion"] * len(day_range(FIRST, LAST))
    (table,) = feature_tables(get_spec(settings, MODEL))
    assert not LEAKS & (columns(bikes, "ingest", "events") | columns(bikes, table.name, table.name))


def test_it_is_trained_by_hand_and_its_refit_goes_into_force_once_it_has_passed_the_gate(bikes: ModelRuns):
    settings = bikes.stack.settings
    train = bikes.start("train")
    bikes.finish("train", train)
    assembled = bikes.result("train", train, "assemble")
    assert (assembled["as_of"], assembled["rows"]) == (str(LAST), {"train": WINDOW * 24, "holdout": HOLDOUT * 24})
    request = RunFolder.named(Store.of(settings), MODEL, assembled["run"]).read_json("request.json")
    assert len(request["features"]) == 12
    assert not {*LEAKS, "cnt"} & set(request["features"])

    promote = bikes.only_run("promote")
    bikes.finish("promote", promote)
    champion = promotions.current(settings, get_spec(settings, MODEL))
    assert champion is not None
    judged, adopted = bikes.result("train", train, "register")["version"], bikes.result("promote", promote, "adopt")
    assert (adopted["judged"], adopted["refit"]) == (judged, True), adopted["why"]
    assert (champion.version, champion.gate_summary["judged"]) == (adopted["version"], judged) == ("2", "1")
    assert (champion.as_of, champion.in_force_from) == (LAST, NEXT)
    learnt = RunFolder.named(Store.of(settings), MODEL, champion.run).last_learnt
    assert learnt is not None
    assert str(learnt) == request["holdout_days"][-1]


def test_the_next_day_is_scored_by_the_champion(bikes: ModelRuns):
    settings = bikes.stack.settings
    bikes.finish("ingest", bikes.start("ingest", NEXT))
    bikes.wait_for_days("score", [NEXT], 60)
    record = Ledger.of(settings, MODEL, "score").get(NEXT)
    assert record is not None
    rows = tables.read(Store.of(settings), [record], "predictions")
    assert rows is not None
    champion = promotions.current(settings, get_spec(settings, MODEL))
    assert champion is not None
    assert (rows.num_rows, set(rows["model_version"].to_pylist())) == (24, {champion.version})
    assert all(math.isfinite(score) for score in rows["score"].to_pylist())
    assert len(set(rows["score"].to_pylist())) > 12


def test_the_night_after_is_monitored_and_decided_about(bikes: ModelRuns):
    settings = bikes.stack.settings
    bikes.stack.api.set_paused(bikes.dag("monitor"), False)
    run = bikes.start("monitor", NEXT)
    bikes.finish("monitor", run)
    found = Ledger.of(settings, MODEL, "monitor").get(NEXT)
    assert found is not None
    assert found.detail["champion"] == "2"
    assert set(found.detail["drift"]) >= {"temp", "hour", "cnt_1d_ago"}
    assert b"<!DOCTYPE html>" in Store.of(settings).read_bytes(*found.detail["report"].split("/"))
    decision = bikes.result("monitor", run, "govern")
    assert decision["action"] in ("none", "wait")  # one night alone never retrains
    assert decision["reasons"]
    assert not bikes.all("retrain")
    # Its data has ended in 2012, so the clock starts nothing.
    assert {r["run_type"] for stage in ("ingest", "monitor") for r in bikes.all(stage)} == {"backfill", "manual"}
