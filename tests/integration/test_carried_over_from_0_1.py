"""An installation that version 0.1 left goes on with the code of today: loaded, scored, retrained, rolled back.

``fixtures/v0_1`` says what is in it. First the product alone, with the restored MLflow, then all of it under Airflow.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixture_v0_1 import MODELS, database, golden, mlflow_server, unpack, upgraded
from model_runs import ModelRuns
from runbook import environment, lines_of, run_line
from stack_fixture import Stack, found_stack, one_boot
from whole_chain import online_content
from windsock import promotions, tables
from windsock.backup.target import Target
from windsock.features.feature_tables import feature_tables
from windsock.features.frozen import spec_of_version
from windsock.ledger import Ledger
from windsock.registry.versions import alias_version
from windsock.reproduce import reproduce
from windsock.runs.run_folder import HOLDOUT, HOLDOUT_SCORES, RunFolder
from windsock.served.model import load
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.steps import run_step
from windsock.store import Store
from windsock.version_index import version_info
from windsock_local.stack import lifecycle
from windsock_local.stack.airflow_api import polls
from windsock_local.stack.backup import ONLINE, back_up

pytestmark = pytest.mark.integration

FORMATS = {"windsock-lightgbm/1", "windsock-torch/1", "windsock-linear/1"}
VERSIONS = [("cards", "1"), ("cards", "2"), ("cards", "3")]
VERSIONS += [(model, version) for model in ("chargebacks", "rentals") for version in ("1", "2")]
EXACT = 1e-6
"""Two processors may round a network's score differently, and no further apart than this."""


@pytest.fixture(scope="module")
def carried() -> Iterator[Settings]:
    """The installation, upgraded, with its MLflow running, without Airflow."""
    home = Path(tempfile.mkdtemp(prefix="windsock-"))
    with mlflow_server(upgraded(unpack(home))) as settings:
        yield settings
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def said(carried: Settings) -> dict[str, Any]:
    """What 0.1 said of it."""
    return golden(carried.home)


def last_day(settings: Settings, model: str) -> date:
    return Ledger.of(settings, model, "score").days()[-1]


def champion(settings: Settings, model: str) -> str:
    entry = promotions.current(settings, get_spec(settings, model))
    assert entry is not None
    return entry.version


def step(settings: Settings, name: str, model: str, **options: Any) -> dict[str, Any]:
    return run_step(name, model=model, settings=settings, options=options)


def carry_on(settings: Settings, model: str) -> date:
    """Take the next delivered day through the whole daily chain, and return it."""
    day = last_day(settings, model) + timedelta(days=1)
    stages = ["ingest", "labels", "features", "materialize", "score", "monitor", "govern"]
    for name in stages if get_spec(settings, model).label.files is not None else [s for s in stages if s != "labels"]:
        run_step(name, model=model, key=str(day), settings=settings)
    return day


@pytest.mark.parametrize("model", MODELS)
def test_every_record_has_the_hash_it_had(carried: Settings, said: dict[str, Any], model: str):
    for stage, hashes in said[model]["records"].items():
        ledger = Ledger.of(carried, model, stage)
        records = ledger.all()
        assert {str(day): r.content_hash for day, r in records.items()} == hashes
        assert {str(r.day): r.content_hash for r in ledger.pinned(hashes).values()} == hashes
        for day, record in records.items():
            assert {n: o.hash for n, o in record.outputs.items()} == said[model]["rows"][stage][str(day)]
            for table, output in record.outputs.items():
                rows = tables.read(Store.of(carried), [record], table)
                assert (rows.num_rows if rows is not None else 0) == output.rows
                assert rows is None or tables.content_hash(rows) == output.hash


def test_every_format_of_models_is_there_and_was_in_force(said: dict[str, Any]):
    promoted = {
        said[model]["versions"][version]["format"] for model in MODELS for _, version, _ in said[model]["promotions"]
    }
    assert promoted == FORMATS
    assert [(m, v) for m in MODELS for v in said[m]["versions"]] == VERSIONS


@pytest.mark.parametrize(("model", "version"), VERSIONS)
def test_every_version_gives_its_holdout_the_scores_it_gave(carried: Settings, model: str, version: str):
    info = version_info(carried, get_spec(carried, model), version)
    folder = RunFolder.named(Store.of(carried), model, info.run)
    scores = load(folder.url("model")).predict(folder.read_table(HOLDOUT))
    np.testing.assert_allclose(scores, folder.read_table(HOLDOUT_SCORES)["score"].to_numpy(), rtol=EXACT)


@pytest.mark.parametrize("model", MODELS)
def test_every_champion_scores_its_days_as_it_did(carried: Settings, said: dict[str, Any], model: str):
    spec = get_spec(carried, model)
    assert [[p.kind, p.version, str(p.in_force_from)] for p in promotions.history(carried, spec)] == said[model][
        "promotions"
    ]
    assert len(said[model]["scores"]) == 2
    for version, was in said[model]["scores"].items():
        day = date.fromisoformat(was["day"])
        result = run_step("score", model=model, key=str(day), live=False, settings=carried, options={"rescore": True})
        record = Ledger.of(carried, model, "score").get(day)
        assert record is not None
        rows = tables.read(Store.of(carried), [record], "predictions")
        assert rows is not None
        assert (result["model_version"], rows[spec.events.key].to_pylist()) == (version, was["keys"])
        np.testing.assert_allclose(rows["score"].to_numpy(), was["scores"], rtol=EXACT)


