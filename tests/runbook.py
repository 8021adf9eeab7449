"""The shell lines of docs/runbook.md, as they stand there, so that tests run what a person is told to."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from windsock.settings import REPO_ROOT

TARGET = "/mnt/backups/windsock"
"""Where backups go by the runbook."""
START = "windsock up --detach && windsock doctor"
"""The last line of every way back."""


def lines_of(section: str, after: str = "") -> list[str]:
    """Return the lines of a section's first block of shell, or of the first one behind a text of it."""
    text = (REPO_ROOT / "docs" / "runbook.md").read_text(encoding="utf-8").split(f"\n## {section}\n")[1]
    found = re.search(r"```bash\n(.*?)```", text.split("\n## ")[0][text.index(after) :], re.DOTALL)
    assert found is not None, f"no lines in {section} {after}"
    return found[1].splitlines()


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a person's shell, with ``var`` in a folder as home."""
    foreign = ("AIRFLOW", "WINDSOCK_", "MLFLOW_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = f"{Path(sys.executable).parent}:{own['PATH']}"
    return {**own, "PATH": path, "WINDSOCK_HOME": str(folder / "var"), **variables}


def run_line(line: str, folder: Path, target: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one in a folder, with another place for backups."""
    command = ["bash", "-c", line.replace(TARGET, shlex.quote(str(target)))]
    env = environment(folder, **variables)
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
