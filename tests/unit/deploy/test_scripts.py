"""Every script runs in a bare environment: PATH and HOME, nothing else of what a developer's shell happens to have."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
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
base64 id find ls
sort awk uname"""
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
    text = re.sub(r"""("(?:\\.|[^"\\])*")|'[^']*'""", lambda found: found.group(1) or "", text)
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


def test_setup_without_a_gpu_takes_pypis_torch_where_its_cpu_build_is_out_of_reach_and_says_so(
    copy: Path, bare_path: str, tmp_path: Path
) -> None:
    uv = shutil.which("uv") or shutil.which(REPO_ROOT / ".uv" / "bin" / "uv")
    if uv is None or Path("/proc/driver/nvidia/version").exists():
        pytest.skip("no uv is here, or a GPU")
    (Path(bare_path) / "uv").symlink_to(uv)
    (Path(bare_path) / "python3.11").symlink_to(Path(sys.base_prefix) / "bin" / "python3.11")
    (copy / "requirements.txt").write_text("torch==2.13.0 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via it\n")
    environment = {"PATH": bare_path, "HOME": str(tmp_path), "UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "cache")}
    run = ["bash", "scripts/setup.sh"]
    done = subprocess.run(run, cwd=copy, env=environment, capture_output=True, text=True, timeout=120)
    first, _, then = (done.stdout + "\0" + done.stderr).partition("\0")
    assert "torch's CPU build cannot be had" in first
    assert "PyPI's is taken" in first
    assert (done.returncode, "torch was not found in the cache" in then) == (1, True), then
    # A folder that holds the wheel is enough: nothing is looked for elsewhere, and nothing said.
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    offered = subprocess.run(
        run, cwd=copy, env={**environment, "PIP_FIND_LINKS": str(tmp_path)}, capture_output=True, text=True, timeout=120
    )
    assert "CPU build" not in offered.stdout
