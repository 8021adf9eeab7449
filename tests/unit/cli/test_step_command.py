"""``windsock step`` reports as a pod must: result on stdout, log on stderr, outcome as exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from small_model import small_fraud
from windsock.cli.step import read_options
from windsock.errors import SpecError


def windsock(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(home / "models")}
    return subprocess.run(
        [sys.executable, "-m", "windsock.cli", "step", *arguments], env=env, capture_output=True, text=True, timeout=120
    )


def test_options_are_json_where_they_are_json_and_are_not_meant_as_text():
    pairs = ("as_of=2026-03-01", "trials=3", "correct=true", "version=7", "model_version=7", "reason=a=b", "x=")
    assert read_options(("reason=12345", "by=true", 'run="7"')) == {"reason": "12345", "by": "true", "run": "7"}
    assert read_options(("reason=7", "days=[1]"), ["days"]) == {"reason": 7, "days": "[1]"}
    assert read_options(pairs) == {
        "as_of": "2026-03-01",
        "trials": 3,
        "correct": True,
        "version": "7",
        "model_version": "7",
        "reason": "a=b",
        "x": "",
    }
    with pytest.raises(SpecError, match="NAME=VALUE"):
        read_options(("trials",))


def test_the_last_line_of_stdout_is_the_result_and_the_log_is_elsewhere(tmp_path: Path):
    small_fraud(tmp_path)
    done = windsock(tmp_path, "ingest", "-m", "fraud", "-k", "2026-03-01", "--result", "steps/fraud/a.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "store/steps/fraud/a.json").read_text()) == json.loads(done.stdout.splitlines()[-1])
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "published"
    assert "fraud ingest 2026-03-01: done" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["ingets", "-m", "fraud"], 64, "Did you mean 'ingest'?"),
        (["ingest", "-m", "fraud", "-k", "2026-03-01", "--result", "../a.json"], 64, "below the store's root"),
        (["features", "-m", "fraud"], 64, "The partition key is missing"),
        (["features", "-m", "fraud", "-k", "2026-03-02"], 75, "still missing"),
    ],
)
def test_the_exit_code_says_whether_a_retry_can_help(tmp_path: Path, arguments: list[str], code: int, sentence: str):
    small_fraud(tmp_path)
    done = windsock(tmp_path, *arguments)
    assert done.returncode == code
    assert sentence in done.stderr
