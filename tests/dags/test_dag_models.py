"""DAGs come from the specs: any number of models, and a broken one hides no other."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from small_model import small_fraud
from windsock.settings import REPO_ROOT
from windsock.spec.load import read_yaml
from windsock.steps import OPTIONS
from windsock_airflow.decisions import REQUEST


def add_model(folder: Path, name: str, **changes: Any) -> None:
    shutil.copytree(folder / "fraud", folder / name)
    path = folder / name / "model.yaml"
    raw = {**yaml.safe_load(path.read_text(encoding="utf-8")), "name": name, **changes}
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")


def test_a_second_folder_is_a_second_set_of_dags(tmp_path: Path, bag_of: Any):
    small_fraud(tmp_path)
    add_model(tmp_path / "models", "chargeback")
    bag = bag_of(tmp_path / "models")
    assert not bag.import_errors
    by_model = {
        model: {d.removeprefix(model) for d in bag.dags if d.startswith(model)} for model in ("fraud", "chargeback")
    }
    assert by_model["fraud"] == by_model["chargeback"]
    assert len(bag.dags) == 2 * len(by_model["fraud"]) + 1  # one watch for all models


def test_broken_specs_show_as_one_import_error_and_hide_no_other_model(tmp_path: Path, bag_of: Any):
    small_fraud(tmp_path)
    add_model(tmp_path / "models", "chargeback", ownr="nobody")
    add_model(tmp_path / "models", "refund", first_day="someday")
    bag = bag_of(tmp_path / "models")
    ((file, message),) = bag.import_errors.items()
    assert Path(file).name == "specs.py"
    assert "ownr: there is no such field. Did you mean 'owner'?" in message
    assert "refund/model.yaml" in message
    assert {d.split("_")[0] for d in bag.dags} == {"fraud", "windsock"}


def test_a_model_that_stands_twice_is_reported_and_hides_no_other(tmp_path: Path, bag_of: Any):
    small_fraud(tmp_path / "a")
    small_fraud(tmp_path / "b")
    add_model(tmp_path / "a" / "models", "chargeback")
    bag = bag_of(tmp_path / "a" / "models", tmp_path / "b" / "models")
    ((_, message),) = bag.import_errors.items()
    assert "Model 'fraud' stands twice" in message
    assert {d.split("_")[0] for d in bag.dags} == {"chargeback", "windsock"}


def test_a_spec_asks_for_approval_label_files_and_no_weekly_training(tmp_path: Path, bag_of: Any):
    small_fraud(
        tmp_path,
        gate={"floors": {"average_precision": 0.3}, "approval": True},
        label={
            "column": "TX_FRAUD",
            "task": "binary",
            "delay_days": 7,
            "files": {"url": "labels/{ds}.parquet", "key": "TRANSACTION_ID"},
        },
        schedule={"train": None, "maintenance": None},
    )
    bag = bag_of(tmp_path / "models")
    assert not bag.import_errors
    assert bag.dags["fraud_promote"].get_task("promote").upstream_task_ids == {"gate", "approval"}
    approval = bag.dags["fraud_promote"].get_task("approval")
    assert approval.retries == 0
    assert approval.response_timeout is not None
    due = bag.dags["fraud_ingest"].get_task("labels_due")
    assert (due.upstream_task_ids, due.downstream_task_ids) == (set(), set())
    assert [asset.name for asset in due.outlets] == ["fraud_labels_due"]
    assert bag.dags["fraud_labels"].task_ids == ["labels"]
    assert type(bag.dags["fraud_train"].timetable).__name__ == "AssetTriggeredTimetable"


def test_a_refit_runs_the_fit_of_the_judged_estimator_between_gate_and_approval(tmp_path: Path, bag_of: Any):
    training = read_yaml(REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")["training"]
    gate = {"floors": {"average_precision": 0.3}, "approval": True}
    small_fraud(tmp_path, training={**training, "refit": True}, gate=gate)
    bag = bag_of(tmp_path / "models")
    assert not bag.import_errors
    tasks = {task.task_id: task.upstream_task_ids for task in bag.dags["fraud_promote"].tasks}
    fits = {"fit_lightgbm", "fit_torch"}
    assert tasks == {
        "gate": set(),
        "refit": {"gate"},
        "whose_refit": {"refit"},
        **{fit: {"refit", "whose_refit"} for fit in fits},
        "adopt": {"refit", "whose_refit", *fits},  # if these are skipped, as of a refused version, so is it
        "approval": {"gate", "adopt"},
        "promote": {"gate", "adopt", "approval"},
    }
    assert bag.dags["fraud_promote"].get_task("adopt").trigger_rule == "none_failed_min_one_success"
    choice = bag.dags["fraud_promote"].get_task("whose_refit").python_callable
    known = {"torch": "fit_torch", "lightgbm": "fit_lightgbm"}
    assert [choice(name, known, "adopt") for name in ("torch", "")] == ["fit_torch", "adopt"]


def test_the_training_form_has_the_specs_ranges_and_values(bag: Any):
    params = bag.dags["fraud_train"].params
    assert {name: params[name] for name in ("as_of", "window_days", "holdout_days", "trials")} == {
        "as_of": None,
        "window_days": 21,
        "holdout_days": 7,
        "trials": 6,
    }
    schema = params.get_param("window_days").schema
    assert schema["type"] == "integer"
    assert schema["exclusiveMinimum"] == 0
    assert params.get_param("window_days").description == "Days trained on."
    assert params.get_param("as_of").schema["format"] == "date"


def test_an_ingest_schedule_that_is_not_once_a_day_is_refused(tmp_path: Path, bag_of: Any):
    small_fraud(tmp_path)
    add_model(tmp_path / "models", "hourly", schedule={"ingest": "0 * * * *"})
    ((_, message),) = bag_of(tmp_path / "models").import_errors.items()
    assert "schedule.ingest" in message


def test_all_that_a_request_says_crosses_to_the_training(tmp_path: Path, bag_of: Any):
    small_fraud(tmp_path)
    bag = bag_of(tmp_path / "models")

    assert set(REQUEST) <= set(bag.dags["fraud_retrain"].params)
    for step in ("prepare", "assemble"):
        assert set(REQUEST) <= set(OPTIONS[step])
        assert set(REQUEST) <= set(bag.dags["fraud_train"].get_task(step).call.cause)
