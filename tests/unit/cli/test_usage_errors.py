"""A command line that is wrong ends with 64 and one sentence that names the right usage, whatever command it is."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from windsock import cli, last_words

NAMES = list(cli.commands())
GIVEN = {"IntRange": "0", "FloatRange": "0", "Choice": "neither", "DateTime": "2026-02-30", "Path": "/no/such/file"}
"""A value that a parameter of this type refuses."""


def command(name: str) -> click.Command:
    found = cli.cli.get_command(click.Context(cli.cli), name)
    assert found is not None
    return found


def wrong(name: str) -> Iterator[tuple[list[str], str]]:
    """Yield wrong arguments of a command, each with the word that must be told."""
    yield ["--no-such-option"], "--no-such-option"
    parameters = [p for p in command(name).params if not isinstance(p, click.Option) or not p.hidden]
    if all(p.nargs != -1 for p in parameters):
        needed = [word for p in parameters if p.required and isinstance(p, click.Option) for word in (p.opts[0], "x")]
        yield [*needed, *["a"] * 9], "unexpected extra argument"
    for parameter in parameters:
        if parameter.required:
            yield [], "Missing"
        if isinstance(parameter, click.Argument):
            continue
        option = parameter.opts[-1] if parameter.opts[-1].startswith("--") else parameter.opts[0]
        if parameter.is_flag:
            yield [f"{option}=x"], option
        else:
            yield [option], option
        kind = type(parameter.type).__name__
        if kind in GIVEN and (kind != "Path" or parameter.type.exists):
            yield [option, GIVEN[kind]], option


CASES = [
    *([["--no-such-option"], "windsock [OPTIONS]", "--no-such-option"], [["stauts"], "windsock [OPTIONS]", "'status'"]),
    *([[name, *given], f"windsock {name} ", word] for name in NAMES for given, word in wrong(name)),
]


@pytest.mark.parametrize(("given", "usage", "word"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_a_wrong_command_line_ends_with_64_and_one_sentence_and_runs_nothing(
    given: list[str],
    usage: str,
    word: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if given[0] in NAMES:
        monkeypatch.setattr(command(given[0]), "callback", lambda **_: pytest.fail("the command has run"))
    words = tmp_path / "termination-log"
    words.touch()
    monkeypatch.setattr(last_words, "TERMINATION_LOG", words)
    monkeypatch.chdir(tmp_path)

    assert cli.main(given) == 64

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert f"Usage: {usage}" in told.err
    assert word in told.err
    assert words.read_text() == told.err.rstrip("\n")


@pytest.mark.parametrize("given", [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in NAMES)], ids=str)
def test_asking_for_help_is_no_error(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(given) == 0
    assert capsys.readouterr().err == ""


def test_without_a_command_the_help_is_shown_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 64
    assert "Commands:" in capsys.readouterr().err


def test_what_follows_the_program_of_a_trainer_is_the_program_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(command("check-trainer"), "callback", lambda **given: seen.update(given))

    assert cli.main(["check-trainer", "--data", "csv", "python3", "trainer.py", "--task", "other", "--odd"]) == 0

    assert seen["command"] == ("python3", "trainer.py", "--task", "other", "--odd")
    assert (seen["data"], seen["task"]) == ("csv", "binary")
