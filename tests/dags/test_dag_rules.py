"""Every DAG of every stage keeps the house rules."""

import subprocess
import sys
from typing import Any

import pytest

from dag_bag import DAGS, load_bag
from windsock.settings import REPO_ROOT
from windsock.steps import OPTIONS

STAGES = ("ingest", "features", "score", "monitor", "retrain", "train", "promote", "rollback", "maintenance")
WATCH = "windsock_watch"
HEAVY = (
    *("pandas", "numpy", "torch", "mlflow", "feast", "great_expectations", "evidently"),
    *("pyarrow", "duckdb", "lightgbm", "optuna", "sklearn"),
)


def test_each_stage_has_its_file_and_its_dag(bag: Any):
    assert not bag.import_errors
    assert {p.stem for p in DAGS.glob("*.py")} == {*STAGES, "labels", "specs", "watch"}
    assert set(bag.dags) == {*(f"fraud_{stage}" for stage in STAGES), WATCH}


@pytest.mark.parametrize("dag_id", [*(f"fraud_{stage}" for stage in STAGES), WATCH])
def test_dags_can_be_read_found_and_never_hang(bag: Any, dag_id: str):
    dag = bag.dags[dag_id]
    model, _, stage = dag_id.partition("_")
    assert len(dag.doc_md.splitlines()) >= 5
    assert dag.description.endswith(".")
    assert dag.tags == ({"stage:watch"} if dag_id == WATCH else {f"stage:{stage}", f"model:{model}"})
    assert dag.catchup is False
    for task in dag.tasks:
        assert task.execution_timeout or getattr(task, "response_timeout", None), f"{task.task_id} may hang"
        assert task.retries >= 1
        assert task.retry_exponential_backoff == 2
        assert task.owner == ("windsock" if dag_id == WATCH else "risk-ml")
        assert [c.__name__ for c in task.on_failure_callback] == ["on_task_failure"]


@pytest.mark.parametrize("file", sorted(DAGS.glob("*.py")), ids=lambda p: p.stem)
def test_dag_files_are_short_and_start_with_their_manual(file: Any):
    text = file.read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 60


@pytest.mark.parametrize("stage", STAGES)
def test_dags_survive_serialization(bag: Any, stage: str):
    from airflow.serialization.serialized_objects import DagSerialization

    dag = bag.dags[f"fraud_{stage}"]
    again = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
    assert again.task_ids == dag.task_ids


def test_parsing_loads_no_heavy_library():
    script = f"""
import sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk import DAG
folder = Path({str(DAGS)!r})
bag = BundleDagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="dags-folder")
assert not bag.import_errors, bag.import_errors
print(sorted({{m.split(".")[0] for m in set(sys.modules)}} & set({HEAVY!r})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_task_builds_only_its_own_dag(monkeypatch: pytest.MonkeyPatch):
    # As Airflow's own context does, which leaves them behind.
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "fraud_train")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "fit")
    assert set(load_bag().dags) == {"fraud_train"}


def test_ruff_finds_nothing_to_say_about_airflow():
    subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "AIR", "dags", "plugins", "include"],
        cwd=REPO_ROOT,
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_steps_are_asked_for_no_more_than_they_take(bag: Any, stage: str):
    for task in bag.dags[f"fraud_{stage}"].tasks:
        if (call := getattr(task, "call", None)) is not None:
            assert {*call.form, *call.cause} <= {*OPTIONS.get(call.step, ()), "by"}, task.task_id
