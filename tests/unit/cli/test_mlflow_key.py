"""A key for a program of one's own, signed with the home's secret."""

from pathlib import Path

import pytest

from windsock import cli
from windsock.mlflow_keys import Kind, read
from windsock_local.stack.home import MLFLOW_SECRET, Home


def test_a_key_reads_unless_it_is_asked_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = Home(tmp_path).secret(MLFLOW_SECRET)
    for options, role in ([], "viewer"), (["--write"], "op"):
        assert cli.main(["mlflow-key", "--home", str(tmp_path), *options]) == 0
        assert read(secret, Kind.KEY, capsys.readouterr().out.strip()).role == role


def test_without_a_secret_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mlflow-key", "--home", str(tmp_path)]) == 75
    assert "no secret to sign a key with" in capsys.readouterr().err
