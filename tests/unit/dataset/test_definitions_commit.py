"""Which commit a model's definitions came from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from windsock.dataset.requests import code_commit, definitions_commit
from windsock.settings import REPO_ROOT


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one model, which is not the one of the code."""
    model = tmp_path / "git" / "include" / "models" / "m"
    model.mkdir(parents=True)
    (model / "model.yaml").write_text("name: m\n")
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "A model"],
    ):
        git(tmp_path / "git", *command)
    return tmp_path / "git"


def git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_model_in_a_repository_of_its_own_names_that_ones_commit(repository: Path) -> None:
    assert definitions_commit(repository / "include" / "models" / "m") == git(repository, "rev-parse", "HEAD")


def test_a_checkout_of_git_sync_names_its_commit_where_there_is_no_git_to_ask(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "worktree", "add", "--quiet", "--detach", str(tmp_path / "dags" / ".worktrees" / commit))
    # As another container sees it: what the worktree's .git names lies elsewhere, and there is no git.
    (tmp_path / "dags" / ".worktrees" / commit / ".git").unlink()
    (tmp_path / "dags" / "repo").symlink_to(Path(".worktrees", commit))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("WINDSOCK_COMMIT", "of-the-image")

    assert definitions_commit(tmp_path / "dags" / "repo" / "include" / "models" / "m") == commit


def test_models_beside_the_code_came_with_it_and_those_in_no_git_name_none(tmp_path: Path) -> None:
    assert definitions_commit(REPO_ROOT / "include" / "models" / "fraud") == code_commit()
    assert definitions_commit(tmp_path) is None
