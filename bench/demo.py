"""``demo``: the demo under Airflow against the same days and steps in one plain Python process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.figures import Figure, Limit, say
from windsock.settings import REPO_ROOT

_FOREIGN = ("AIRFLOW", "WINDSOCK_", "MLFLOW_")
_SETUP_PHASES = ("stack",)


def run(folder: Path, demo_json: Path | None) -> Iterator[Figure]:
    """Measure both, one after the other.

    Args:
        folder: Scratch.
        demo_json: Result of a demo that ran already on this machine, instead of running one.
    """
    found = json.loads((demo_json or _run_demo(folder)).read_text(encoding="utf-8"))
    say("demo: the same steps in one plain process ...")
    plain = _child([sys.executable, "-m", "bench.plain_demo", str(folder / "plain")])
    seconds = found["seconds"]
    setup = sum(seconds.get(phase, 0.0) for phase in _SETUP_PHASES)
    yield Figure(
        "demo",
        "the demo's work under Airflow, the stack's start apart",
        seconds["total"] - setup,
        Limit("the same days and steps in one plain, warm Python process, one after the other", plain["total"]),
        context={
            "aim_times_limit": 2,
            "runs": 1,
            "rows": found["rows"]["ingested"],
            "days": found["days"]["ingested"] + found["days"]["rejected"],
            "versions": len(found["versions"]),
            "seconds": seconds,
            "times_limit_with_stack_start": seconds["total"] / plain["total"],
            "plain": {k: plain[k] for k in ("days", "rejected", "promoted", "cpu_s", "phases", "steps")},
        },
    )


def _run_demo(folder: Path) -> Path:
    say("demo: running it ...")
    home = folder / "demo"
    subprocess.run(
        [sys.executable, "-P", "-m", "windsock.cli", "demo", "--stop"],
        env={**_env(), "WINDSOCK_HOME": str(home)},
        stdout=sys.stderr,
        check=True,
    )
    return home / "demo.json"


def _child(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, env=_env(), cwd=REPO_ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _env() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
