"""The fraud model in small, for tests that need days of data within seconds."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from windsock.settings import REPO_ROOT, Settings
from windsock.spec import ModelSpec, get_spec
from windsock.spec.load import read_yaml


def features_of_views(**fields: Any) -> dict[str, Any]:
    """Return the fraud model's features with other fields in each view, for ``features`` of :func:`small_fraud`."""
    features = read_yaml(REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")["features"]
    return {**features, "views": [{**view, **fields} for view in features["views"]]}


def small_fraud(folder: Path, **overrides: Any) -> tuple[Settings, ModelSpec]:
    """Write a copy of the fraud model with a small simulator below ``folder`` and load it.

    Args:
        folder: Becomes ``WINDSOCK_HOME``; the model lies in ``<folder>/models/fraud``.
        overrides: Top-level spec fields that replace the model's own.
    """
    target = folder / "models" / "fraud"
    shutil.copytree(REPO_ROOT / "include" / "models" / "fraud", target, dirs_exist_ok=True)
    raw = read_yaml(target / "model.yaml")
    raw["first_day"] = "2026-03-01"
    raw["source"] = {"kind": "simulator", "seed": 0, "customers": 300, "terminals": 600}
    raw["alerts"] = {"digest": False}  # most tests count messages
    raw["training"] = {**raw["training"], "window_days": 7, "windows": [], "refit": False}  # few days are made
    raw.update(overrides)
    # By libyaml: hundreds of tests begin here.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    (target / "model.yaml").write_text(yaml.dump(raw, Dumper=dumper, sort_keys=False), encoding="utf-8")
    settings = Settings.from_env({"WINDSOCK_HOME": str(folder), "WINDSOCK_MODELS": str(folder / "models")})
    return settings, get_spec(settings, "fraud")
