"""A refit from the gate to the champion, and that no row which a model learnt from judges it."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_days import put_day
from run_folders import with_mlflow
from training_world import AS_OF, GAP, HOLDOUT, TRAIN, TRAINING, copy_world, payments
from windsock.days import day_range
from windsock.errors import DataContractError, GateFailed
from windsock.governor.answers import answers_to
from windsock.ledger import Ledger
from windsock.living_versions import unjudged_version, versions_needed
from windsock.monitoring.promise import Promise
from windsock.monitoring.scored import Past, judged_from, scored_by
from windsock.promotions import current, history
from windsock.registry.client import mlflow_client
from windsock.registry.versions import alias_version, load_version
from windsock.reproduce import reproduce
from windsock.runs.run_folder import HOLDOUT_SCORES, LINEAGE, METRICS, REFERENCE, REFIT, REQUEST, RunFolder
from windsock.served.metrics import evaluate
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.steps import run_step
from windsock.store import Store
from windsock.version_index import list_versions, version_info

LATER = AS_OF + timedelta(days=1)
"""As of this day, one of two days held out is one that a refit as of ``AS_OF`` learnt from."""
MUCH_LATER = AS_OF + timedelta(days=2)
"""As of this day, none is."""

World = tuple[Settings, ModelSpec]


def step(world: World, name: str, **options: Any) -> dict[str, Any]:
    day = options.pop("key", None)
    return run_step(name, model="fraud", settings=world[0], key=day, options=options)


def trained(world: World, **asked: Any) -> str:
    """Train and register a challenger; return its version."""
    run = step(world, "assemble", **asked)["run"]
    step(world, "fit", run=run)
    step(world, "choose", run=run)
    return str(step(world, "register", run=run)["version"])


def refitted(world: World, version: str) -> dict[str, Any]:
    """Judge a version, train it again and look at what came out."""
    verdict = step(world, "gate", version=version)
    assert verdict["passed"], verdict["why"]
    made = step(world, "refit", version=version, champion_seen=verdict["champion_seen"])
    step(world, "fit", run=made["run"], estimator=made["estimator"])
    return {**step(world, "adopt", version=version), "run": made["run"], "champion_seen": verdict["champion_seen"]}


def run_of(world: World, version: str) -> RunFolder:
    return RunFolder.named(Store.of(world[0]), "fraud", version_info(*world, version).run)


@pytest.fixture(scope="module")
def home(world: tuple[Path, Settings, ModelSpec], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world two days longer, in which version 2 is the refit of version 1, and champion."""
    target = tmp_path_factory.mktemp("refitted")
    made = opened(world[0], target)
    for day in day_range(LATER, MUCH_LATER):
        put_day(*made, day, payments(day))
        step(made, "features", key=str(day))
    version = trained(made, as_of=str(AS_OF), dedupe_key="drift-7", reasons=["amounts moved"])
    adopted = refitted(made, version)
    step(made, "promote", version=adopted["version"], champion_seen=adopted["champion_seen"])
    return target


def opened(source: Path, target: Path, **training: Any) -> World:
    # No card is left out of the judgement, or too few positives were left for the gate.
    judged = {"evaluation": {"alert_entity": "CUSTOMER_ID", "alerts_per_day": 5}, "refit": True}
    gate = {"floors": {"average_precision": 0.35}, "margin": 0.05}
    settings, spec = copy_world(source, target, training={**TRAINING, **judged, **training}, gate=gate)
    if not (target / "mlflow.db").exists():
        with_mlflow(settings)
    return settings, spec


@pytest.fixture
def copied(home: Path, tmp_path: Path) -> World:
    return opened(home, tmp_path)


@pytest.fixture(scope="module")
def whole(home: Path) -> World:
    """The same, for tests that only look."""
    return opened_in_place(home)


