"""The pod that a task would make, and which operator a heavy step gets; no cluster is asked."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException
from kubernetes.client import ApiClient, V1ObjectMeta, V1Pod, V1PodStatus

from small_model import small_fraud
from windsock import mlflow_keys
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.spec.estimators import Estimator
from windsock.store import Store
from windsock_airflow.blueprint import heavy_step
from windsock_airflow.pods.identity import INSTALLATION_LABEL, TASK_LABEL, PodRecord
from windsock_airflow.pods.operator import PodStepOperator
from windsock_airflow.pods.task import PodTask
from windsock_airflow.step import StepOperator

STORE = "s3://bucket/store"


class StateStore(dict[str, Any]):
    """Airflow's task state store, as far as it is used."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


def context(store: StateStore, try_number: int = 1, **params: Any) -> dict[str, Any]:
    run = SimpleNamespace(
        dag_id="fraud_train",
        run_id="manual__2026-01-01T00:00:00+00:00",
        run_type="manual",
        conf={},
        triggering_user_name="ada",
    )
    ti = SimpleNamespace(
        dag_id=run.dag_id,
        run_id=run.run_id,
        task_id="fit",
        map_index=-1,
        try_number=try_number,
        xcom_push=lambda **_: None,
    )
    return {
        "dag_run": run, "run_id": run.run_id, "ti": ti, "dag": SimpleNamespace(parent_dag=None), "params": params,
        "partition_key": None, "triggering_asset_events": {}, "task_state_store": store,
    }  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with pods, and its site file."""
    small_fraud(tmp_path)
    file = tmp_path / "site.yaml"
    file.write_text("namespace: ml\n")
    for name, value in {
        "WINDSOCK_HOME": tmp_path, "WINDSOCK_MODELS": tmp_path / "models", "WINDSOCK_STORE": STORE,
        "WINDSOCK_COMPUTE": "kubernetes", "WINDSOCK_COMPUTE_FILE": file, "WINDSOCK_STUDIES": "postgresql://u:secret@db/x",
        "MLFLOW_TRACKING_URI": "http://mlflow.ml:5000", "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AIRFLOW_VAR_WINDSOCK_INSTALLATION": "the-only-airflow",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(
        "airflow.providers.cncf.kubernetes.hooks.kubernetes.KubernetesHook.is_in_cluster", property(lambda _: True)
    )
    # The facts of runs lie in a folder: the bucket is not there.
    monkeypatch.setattr("windsock_airflow.runs.Store", SimpleNamespace(of=lambda _: Store(str(tmp_path / "facts"))))
    return file


def spec_with(site: Path, **estimator: Any) -> ModelSpec:
    path = site.parent / "models" / "fraud" / "model.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["training"].pop("estimator", None)
    raw["training"]["estimators"] = [estimator]
    path.write_text(yaml.safe_dump(raw))
    return get_spec(Settings.from_env(), "fraud")


def only(spec: ModelSpec) -> Estimator:
    (estimator,) = spec.training.estimators
    return estimator


def manifest(task: PodTask) -> dict[str, Any]:
    return ApiClient().sanitize_for_serialization(task.manifest())


def task_of(operator: PodStepOperator, given: dict[str, Any]) -> PodTask:
    return PodTask(operator, operator.call, operator.options, given)  # type: ignore[arg-type]


def fit(site: Path, store: StateStore | None = None, try_number: int = 1, **estimator: Any) -> PodTask:
    spec = spec_with(site, **{"kind": "lightgbm", **estimator})
    operator = heavy_step(spec, step="fit", estimator=only(spec), keyed=False, options={"run": "r-1"})
    assert isinstance(operator, PodStepOperator)
    return task_of(operator, context(StateStore() if store is None else store, try_number))


def test_a_trainer_pod_is_told_its_request_and_no_secret(site: Path):
    site.write_text("namespace: ml\nenv_from_secrets: [windsock-store, windsock-studies]\n")
    pod = manifest(fit(site, compute={"cpu": 2.5}))
    (container,) = pod["spec"]["containers"]
    assert {e["name"]: e["value"] for e in container["env"]} == {
        "WINDSOCK_REQUEST": f"{STORE}/runs/fraud/r-1/candidates/lightgbm/request.json",
        "WINDSOCK_TRAINER_ROLE": "fit",
        "WINDSOCK_THREADS": "2",
        "MLFLOW_TRACKING_URI": "http://mlflow.ml:5000",
        "OMP_WAIT_POLICY": "passive",
        "HOME": "/tmp",
    }
    assert [s["secretRef"]["name"] for s in container["envFrom"]] == ["windsock-store", "windsock-studies"]
    assert not container.get("command")
    assert "secret@" not in str(pod)
    assert "very-secret" not in str(pod)


def test_a_pods_own_deadline_comes_after_the_one_at_which_its_task_ends_it(site: Path):
    task = fit(site)
    task.operator.execution_timeout = timedelta(minutes=5)
    assert manifest(task)["spec"]["activeDeadlineSeconds"] == 6 * 60
    task.operator.execution_timeout = None
    assert "activeDeadlineSeconds" not in manifest(task)["spec"]


def test_a_trainer_pod_sees_its_run_and_writes_its_candidate_of_a_store_that_is_a_folder(
    site: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WINDSOCK_STORE", "/data/windsock/store")
    monkeypatch.setenv("WINDSOCK_STORE_MARK", "0" * 32)
    site.write_text(
        "namespace: ml\nstep_image: windsock/step:1\nvolumes:\n"
        "  - {name: store, mount: /data/windsock, claim: windsock-store}\n"
        "  - {name: words, mount: /words, config_map: words, read_only: true}\n"
    )
    spec = manifest(fit(site))["spec"]
    run = "store/runs/fraud/r-1"
    assert [m for m in spec["containers"][0]["volumeMounts"] if m["name"] != "windsock-scratch"] == [
        {"name": "store", "mountPath": f"/data/windsock/{run}", "subPath": run, "readOnly": True},
        {
            "name": "store",
            "mountPath": f"/data/windsock/{run}/candidates/lightgbm",
            "subPath": f"{run}/candidates/lightgbm",
        },
        {"name": "words", "mountPath": "/words", "readOnly": True},
    ]
    assert [v["name"] for v in spec["volumes"]] == ["windsock-scratch", "store", "words"], "each once"

    operator = heavy_step(get_spec(Settings.from_env(), "fraud"), step="assemble", keyed=False)
    assert isinstance(operator, PodStepOperator)
    mounts = manifest(task_of(operator, context(StateStore())))["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "store", "mountPath": "/data/windsock"} in mounts, "a step of ours works on all of the store"


def test_pods_of_two_airflows_on_one_store_are_never_each_others(site: Path, monkeypatch: pytest.MonkeyPatch):
    """Blue and green run the same run of the same DAG: neither finds, takes, or sweeps away what the other made."""
    made = {}
    for name in ("blue-airflow", "green-airflow"):
        monkeypatch.setenv("AIRFLOW_VAR_WINDSOCK_INSTALLATION", name)
        made[name] = manifest(fit(site))["metadata"]
    blue, green = made.values()
    assert blue["name"] != green["name"], "the cluster would hand the other's pod to who asks for its own"
    for label in (TASK_LABEL, INSTALLATION_LABEL):  # what tasks find their pods by, and the sweep
        assert blue["labels"][label] != green["labels"][label]


def test_a_pod_made_before_airflows_had_names_is_still_found(site: Path, monkeypatch: pytest.MonkeyPatch):
    def digest(**record: Any) -> str:
        return fit(site, StateStore({"windsock_pod": record} if record else {})).identity.digest

    today, before = digest(), digest(made=True, number=0)
    assert digest(made=False, number=1) == today != before
    monkeypatch.setenv("AIRFLOW_VAR_WINDSOCK_INSTALLATION", "another-airflow")
    assert digest(made=True, number=0) == before
    store = StateStore()
    task = fit(site, store)
    task.record.made = True
    task.record.save()
    monkeypatch.setenv("AIRFLOW_VAR_WINDSOCK_INSTALLATION", "named-anew")
    assert fit(site, store).identity == task.identity, "a task goes on with the pod that it made"


def test_a_pod_gets_a_key_to_its_models_mlflow_and_not_what_signs_it(site: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WINDSOCK_MLFLOW_SECRET", secret := "s" * 40)
    (container,) = manifest(fit(site))["spec"]["containers"]
    env = {e["name"]: e["value"] for e in container["env"]}
    caller = mlflow_keys.read(secret, mlflow_keys.Kind.KEY, env["MLFLOW_TRACKING_TOKEN"])
    assert (caller.role, caller.model) == ("task", "fraud")
    assert secret not in str(container)


def test_the_pod_carries_labels_for_costs_and_for_being_found_again(site: Path):
    pod = manifest(fit(site))
    labels = pod["metadata"]["labels"]
    assert pod["metadata"]["namespace"] == "ml"
    assert labels["app.kubernetes.io/part-of"] == "windsock"
    assert (labels["windsock.io/team"], labels["windsock.io/model"]) == ("risk-ml", "fraud")
    assert labels["windsock.io/step"] == "fit"
    assert labels["windsock.io/run"] == "r-1"
    assert pod["metadata"]["annotations"]["windsock.io/run-id"] == "manual__2026-01-01T00:00:00+00:00"
    assert pod["metadata"]["name"] == fit(site).identity.pod_name("fraud, fit lightgbm", 0)


def test_airflow_adds_no_sidecar_and_keeps_the_restrictions(site: Path):
    spec = manifest(fit(site))["spec"]
    assert [c["name"] for c in spec["containers"]] == ["base"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["containers"][0]["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert spec["securityContext"]["runAsNonRoot"] is True


def test_a_custom_trainers_command_replaces_the_entrypoint(site: Path):
    task = fit(site, kind="custom", command=["python3", "/app/train.py"], compute={"image": "mine:1"})
    (container,) = manifest(task)["spec"]["containers"]
    assert (container["image"], container["command"]) == ("mine:1", ["python3", "/app/train.py"])


def test_memory_that_was_raised_after_a_try_ran_out_is_kept_within_todays_limit(site: Path):
    store = StateStore(windsock_pod={"memory": "8Gi", "number": 3, "try_number": 1})
    asked = {"memory": "2Gi", "memory_limit": "4Gi"}
    task = fit(site, store, 2, compute=asked)
    assert manifest(task)["spec"]["containers"][0]["resources"]["limits"]["memory"] == "4Gi"
    assert manifest(task)["metadata"]["name"].endswith("-3")
    assert fit(site, StateStore(windsock_pod={"memory": "1Gi"}), compute=asked).memory == "2Gi"


@pytest.mark.parametrize(
    ("phase", "keep", "done"),
    [
        ("Failed", True, "kept"),
        ("Failed", False, "deleted"),
        ("Running", True, "deleted"),
        ("Pending", True, "deleted"),
    ],
)
def test_a_failed_pod_may_be_kept_but_never_one_that_still_runs_or_might_begin_to(
    site: Path, monkeypatch: pytest.MonkeyPatch, phase: str, keep: bool, done: str
):
    site.write_text(f"keep_failed_pods: {str(keep).lower()}\n")
    task, seen = fit(site), []
    monkeypatch.setattr(type(task), "client", None)
    monkeypatch.setattr("windsock_airflow.pods.cluster.keep_pod", lambda *_: seen.append("kept"))
    monkeypatch.setattr("windsock_airflow.pods.cluster.delete_pod", lambda *_: seen.append("deleted"))
    task.release(V1Pod(metadata=V1ObjectMeta(name="p"), status=V1PodStatus(phase=phase)), failed=True)
    assert (seen, task.record.number) == ([done], 1)


def test_a_step_of_windsock_runs_in_the_sites_step_image(site: Path):
    site.write_text("step_image: windsock/airflow:1\n")
    spec = spec_with(site, kind="lightgbm")
    operator = heavy_step(
        spec, step="assemble", keyed=False, form=["as_of"], options={"reason": "7", "days": [1], "none": None}
    )
    assert isinstance(operator, PodStepOperator)
    (container,) = manifest(task_of(operator, context(StateStore(), as_of="2026-03-01")))["spec"]["containers"]
    assert (container["image"], container["command"]) == ("windsock/airflow:1", ["windsock"])
    from windsock.cli.step import read_options

    arguments = container["args"]
    assert arguments[:4] == ["step", "assemble", "--model", "fraud"]
    pairs = [value for flag, value in pairwise(arguments) if flag == "-o"]
    assert read_options(tuple(pairs)) == {"as_of": "2026-03-01", "reason": "7", "days": [1], "by": "ada"}
    assert "--replayed" not in arguments
    assert {e["name"]: e["value"] for e in container["env"]}["WINDSOCK_STORE"] == STORE


def test_the_backend_is_the_estimators_else_the_installations(site: Path, monkeypatch: pytest.MonkeyPatch):
    def operator(step: str = "fit", **estimator: Any) -> Any:
        spec = spec_with(site, **{"kind": "lightgbm", **estimator})
        return heavy_step(spec, step=step, estimator=only(spec) if step == "fit" else None)

    assert isinstance(operator(compute={"backend": "local"}), StepOperator)
    assert isinstance(operator("assemble"), StepOperator)  # the site names no step_image
    monkeypatch.setenv("WINDSOCK_COMPUTE", "local")
    assert isinstance(operator(), StepOperator)
    in_pod = operator(compute={"backend": "kubernetes", "gpu": 2})
    assert isinstance(in_pod, PodStepOperator)
    assert (in_pod.pool, in_pod.pool_slots) == ("windsock_gpu", 2)
    assert operator(compute={"backend": "kubernetes"}).pool == "default_pool"


def test_a_faulty_site_file_fails_the_task_with_its_sentence_and_not_the_dag(site: Path):
    spec = spec_with(site, kind="lightgbm")
    site.write_text("namspace: x\n")
    operator = heavy_step(spec, step="fit", estimator=only(spec), keyed=False, options={"run": "r"})
    with pytest.raises(AirflowFailException, match="Did you mean 'namespace'"):
        PodStepOperator.execute.__wrapped__(operator, context(StateStore()))  # type: ignore[attr-defined]


def test_a_record_outlives_processes_and_retries_and_begins_afresh_when_the_task_is_cleared():
    def read(store: StateStore, try_number: int, max_tries: int) -> PodRecord:
        given = context(store, try_number)
        given["ti"].max_tries = max_tries
        return PodRecord.of(given)

    store = StateStore()
    first = read(store, 1, 2)
    first.interruptions, first.memory = 3, "4Gi"
    assert first.waited("waiting_since") < 1
    first.next_pod()
    again, retried, cleared = read(store, 1, 2), read(store, 2, 2), read(store, 2, 3)
    assert (again.number, again.interruptions, again.memory, again.cleared) == (1, 3, "4Gi", False)
    assert again.waiting_since == first.waiting_since
    assert (retried.number, retried.interruptions, retried.memory, retried.cleared) == (1, 0, "4Gi", False)
    assert retried.waiting_since == first.waiting_since
    assert (cleared.number, cleared.waiting_since, cleared.cleared) == (1, None, True)


def test_a_cluster_without_airflows_connection_is_asked_for_by_the_usual_name():
    assert PodStepOperator(step="fit", model="m").kubernetes_conn_id == "kubernetes_default"