def test_a_version_of_0_1_can_be_made_again_byte_for_byte(carried: Settings, said: dict[str, Any]):
    # The network's bytes depend on the processor, and the trainer of the rentals is not ours.
    assert reproduce(carried, "cards", said["cards"]["versions"]["1"]["run"]).equal


@pytest.mark.parametrize("model", MODELS)
def test_the_days_go_on_with_the_champion_that_was_carried_over(carried: Settings, model: str):
    in_force, spec = champion(carried, model), get_spec(carried, model)
    day = carry_on(carried, model)
    scored = Ledger.of(carried, model, "score").get(day)
    decided = Ledger.of(carried, model, "decisions").get(day)
    assert scored is not None
    assert decided is not None
    assert (scored.status, scored.detail["model_version"]) == ("published", in_force)
    assert scored.rows("predictions") > 50
    served = online_content(carried)
    for table in feature_tables(spec_of_version(carried, spec, in_force)):
        records = table.ledger(Store.of(carried)).all()
        assert [d for d, record in records.items() if "carried_over" not in record.detail] == [day], "computed anew"
        assert len(records) > 10
        assert any(rows for name, rows in served.items() if name.endswith(table.feast_name))


@pytest.mark.parametrize("model", MODELS)
def test_it_is_trained_anew_promoted_and_rolled_back(carried: Settings, said: dict[str, Any], model: str):
    before, spec = champion(carried, model), get_spec(carried, model)
    run = step(carried, "assemble", model, as_of=str(last_day(carried, model)))["run"]
    for name in ("fit", "choose"):
        step(carried, name, model, run=run)
    version = step(carried, "register", model, run=run)["version"]
    assert version == str(len(said[model]["versions"]) + 1)
    judged = step(carried, "gate", model, version=version)
    promoted = step(carried, "promote", model, version=version, champion_seen=judged["champion_seen"])
    assert (promoted["version"], promoted["previous"]) == (version, before)
    assert alias_version(carried, spec, "champion") == version
    back = step(carried, "rollback", model, reason="the test says so")
    assert (back["version"], back["previous"]) == (before, version)
    assert champion(carried, model) == alias_version(carried, spec, "champion") == before


def test_the_challenger_that_waited_can_be_judged(carried: Settings):
    judged = step(carried, "gate", "cards", version="3")
    assert judged["version"] == "3"


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    """The installation under its own Airflow, with the database that 0.1 left, upgraded by the runbook's lines."""
    folder = Path(tempfile.mkdtemp(prefix="windsock-"))
    settings = unpack(folder / "var")
    with database(settings):
        pass
    try:
        with one_boot():
            *lines, last = lines_of("Upgrades")
            start, look = last.split(" && ")
            for line in (*lines, start):
                done = run_line(line, folder, folder / "backups")
                assert done.returncode == (1 if "--check" in line else 0), (line, done.stdout, done.stderr)
            # A machine that is busy with other tests may at first not answer in time.
            for _ in polls(180):
                done = run_line(look, folder, folder / "backups")
                if done.returncode == 0:
                    break
            assert done.returncode == 0, done.stdout + done.stderr
        stack = found_stack(settings, environment(folder))
        yield stack
        stack.api.close()
    finally:
        lifecycle.stop_stack(settings)
        shutil.rmtree(folder, ignore_errors=True)


def test_under_airflow_its_runs_are_there_and_a_new_day_goes_through_the_chain(running: Stack):
    said, api = golden(running.home), running.api
    for model in MODELS:
        runs = ModelRuns(running, model)
        scored = said[model]["records"]["score"]
        assert set(runs.days("score")) == set(scored)
        assert len(runs.all("train")) == len(said[model]["versions"])
        assert {r["state"] for r in runs.all("promote")} == {"success"}
    known = {(r["dag_id"], r["dag_run_id"]) for r in api.runs()}
    days = {model: last_day(running.settings, model) + timedelta(days=1) for model in MODELS}
    for model, day in days.items():
        api.wait_for_dag(f"{model}_score")
        ModelRuns(running, model).start("ingest", day)
    for model, day in days.items():
        ModelRuns(running, model).wait_for_days("score", [day], 120)
        record = Ledger.of(running.settings, model, "score").get(day)
        assert record is not None
        assert record.detail["model_version"] == champion(running.settings, model)
    new = Counter(r["dag_id"] for r in api.runs() if (r["dag_id"], r["dag_run_id"]) not in known)
    stages = [f"{model}_{stage}" for model in MODELS for stage in ("ingest", "features", "score")]
    new.pop("windsock_watch", None)  # it looks when a minute has passed, and finds nothing to do
    assert new == Counter([*stages, "chargebacks_labels"])


def test_under_airflow_a_backup_takes_its_databases_and_only_what_is_new_since_the_upgrade(running: Stack):
    target = Target(str(running.home.parent / "backups"))
    made = back_up(running.settings, target, lambda *_: None)
    assert len(target.names()) == 2
    assert {"databases/airflow.dump", "databases/mlflow.dump"} <= made.files.keys()
    assert not made.at_rest
    assert f"home/{ONLINE}" not in made.files, "it would be of another moment than the store"
    assert target.brought < 0.5 * made.bytes