def opened_in_place(home: Path) -> World:
    settings = Settings.from_env({"WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(home / "models")})
    return settings, get_spec(settings, "fraud")


def test_what_goes_into_force_has_learnt_from_all_matured_rows_by_the_recipe_that_was_judged(whole: World) -> None:
    champion = current(*whole)
    twin, refit = run_of(whole, "1"), run_of(whole, "2")

    assert champion is not None
    assert (champion.version, champion.run) == ("2", refit.run)
    assert champion.reason == "refit of version 1, which passed the gate"
    assert champion.gate_summary["judged"] == "1"
    windows = refit.read_json(LINEAGE)["windows"]
    assert windows["train"] == [str(day) for day in day_range(GAP[0], HOLDOUT[1])]  # four days, as many as the window
    assert windows["gap"] == []
    chosen, then = refit.read_json(METRICS)["chosen"], twin.read_json(METRICS)["chosen"]
    assert [chosen[n] for n in ("estimator", "params", "rounds", "trial")] == [
        then[n] for n in ("estimator", "params", "rounds", "trial")
    ]
    days = pc.unique(refit.read_table("train.parquet")["event_timestamp"].cast(pa.date32())).to_pylist()
    assert [str(day) for day in sorted(days)] == windows["train"]


def test_both_are_kept_and_name_each_other(whole: World) -> None:
    settings, spec = whole
    twin, refit = run_of(whole, "1"), run_of(whole, "2")

    assert refit.read_json(LINEAGE)["refit_of"] == {"run": twin.run, "version": "1"}
    assert refit.read_json(REQUEST)["refit_of"]["version"] == "1"
    evidence = twin.read_json(REFIT)
    assert (evidence["version"], evidence["refit"], evidence["run"]) == ("2", True, refit.run)
    assert {check["name"] for check in evidence["checks"]} == {"features", "size", "ranking", "moved", "not_worse"}
    assert version_info(settings, spec, "2").refit_of == "1"
    client = mlflow_client(settings)
    assert client.get_model_version("fraud", "2").tags["windsock.refit_of"] == "1"
    assert client.get_model_version("fraud", "1").tags["windsock.refit"] == "2"
    assert client.get_model_version("fraud", "2").tags["lineage.summary"].startswith(f"as of {AS_OF}: the refit of")
    assert alias_version(settings, spec, "champion") == "2"


@pytest.mark.parametrize("version", ["1", "2"])
def test_each_can_be_made_again_byte_for_byte(whole: World, version: str) -> None:
    made = reproduce(whole[0], "fraud", run_of(whole, version).run)

    assert set(made.files) == {"train.parquet", "holdout.parquet", "model/model.txt", "model/model.json"}
    assert made.equal


def test_done_again_nothing_changes_whoever_asks(copied: World) -> None:
    settings, spec = copied
    folder = run_of(copied, "2")
    before = {name: folder.read_bytes(*name.split("/")) for name in folder.files()}
    twin = run_of(copied, "1")
    evidence = twin.read_bytes(REFIT)

    made = step(copied, "refit", version="1")
    step(copied, "fit", run=made["run"], estimator=made["estimator"])
    again = step(copied, "adopt", version="1")
    promoted = [step(copied, "promote", version=version) for version in ("1", again["version"])]

    assert [each["version"] for each in promoted] == ["2", "2"]
    assert promoted[0]["refit_of"] == "1"
    assert len(history(settings, spec)) == 1
    assert list_versions(settings, spec) == ["1", "2"]
    assert {name: folder.read_bytes(*name.split("/")) for name in folder.files()} == before
    assert twin.read_bytes(REFIT) == evidence


@pytest.mark.parametrize("gone", ["request.json", "candidates/lightgbm/metrics.json", "metrics.json"])
def test_killed_at_any_place_it_goes_on_and_gives_the_same_bytes(copied: World, gone: str) -> None:
    folder = run_of(copied, "2")
    kept = ("train.parquet", "model/model.txt", "model/model.json", "holdout_scores.parquet", "reference.parquet")
    before = {name: folder.read_bytes(*name.split("/")) for name in kept}
    folder.fs.rm(folder.path(*gone.split("/")))

    made = step(copied, "refit", version="1")
    step(copied, "fit", run=made["run"], estimator=made["estimator"])
    assert step(copied, "adopt", version="1")["version"] == "2"

    assert {name: folder.read_bytes(*name.split("/")) for name in kept} == before


def test_a_refused_challenger_costs_no_refit_and_one_that_is_not_trained_to_its_end_is_no_version(
    world: tuple[Path, Settings, ModelSpec], tmp_path: Path
) -> None:
    made = opened(world[0], tmp_path)
    model = made[1].folder / "model.yaml"
    text = model.read_text()
    version = trained(made)
    model.write_text(text.replace("average_precision: 0.35", "average_precision: 0.999"))
    verdict = step(made, "gate", version=version)
    assert not verdict["passed"]

    with pytest.raises(GateFailed, match="floor_average_precision"):
        step(made, "refit", version=version)
    assert Store.of(made[0]).folders("runs", "fraud") == [run_of(made, version).run]

    model.write_text(text)
    assert step(made, "gate", version=version)["passed"]
    step(made, "refit", version=version)
    with pytest.raises(DataContractError, match="has ended without finishing"):
        step(made, "adopt", version=version)
    assert list_versions(*made) == [version]


def test_one_that_is_not_sane_is_no_version_and_its_twin_goes_into_force(
    world: tuple[Path, Settings, ModelSpec], tmp_path: Path
) -> None:
    made = opened(world[0], tmp_path)
    version = trained(made)
    step(made, "gate", version=version)
    asked = step(made, "refit", version=version)
    folder = RunFolder.named(Store.of(made[0]), "fraud", asked["run"])
    # The recipe was spoiled on its way: a model of one leaf, to which all rows are the same.
    place = ("candidates", "lightgbm", REQUEST)
    request = folder.read_json(*place)
    request["chosen"]["params"]["min_child_samples"] = 1_000_000
    folder.write_json(request, *place)
    step(made, "fit", run=asked["run"], estimator=asked["estimator"])

    adopted = step(made, "adopt", version=version)
    promoted = step(made, "promote", version=adopted["version"])

    assert (adopted["refit"], adopted["version"], promoted["version"]) == (False, version, version)
    failed = {check["name"] for check in adopted["checks"] if not check["passed"]}
    assert {"ranking", "not_worse"} <= failed
    assert "is not sane, so that version itself is put in force" in adopted["why"]
    assert run_of(made, version).read_json(REFIT)["version"] == version
    assert list_versions(*made) == [version]
    assert unjudged_version(*made) is None


def test_without_a_refit_in_the_spec_the_version_that_passed_is_named(copied: World) -> None:
    model = copied[1].folder / "model.yaml"
    model.write_text(model.read_text().replace("refit: true", "refit: false"))
    made = opened_in_place(Path(copied[0].home))
    version = trained(made, as_of=str(MUCH_LATER))
    step(made, "gate", version=version)

    assert step(made, "refit", version=version)["estimator"] == ""
    adopted = step(made, "adopt", version=version)
    assert (adopted["version"], adopted["refit"]) == (version, False)
    assert adopted["why"] == "No refit: training.refit is off."


@pytest.mark.parametrize(("as_of", "who"), [(LATER, "1"), (MUCH_LATER, "2")])
def test_on_rows_that_the_champion_learnt_from_its_judged_twin_stands_for_it(
    copied: World, as_of: date, who: str
) -> None:
    version = trained(copied, as_of=str(as_of))

    verdict = step(copied, "gate", version=version)

    assert verdict["champion_seen"] == "2"
    rows = run_of(copied, version).read_table("holdout.parquet")
    found = json.loads(run_of(copied, version).read_bytes("gate", "vs-2.json"))["bootstrap"]
    scores = load_version(*copied, who).predict(rows)
    expected = evaluate(copied[1], rows, scores)["metrics"]["average_precision"]
    assert found["reference"] == pytest.approx(expected)
    (check,) = [c for c in verdict["checks"] if c["name"] == "not_worse_than_champion"]
    assert ("judged twin of champion 2, which learnt from these rows" in check["why"]) == (who == "1")


def test_the_gate_judges_the_twin_of_a_refit_and_finds_it_to_be_the_champion(copied: World) -> None:
    for asked in ("1", "2"):
        verdict = step(copied, "gate", version=asked)

        assert verdict["version"] == "1"
        assert [c["name"] for c in verdict["checks"] if not c["passed"]] == ["another_model"]


def test_what_was_promised_of_it_and_what_drift_is_held_against_are_its_twins(whole: World) -> None:
    settings, spec = whole
    store, twin, refit = Store.of(settings), run_of(whole, "1"), run_of(whole, "2")
    promise, then = (Promise.of(store, spec, each.run) for each in (refit, twin))

    assert promise.value == then.value
    drawn, scores = promise.scores(), then.scores()
    assert drawn is not None
    assert scores is not None
    assert drawn.equals(scores)
    assert refit.read_bytes(REFERENCE) == twin.read_bytes(REFERENCE)
    assert version_info(settings, spec, "2").metrics == version_info(settings, spec, "1").metrics
    # Its own scores of the rows are other ones: they are the better for having learnt from them.
    own = refit.read_table(HOLDOUT_SCORES)["score"].to_numpy()
    assert not np.allclose(own, twin.read_table(HOLDOUT_SCORES)["score"].to_numpy())


def test_no_night_judges_it_by_a_day_that_it_learnt_from(copied: World) -> None:
    settings, spec = copied
    champion = current(settings, spec)
    assert champion is not None
    last = run_of(copied, "2").last_learnt
    assert last == HOLDOUT[1]
    # Somebody has scored old days again, by name: with what it learnt from among them.
    for day in day_range(TRAIN[1], MUCH_LATER):
        step(copied, "score", key=str(day), model_version="2")

    past = Past.of(settings, spec, MUCH_LATER)
    days = set(pc.unique(past.scored["event_timestamp"].cast(pa.date32())).to_pylist())
    rows, anew = scored_by(past, champion)

    assert days == set(day_range(last + timedelta(days=1), MUCH_LATER))
    assert judged_from(past_store := Store.of(settings), spec, champion) == last + timedelta(days=1)
    assert rows is not None
    assert min(pc.unique(rows["event_timestamp"].cast(pa.date32())).to_pylist()) > last
    assert not anew or min(anew) > last
    assert Ledger(past_store, "fraud", "score").get(TRAIN[1]) is not None


def test_the_request_that_its_twin_answered_is_answered_by_its_promotion(whole: World) -> None:
    settings, spec = whole

    answer = answers_to(settings, spec, {AS_OF: "drift-7"})["drift-7"]

    assert (answer.state, answer.version) == ("promoted", "2")
    assert "request" not in run_of(whole, "2").read_json(LINEAGE)
    assert unjudged_version(settings, spec) is None
    assert versions_needed(settings, spec, MUCH_LATER) == ["2"]


def test_a_searched_window_is_named_everywhere_and_its_refit_has_the_same_length(copied: World) -> None:
    model = copied[1].folder / "model.yaml"
    model.write_text(model.read_text().replace("window_days: 4", "window_days: 4\n  windows: [2, 4]"))
    world = opened_in_place(Path(copied[0].home))
    version = trained(world, as_of=str(MUCH_LATER))
    folder = run_of(world, version)

    lineage, metrics = folder.read_json(LINEAGE), folder.read_json(METRICS)
    length = metrics["chosen"]["window_days"]
    assert (length in (2, 4), set(metrics["window"]["compared"])) == (True, {"2", "4"})
    assert len(lineage["windows"]["older"]) == 2  # of four, as the days before are warm-up
    assert lineage["window"].startswith(f"{length} days (average_precision on the folds: 2 days ")
    assert lineage["learnt_from"] == [lineage["windows"]["train"][-length], lineage["windows"]["train"][-1]]
    assert metrics["train"]["rows"] == folder.read_table("train.parquet").num_rows * length // 4
    client = mlflow_client(world[0])
    registered = client.get_model_version("fraud", version)
    assert registered.tags["lineage.window"] == lineage["window"]
    assert client.get_run(registered.run_id).data.params["window_days"] == str(length)
    made = reproduce(world[0], "fraud", folder.run)
    assert made.equal
    assert "older.parquet" in made.files

    step(world, "gate", version=version)
    asked = step(world, "refit", version=version)
    assert asked["train_days"] == [
        str(MUCH_LATER - timedelta(days=2 + length - 1)),
        str(MUCH_LATER - timedelta(days=2)),
    ]
