"""The site's file: its defaults, its faults, and what it lays under a model's wishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from small_model import small_fraud
from windsock.compute import SiteCompute, check_store_is_mounted, load_site, needs_of
from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store


def settings_with(folder: Path, text: str) -> Settings:
    (folder / "site.yaml").write_text(text, encoding="utf-8")
    return Settings.from_env({"WINDSOCK_COMPUTE_FILE": str(folder / "site.yaml")})


def spec_with(folder: Path, **compute: Any) -> ModelSpec:
    path = folder / "models" / "fraud" / "model.yaml"
    small_fraud(folder)
    raw = yaml.safe_load(path.read_text())
    raw["training"] = {**raw["training"], "estimators": [{"kind": "lightgbm", "compute": compute}]}
    raw["training"].pop("estimator", None)
    path.write_text(yaml.safe_dump(raw))
    from windsock.spec.load import load_spec

    return load_spec(path)


def needs(folder: Path, site: dict[str, Any] | None = None, **compute: Any) -> Any:
    spec = spec_with(folder, **compute)
    return needs_of(spec, spec.training.estimators[0], SiteCompute.model_validate(site or {}))


def test_no_file_and_an_empty_one_mean_the_defaults(tmp_path: Path):
    assert load_site(Settings.from_env({})) == SiteCompute()
    assert load_site(settings_with(tmp_path, "# nothing yet\n")) == SiteCompute()
    assert SiteCompute().trainer_image.startswith("windsock/trainer:")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("namspace: x", "namspace: there is no such field. Did you mean 'namespace'?"),
        ("run_as: {usr: 1}", "run_as.usr: there is no such field. Did you mean 'user'?"),
        ("volumes: [{name: a, mont: /a, claim: b}]", "mont: there is no such field. Did you mean 'mount'?"),
        ("volumes: [{name: a, mount: /a, claim: b, secret: c}]", "give exactly one of claim, host_path"),
        ("memory: 2GB", "memory"),
        ("run_as: {user: 0}", "greater than 0"),
        ("spot: prefer", "needs spot_label"),
        ("- a", "is no mapping"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_faults_name_the_file_the_field_and_the_nearest_name(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(SpecError) as raised:
        load_site(settings_with(tmp_path, text))
    assert sentence in str(raised.value)
    assert "site.yaml" in str(raised.value)


def test_a_file_that_is_not_there_is_named_with_its_variable(tmp_path: Path):
    settings = Settings.from_env({"WINDSOCK_COMPUTE_FILE": str(tmp_path / "none.yaml")})
    with pytest.raises(SpecError, match="WINDSOCK_COMPUTE_FILE"):
        load_site(settings)


def test_the_models_wishes_go_before_the_sites_and_maps_are_merged(tmp_path: Path):
    site = {
        "namespace": "ml",
        "memory": "4Gi",
        "node_selector": {"pool": "cpu", "zone": "a"},
        "gpu_node_selector": {"pool": "gpu"},
        "labels": {"cost": "ml", "stage": "dev"},
    }
    found = needs(tmp_path, site, gpu=2, cpu=3.5, node_selector={"zone": "b"}, labels={"cost": "risk"}, image="own:1")
    assert (found.namespace, found.image, found.cpu, found.gpu, found.threads) == ("ml", "own:1", 3.5, 2, 3)
    assert found.node_selector == {"pool": "gpu", "zone": "b"}
    assert found.labels == {"cost": "risk", "stage": "dev"}
    assert [t.key for t in found.tolerations] == ["nvidia.com/gpu"]
    assert (found.memory, found.memory_limit) == ("4Gi", "16Gi")


def test_without_gpus_nothing_of_them_is_asked_for(tmp_path: Path):
    found = needs(tmp_path, {"gpu_node_selector": {"pool": "gpu"}})
    assert (found.gpu, found.node_selector, found.tolerations) == (0, {}, ())


def test_a_site_limit_does_not_bind_a_model_with_memory_of_its_own(tmp_path: Path):
    site = {"memory": "2Gi", "memory_limit": "3Gi"}
    assert needs(tmp_path, site).memory_limit == "3Gi"
    assert needs(tmp_path, site, memory="8Gi").memory_limit == "32Gi"
    with pytest.raises(SpecError, match="below"):
        needs(tmp_path, memory="8Gi", memory_limit="4Gi")


def test_spot_without_a_label_and_steps_without_an_image_are_refused(tmp_path: Path):
    with pytest.raises(SpecError, match="spot_label"):
        needs(tmp_path, spot="require")
    with pytest.raises(SpecError, match="step_image"):
        needs_of(spec_with(tmp_path), None, SiteCompute())


def test_a_local_store_must_be_mounted_in_pods_under_the_same_path(tmp_path: Path):
    def check(store: str, **volume: Any) -> None:
        site = {"volumes": [{"name": "store", "claim": "c", **volume}]} if volume else {}
        check_store_is_mounted(Store(store), needs(tmp_path, site))

    check("s3://bucket/store")
    check("/data/windsock/store", mount="/data/windsock")
    check("file:///data/store", mount="/data/store")
    for volume in ({}, {"mount": "/data/sto"}, {"mount": "/data/store/runs"}, {"mount": "/data", "read_only": True}):
        with pytest.raises(SpecError, match=r"WINDSOCK_STORE.*s3://.*volumes"):
            check("/data/store", **volume)


def test_more_gpus_than_the_pool_has_are_refused_as_airflow_would_wait_for_them_for_ever(tmp_path: Path):
    with pytest.raises(SpecError, match="asks for 3 GPUs, but Airflow's pool 'windsock_gpu' has 2"):
        needs(tmp_path, {"gpus": 2}, gpu=3)
    assert needs(tmp_path, {"gpus": 2}, gpu=2).gpu == 2
    assert needs(tmp_path, gpu=3).gpu == 3, "the number of slots is not known"
    assert load_site(Settings.from_env({"WINDSOCK_GPUS": "4"})).gpus == 4
