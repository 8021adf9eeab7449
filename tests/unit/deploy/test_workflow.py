"""What must hold for the GitHub workflows; zizmor, checkov and yamllint look closer in scripts/lint-deploy.sh."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from windsock.plan.report import MARKER
from windsock.settings import REPO_ROOT

GITHUB = REPO_ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yaml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yaml"))


@functools.cache
def read(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text())


def jobs() -> list[Any]:
    found = [(path, name, job) for path in WORKFLOWS for name, job in read(path)["jobs"].items()]
    return [pytest.param(path, job, id=f"{path.stem}-{name}") for path, name, job in found]


@pytest.mark.parametrize(("path", "job"), jobs())
def test_a_job_is_bounded_in_time_and_rights(path: Path, job: dict[str, Any]) -> None:
    assert 0 < job["timeout-minutes"] <= 90
    writes = {scope for scope, level in job["permissions"].items() if level != "read"}
    if writes == {"pull-requests"}:
        assert not [step for step in job["steps"] if "uses" in step], "who comments runs nothing of what it comments on"
    elif writes:
        assert job["environment"] in {"production", "release"}, "who may write is asked first"
        assert "pull_request" not in read(path)[True] or "github.ref == 'refs/heads/main'" in job["if"]


def test_production_moves_only_forward_and_only_after_everything_passed() -> None:
    ci = read(GITHUB / "workflows" / "ci.yaml")["jobs"]
    deploy = ci["deploy-dags"]

    assert set(deploy["needs"]) == set(ci) - {"deploy-dags"}
    assert deploy["environment"] == "production"
    assert "force=false" in deploy["steps"][0]["run"]


def test_ci_checks_the_chart_that_the_values_are_for() -> None:
    chart = read(GITHUB / "workflows" / "ci.yaml")["jobs"]["deployment"]["env"]["CHART"]
    assert f"version {chart}" in (REPO_ROOT / "docker" / "helm" / "values.yaml").read_text()


def test_the_plans_comment_is_found_by_the_line_that_the_plan_begins_with() -> None:
    [step] = read(GITHUB / "workflows" / "plan.yaml")["jobs"]["comment"]["steps"]
    assert f'startswith("{MARKER}")' in step["run"]
