"""The command line as a whole: quick help, near names, errors as exit codes."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from windsock import cli, last_words
from windsock.errors import DataContractError

HEAVY = (
    "pandas",
    "numpy",
    "airflow",
    "mlflow",
    "feast",
    "great_expectations",
    "evidently",
    "pyarrow",
    "duckdb",
    "rich",
)


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from windsock.cli import main; main(['--help']); "
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert all(name in done.stdout for name in cli.commands())
    assert "HEAVY []" in done.stdout


def test_a_misspelt_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stauts"]) == 64
    assert "Did you mean 'status'?" in capsys.readouterr().err


@pytest.fixture
def failing_command(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fail() -> None:
        raise DataContractError("Column 'amount' is missing.")

    monkeypatch.setitem(cli.commands(), "fail", ("tests_fail:fail", "Fails."))
    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda _self, _ctx, _name: fail)


@pytest.mark.usefixtures("failing_command")
def test_our_own_error_is_one_message_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    termination_log = tmp_path / "termination-log"
    termination_log.touch()
    monkeypatch.setattr(last_words, "TERMINATION_LOG", termination_log)

    assert cli.main(["fail"]) == 65
    assert capsys.readouterr().err == "DataContractError: Column 'amount' is missing.\n"
    assert termination_log.read_text() == "DataContractError: Column 'amount' is missing."


@pytest.mark.usefixtures("failing_command")
def test_outside_a_pod_no_termination_log_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(last_words, "TERMINATION_LOG", tmp_path / "termination-log")

    assert cli.main(["fail"]) == 65
    assert not (tmp_path / "termination-log").exists()


def test_status_without_a_stack_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--home", str(tmp_path)]) == 1
    assert "windsock up" in capsys.readouterr().out
