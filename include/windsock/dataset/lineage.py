"""What a model was made from, enough to explain it and to make it again."""

import hashlib
import os
import subprocess
from functools import lru_cache
from typing import Any

from windsock.dataset.assemble import Pins
from windsock.dataset.time_split import Windows
from windsock.days import spans
from windsock.features.frame import feature_names
from windsock.runs.libraries import libraries
from windsock.settings import REPO_ROOT
from windsock.spec import ModelSpec
from windsock.spec.modelling import jsonable
from windsock.spec.module_files import frozen_modules
from windsock.store import to_json


@lru_cache(maxsize=1)
def code_commit() -> str | None:
    """Return the commit of the running code (``WINDSOCK_COMMIT``, else git), or None outside a checkout."""
    if given := os.environ.get("WINDSOCK_COMMIT"):
        return given
    try:
        asked = subprocess.run(
            ["git", "-C", str(REPO_ROOT), "rev-parse", "--verify", "HEAD"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def spec_hash(spec: ModelSpec) -> str:
    """Return a SHA-256 over the spec, its SQL files and the users' own networks."""
    return hashlib.sha256(to_json({"spec": jsonable(spec), "sql": sql_texts(spec), **_modules(spec)})).hexdigest()


def sql_texts(spec: ModelSpec) -> dict[str, str]:
    """Return the SQL file of each view, by its file name."""
    return {view.sql: spec.sql_of(view) for view in spec.features.views}


def _modules(spec: ModelSpec) -> dict[str, Any]:
    """Return the text of each network of the user's own, by its file; nothing if there are none."""
    texts = {module["file"]: module["source"] for module in frozen_modules(spec).values()}
    return {"modules": texts} if texts else {}


def inputs_of(spec: ModelSpec, windows: Windows, pins: Pins) -> dict[str, Any]:
    """Return what determines a training: equal inputs, equal model."""
    return {
        "model": spec.name,
        "as_of": windows.as_of.isoformat(),
        "windows": {
            name: [d.isoformat() for d in getattr(windows, name)] for name in ("train", "gap", "holdout", "warm_up")
        },
        "spec": jsonable(spec),
        "features": feature_names(spec),
        "sql": sql_texts(spec),
        **_modules(spec),
        "spec_hash": spec_hash(spec),
        "seed": spec.training.seed,
        "pins": {stage: dict(days) for stage, days in pins.items()},
    }


def lineage_of(inputs: dict[str, Any], windows: Windows, origin: str, report: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``lineage.json``: the inputs, and where and by what they were put together."""
    return {
        **inputs,
        "summary": (
            f"as of {windows.as_of}: trained on {spans(windows.train)}, gap {spans(windows.gap) or 'none'}, "
            f"held out {spans(windows.holdout)}"
        ),
        "report": report,
        "origin": origin,
        "commit": code_commit(),
        "libraries": libraries(),
    }
