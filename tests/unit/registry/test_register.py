import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kill import DieAt, Steps
from run_folders import FEATURES, make_run, with_mlflow, world
from small_model import small_fraud
from windsock.errors import DataContractError, SpecError, UpstreamUnavailable
from windsock.registry import versions
from windsock.registry.client import _ENVIRONMENT, mlflow_client
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step
from windsock.store import Store
from windsock.version_index import version_info


@pytest.fixture
def fraud(tmp_path: Path) -> tuple[Settings, ModelSpec]:
    settings, spec = small_fraud(tmp_path)
    return with_mlflow(settings), spec


def register(settings: Settings, run: str) -> dict[str, Any]:
    return run_step("register", model="fraud", settings=settings, options={"run": run})


def test_a_run_folder_becomes_a_version_that_waits_as_challenger(fraud: tuple[Settings, ModelSpec]) -> None:
    settings, spec = fraud
    make_run(settings, spec, "r1")

    result = register(settings, "r1")

    assert (result["version"], result["run"]) == ("1", "r1")
    assert versions.challenger_version(settings, spec) == "1"
    client = mlflow_client(settings)
    version = client.get_model_version("fraud", "1")
    run = client.get_run(version.run_id)
    assert version.tags["windsock.run"] == run.data.tags["windsock.run"] == "r1"
    assert run.data.tags["lineage.commit"] == "abc"
    assert run.data.metrics["average_precision"] == pytest.approx(result["metrics"]["average_precision"])
    assert run.data.params["num_leaves"] == "31"
    assert run.info.run_name == "r1"
    assert run.info.status == "FINISHED"
    assert {d.tags[0].value for d in run.inputs.dataset_inputs} == {"training", "holdout"}
    assert {f.path for f in client.list_artifacts(run.info.run_id)} >= {"lineage.json", "request.json", "metrics.json"}


