"""Airflow's official chart with our values, rendered and installed by Helm's own library."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from windsock.settings import REPO_ROOT

HELM_VALUES = REPO_ROOT / "docker" / "helm"
SDK = "helm-python-sdk==0.2.2"


class HelmError(Exception):
    """Helm, or the chart, refuses; the text says why."""


@dataclass(frozen=True)
class Rendered:
    """What a chart makes of values."""

    objects: list[dict[str, Any]]
    notes: str

    def of_kind(self, *kinds: str) -> dict[str, dict[str, Any]]:
        """Return objects of some kinds by name."""
        return {o["metadata"]["name"]: o for o in self.objects if o["kind"] in kinds}

    def pods(self) -> dict[str, dict[str, Any]]:
        """Return the specification of each pod that will be: those of the parts, of the job, of tasks if any."""
        made = self.of_kind("Deployment", "StatefulSet", "Job")
        pods = {name: made[name]["spec"]["template"]["spec"] for name in made}
        template = self.of_kind("ConfigMap")["airflow-config"]["data"].get("pod_template_file.yaml")
        return pods if template is None else {**pods, "worker": yaml.safe_load(template)["spec"]}


Render = Callable[..., Rendered]
Values = dict[str, Any]


@dataclass(frozen=True)
class Helm:
    """Helm's library with the chart that our values are for."""

    command: tuple[str, ...]
    chart: Path

    def __call__(self, action: str, values: Values) -> str:
        """Render, install, upgrade or uninstall the release ``airflow``; see run_helm.py.

        Raises:
            HelmError: Helm refuses.
        """
        script = [str(Path(__file__).with_name("run_helm.py")), action, str(self.chart), "windsock", "airflow"]
        done = subprocess.run(
            [*self.command, *script], input=json.dumps(values), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise HelmError(done.stderr)
        return done.stdout


@functools.cache
def find_helm() -> Helm:
    """Return Helm with the chart; skips where one of them cannot be had."""
    version = re.search(r"version ([\d.]+),", (HELM_VALUES / "values.yaml").read_text())
    assert version is not None
    beside = REPO_ROOT.parent / "shared" / "kubernetes" / "charts" / f"airflow-{version[1]}.tgz"
    chart = Path(os.environ.get("WINDSOCK_AIRFLOW_CHART") or beside)
    if not chart.is_file():
        pytest.skip(f"Airflow's chart {version[1]} is not here; name its archive in WINDSOCK_AIRFLOW_CHART")
    uv = shutil.which("uv") or shutil.which(str(REPO_ROOT / ".uv" / "bin" / "uv"))
    if uv is None:
        pytest.skip("uv is not here; run scripts/setup.sh")
    run = (uv, "tool", "run", "--quiet", "--from", SDK, "python")
    tried = subprocess.run([*run, "-c", "import helm_python.chart"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"{SDK} cannot be had: {tried.stderr.strip().splitlines()[-1]}")
    return Helm(run, chart)


def merged(*files: Path, **more: Any) -> Values:
    """Return the values of files as Helm merges them, and of ``more`` above."""
    values: Values = {}
    for above in (*(yaml.safe_load(file.read_text()) for file in files), more):
        _merge(values, above)
    return values


@functools.cache
def renderer() -> Render:
    """Return a function that renders files of docker/helm, with single values as ``--set`` would give them."""
    helm = find_helm()

    @functools.cache
    def made(files: tuple[str, ...], repo: str, executor: str) -> Rendered:
        values = merged(*(HELM_VALUES / file for file in files))
        if repo:
            values["dags"]["gitSync"]["repo"] = repo
        if executor:
            values["executor"] = executor
        texts = json.loads(helm("render", values))
        notes = "".join(text for path, text in texts.items() if path.endswith("NOTES.txt"))
        manifests = (text for path, text in texts.items() if path.endswith(".yaml"))
        return Rendered([o for text in manifests for o in yaml.safe_load_all(text) if o], notes)

    def rendered(*files: str, repo: str = "", executor: str = "") -> Rendered:
        return made(files, repo, executor)

    return rendered


def _merge(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value
