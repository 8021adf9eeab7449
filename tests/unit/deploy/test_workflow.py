"""What must hold for the GitHub workflows; zizmor, checkov and yamllint look closer in scripts/lint-deploy.sh."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def steps(path: Path) -> Iterator[dict[str, Any]]:
    content = read(path)
    for job in content.get("jobs", {"": content.get("runs")}).values():
        yield from job["steps"]


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_actions_are_pinned_by_commit_with_the_version_beside_it(path: Path) -> None:
    used = re.findall(r"uses: *(\S+)(.*)", path.read_text())
    assert used
    for action, comment in used:
        if not action.startswith("$/"):  # this repository, at the commit that runs
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action}: which version is this?"


def test_an_action_has_one_version_everywhere() -> None:
    pinned: dict[str, set[str]] = {}
    for path in [*WORKFLOWS, *ACTIONS]:
        for action, commit in re.findall(r"uses: *([\w./-]+)@([0-9a-f]{40})", path.read_text()):
            pinned.setdefault(action, set()).add(commit)
    assert pinned
    assert not {action: commits for action, commits in pinned.items() if len(commits) > 1}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_rights_of_its_own_and_never_runs_foreign_code_with_secrets(path: Path) -> None:
    content = read(path)
    assert content["permissions"] == {}
    assert content["concurrency"]["group"]
    triggers = content[True]  # YAML reads the key `on` as true
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers)


@pytest.mark.parametrize(("path", "job"), jobs())
def test_a_job_is_bounded_in_time_and_rights(path: Path, job: dict[str, Any]) -> None:
    assert 0 < job["timeout-minutes"] <= 90
    writes = {scope for scope, level in job["permissions"].items() if level != "read"}
    if writes:
        assert job["environment"] in {"production", "release"}, "who may write is asked first"
        assert "pull_request" not in read(path)[True] or "github.ref == 'refs/heads/main'" in job["if"]


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_script_is_made_of_what_others_wrote(path: Path) -> None:
    for step in steps(path):
        assert "${{" not in step.get("run", ""), "values go into a script by environment"
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_production_moves_only_forward_and_only_after_everything_passed() -> None:
    ci = read(GITHUB / "workflows" / "ci.yaml")["jobs"]
    deploy = ci["deploy-dags"]

    assert set(deploy["needs"]) == set(ci) - {"deploy-dags"}
    assert deploy["environment"] == "production"
    assert "force=false" in deploy["steps"][0]["run"]


def test_ci_runs_the_projects_own_commands() -> None:
    ran = " ".join(step.get("run", "") for step in steps(GITHUB / "workflows" / "ci.yaml"))
    for command in ("make lint", "make test", "make test-kubernetes", "scripts/lint-deploy.sh", "helm template"):
        assert command in ran


def test_ci_checks_the_chart_that_the_values_are_for() -> None:
    chart = read(GITHUB / "workflows" / "ci.yaml")["jobs"]["deployment"]["env"]["CHART"]
    assert f"version {chart}" in (REPO_ROOT / "docker" / "helm" / "values.yaml").read_text()
