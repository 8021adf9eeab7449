#!/usr/bin/env python3
"""Break one rule of the product at a time and see that the test named for it fails.

    .venv/bin/python scripts/mutations.py [NAME]...

``tests/mutations.toml`` lists the rules: a piece of source, what to put in its place, and the test that must notice.
Each is tried in a copy of the checkout, which itself is never changed. Exits with 1 if a
test passes on a broken rule, or fails on an unbroken one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_test(test: str, copy: Path) -> bool:
    """Run one test in a copy of the checkout and say whether it passed."""
    env = {**os.environ, "PYTHONPATH": str(copy / "include"), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"mutations: {test} could not be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def main(names: list[str]) -> int:
    """Try the named rules, or all; print a table."""
    rules = tomllib.loads((ROOT / "tests" / "mutations.toml").read_text(encoding="utf-8"))["rule"]
    chosen = [rule for rule in rules if not names or rule["name"] in names]
    failed = 0
    print("| rule | broken in | test that notices | seconds |\n|---|---|---|---|")
    for rule in chosen:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "windsock")
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "var", "__pycache__", "*.egg-info"))
            whole = run_test(rule["test"], copy)
            broken = copy / rule["file"]
            broken.write_text(broken.read_text(encoding="utf-8").replace(rule["replace"], rule["by"]), encoding="utf-8")
            noticed = not run_test(rule["test"], copy)
        verdict = "" if whole and noticed else " **NOT NOTICED**" if whole else " **FAILS UNBROKEN**"
        failed += bool(verdict)
        seconds = time.monotonic() - started
        print(f"| {rule['name']} | {rule['file']} | {rule['test']}{verdict} | {seconds:.0f} |", flush=True)
    print(f"\n{len(chosen) - failed} of {len(chosen)} rules are held by their tests")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
