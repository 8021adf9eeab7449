"""Every script runs in a bare environment: PATH and HOME, nothing else of what a developer's shell happens to have."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from windsock.settings import REPO_ROOT

SCRIPTS = sorted(
    path
    for pattern in ("scripts/*.sh", ".ci/run", "docker/**/*.sh")
    for path in REPO_ROOT.glob(pattern)
    if path.is_file()
)
BASH_SETS = {"BASH_SOURCE", "SECONDS", "PWD", "EUID", "UID", "HOSTNAME", "RANDOM", "LINENO", "PATH"}
"""What is there in any shell; HOME is not: a container may have none."""

TOOLS = """bash sh env dirname basename git cat cp cut sed grep sha256sum mkdir mktemp rm mv chmod head tail tr od
base64 id find ls sort"""
"""What every Debian has, and git; no uv, Docker, buildah, kubectl, make or Python."""

every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(REPO_ROOT)))


@every_script
def test_a_script_ends_at_its_first_fault(script: Path) -> None:
    assert re.search(r"^set -(eu|u|euo|uo)( pipefail)?$|^exec ", script.read_text(), re.MULTILINE)


@every_script
def test_a_variable_that_may_be_unset_has_a_default_wherever_it_is_read(script: Path) -> None:
    assert unguarded(script.read_text()) == set()


def test_the_check_finds_what_once_stopped_the_images_on_every_machine_but_one() -> None:
    assert unguarded('wheels=${PIP_FIND_LINKS%% *}\necho "$HOME/x" ${A:-} $B\nB=1\n') == {"PIP_FIND_LINKS", "HOME"}


def unguarded(text: str) -> set[str]:
    """Return the variables that a script reads without a default, and neither sets nor gets from any shell."""
    # What single quotes and quoted here-documents hold is not this shell's; neither is what a backslash precedes.
    text = re.sub(r"<<'(\w+)'.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^\s*#.*$|\s#\s.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"(?<![\w\"}])'[^']*'", "", text)
    read = set(re.findall(r"(?<!\\)\$\{?([A-Za-z_]\w*)(?!\w|:?[-+=?])", text))
    checked = set(re.findall(r"\$\{([A-Za-z_]\w*):\?", text))
    assigned = set(re.findall(r"(?:^|[\s;(&|])(?:export |local |readonly )?([A-Za-z_]\w*)\+?=", text))
    assigned |= {
        name for names in re.findall(r"\b(?:local|read|mapfile|for)((?: +-?\w+)+)", text) for name in names.split()
    }
    return read - assigned - checked - BASH_SETS


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A fresh checkout's scripts, where no tool of this machine and no cluster lies beside them."""
    for name in ("scripts", "docker", ".ci"):
        shutil.copytree(REPO_ROOT / name, tmp_path / "windsock" / name)
    for name in ("requirements.in", "requirements.txt", "pyproject.toml"):
        shutil.copy(REPO_ROOT / name, tmp_path / "windsock" / name)
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "windsock")], check=True)
    return tmp_path / "windsock"


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS.split():
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        pytest.param(["scripts/images.sh"], 64, "neither a Docker daemon nor buildah is here", id="images"),
        pytest.param(["scripts/images.sh", "airflow", "--docker"], 64, "apt-get install buildah", id="images-docker"),
        pytest.param(["scripts/setup.sh"], 127, "installing it into .uv/ with pip", id="setup"),
        pytest.param(["scripts/lock.sh"], 1, "'make setup' installs it", id="lock"),
        pytest.param(["scripts/lint-deploy.sh"], 0, "lint-deploy: clean", id="lint-deploy"),
        pytest.param(["scripts/with-cluster.sh", "echo", "without"], 0, "without", id="with-cluster"),
        pytest.param([".ci/run"], 127, "make", id="ci"),
        pytest.param(["docker/make-env.sh", "made"], 0, "user admin", id="make-env"),
        pytest.param(["bash", "docker/entrypoint.sh", "id"], 0, "uid=", id="entrypoint"),
        pytest.param(["sh", "docker/install.sh", "cpu", "venv"], 127, "uv", id="install"),
        pytest.param(["bash", "docker/postgres-init.sh"], 127, "psql", id="postgres-init"),
    ],
)
def test_a_script_gets_to_its_work_in_a_bare_environment(
    copy: Path, bare_path: str, command: list[str], code: int, says: str
) -> None:
    done = subprocess.run(
        command, cwd=copy, env={"PATH": bare_path, "HOME": str(copy.parent)}, capture_output=True, text=True, timeout=60
    )
    said = done.stdout + done.stderr
    assert "unbound variable" not in said
    assert "parameter not set" not in said
    assert (done.returncode, says in said) == (code, True), said