def test_mlflow_itself_loads_the_model_with_pickle_forbidden(
    fraud: tuple[Settings, ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    settings, spec = fraud
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    make_run(settings, spec, "r1")
    register(settings, "r1")
    rows = world(9, rows=50)

    loaded = mlflow.pyfunc.load_model("models:/fraud@challenger").predict(rows.to_pandas()[list(FEATURES)])

    assert loaded == pytest.approx(versions.load_version(settings, spec, "1").predict(rows))
    files = [p for p in Path(settings.store, "mlflow-artifacts").rglob("*") if p.is_file()]
    assert not [f for f in files if f.suffix in {".pkl", ".pickle", ".joblib"} or f.read_bytes()[:2] == b"\x80\x04"]


def test_registering_again_finds_the_version_instead_of_making_a_second(fraud: tuple[Settings, ModelSpec]) -> None:
    settings, spec = fraud
    make_run(settings, spec, "r1")

    first, again = register(settings, "r1"), register(settings, "r1")

    client = mlflow_client(settings)
    assert first["version"] == again["version"] == "1"
    assert len(client.search_model_versions("name = 'fraud'")) == 1
    experiment = client.get_experiment_by_name("fraud").experiment_id
    assert len(client.search_runs([experiment])) == 1
    assert len(client.search_logged_models([experiment])) == 1


KILLED_BEFORE = [
    *(f"windsock.registry.tracking:{name}" for name in ("log_run", "log_model", "create_version")),
    "windsock.registry.step:record_version",
]


@pytest.mark.kill
@pytest.mark.parametrize("place", KILLED_BEFORE)
def test_a_kill_at_any_point_leaves_nothing_double_after_the_rerun(
    fraud: tuple[Settings, ModelSpec], place: str
) -> None:
    settings, spec = fraud
    make_run(settings, spec, "r1")
    trial = Steps(settings, "fraud").run("register", options={"run": "r1"}, die_at=DieAt(place))
    assert trial.killed, trial.error

    result = register(settings, "r1")

    client = mlflow_client(settings)
    experiment = client.get_experiment_by_name("fraud").experiment_id
    assert result["version"] == "1"
    assert [v.version for v in client.search_model_versions("name = 'fraud'")] == [1]
    assert len(client.search_runs([experiment])) == 1
    assert [m.status for m in client.search_logged_models([experiment])] == ["READY"]
    assert version_info(settings, spec, "1").run == "r1"


def test_a_half_uploaded_model_is_removed(fraud: tuple[Settings, ModelSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    settings, spec = fraud
    make_run(settings, spec, "r1")
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "finalize_logged_model", lambda *a, **k: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(UpstreamUnavailable, match="gone"):
            register(settings, "r1")

    register(settings, "r1")

    client = mlflow_client(settings)
    experiment = client.get_experiment_by_name("fraud").experiment_id
    assert [m.status for m in client.search_logged_models([experiment])] == ["READY"]


def test_an_unfinished_run_folder_is_refused_by_name(fraud: tuple[Settings, ModelSpec]) -> None:
    settings, spec = fraud
    make_run(settings, spec, "r1")
    os.remove(Path(settings.store, "runs", "fraud", "r1", "metrics.json"))

    with pytest.raises(SpecError, match=r"r1 lacks metrics\.json"):
        register(settings, "r1")
    with pytest.raises(SpecError, match="Give the option 'run'"):
        run_step("register", model="fraud", settings=settings)


def test_an_absent_server_is_a_reason_to_retry_and_found_out_in_bounded_time(
    fraud: tuple[Settings, ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    settings, spec = fraud
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    make_run(settings, spec, "r1")

    with pytest.raises(UpstreamUnavailable, match="Check that it is up") as raised:
        register(replace(settings, mlflow_uri="http://user:hunter2@127.0.0.1:1"), "r1")
    assert "hunter2" not in str(raised.value)


def test_a_call_to_a_server_does_not_import_feast_for_its_headers() -> None:
    code = """
import sys
from windsock.registry.client import _ENVIRONMENT, mlflow_client
from windsock.settings import Settings
try:
    mlflow_client(Settings.from_env()).get_experiment_by_name("fraud")
except Exception as err:
    print(type(err).__name__, "feast" in sys.modules, "torch" in sys.modules)
import importlib.util
print(importlib.util.find_spec("feast").name)
"""
    env = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["MlflowException", "False", "False", "feast"]


def test_a_version_is_loaded_from_mlflow_when_its_run_folder_is_gone(fraud: tuple[Settings, ModelSpec]) -> None:
    settings, spec = fraud
    make_run(settings, spec, "r1")
    register(settings, "r1")
    rows = world(9, rows=50)
    versions._load.cache_clear()
    expected = versions.load_version(settings, spec, "1").predict(rows)
    versions._load.cache_clear()
    Store.of(settings).fs.rm(f"{settings.store}/runs/fraud/r1/model", recursive=True)

    assert versions.load_version(settings, spec, "1").predict(rows) == pytest.approx(expected, abs=0)


def test_a_changed_model_file_is_not_loaded(fraud: tuple[Settings, ModelSpec]) -> None:
    settings, spec = fraud
    make_run(settings, spec, "r1")
    register(settings, "r1")
    versions._load.cache_clear()
    text = Path(settings.store, "runs", "fraud", "r1", "model", "model.txt")
    text.write_text(text.read_text().replace("shrinkage=0.1", "shrinkage=0.2"))

    with pytest.raises(DataContractError, match="somebody changed them"):
        versions.load_version(settings, spec, "1")


def test_an_unknown_version_names_the_known_ones(fraud: tuple[Settings, ModelSpec]) -> None:
    settings, spec = fraud
    make_run(settings, spec, "r1")
    register(settings, "r1")

    with pytest.raises(SpecError, match=r"No version of model 'fraud' named '7'\. Known: 1\."):
        version_info(settings, spec, "7")


def test_an_emptied_mlflow_does_not_take_over_the_numbers_of_older_versions(fraud: tuple[Settings, ModelSpec]) -> None:
    from dataclasses import replace

    settings, spec = fraud
    for run in ("r1", "r2"):
        make_run(settings, spec, run, rounds=3)
    register(settings, "r1")
    other = with_mlflow(replace(settings, home=settings.home / "new"))

    with pytest.raises(SpecError, match="MLflow's database has been emptied or exchanged"):
        register(replace(settings, mlflow_uri=f"sqlite:///{other.home}/mlflow.db"), "r2")
    assert version_info(settings, spec, "1").run == "r1"


def test_a_server_that_hangs_is_a_sentence_within_a_minute(
    fraud: tuple[Settings, ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, spec = fraud
    limits = {name: int(_ENVIRONMENT[name]) for name in _ENVIRONMENT if name.startswith("MLFLOW_HTTP_REQUEST")}
    timeout, retries, backoff = (
        limits[f"MLFLOW_HTTP_REQUEST_{n}"] for n in ("TIMEOUT", "MAX_RETRIES", "BACKOFF_FACTOR")
    )
    assert (retries + 1) * timeout + backoff * 2**retries <= 60
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections, and says nothing
        hung = dataclasses.replace(settings, mlflow_uri=f"http://127.0.0.1:{mute.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

        with pytest.raises(
            UpstreamUnavailable, match=r"MLflow at http.* could not look up fraud@challenger: .*retried"
        ):
            versions.challenger_version(hung, spec)
