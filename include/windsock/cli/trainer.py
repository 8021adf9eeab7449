"""``windsock check-trainer``: does a trainer of one's own keep the contract?"""

import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import click

from windsock.errors import SpecError
from windsock.trainer_kit.conformance import Finding, check_candidate
from windsock.trainer_kit.practice import practice_run
from windsock.trainer_kit.trainer_trial import ProgramRunner, try_trainer

_BROKEN = 65
_WORDS = {True: "ok", False: "BROKEN", None: "--"}


@click.command("check-trainer", context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--candidate", help="Only look at this finished candidate: its folder or request.json, path or URL.")
@click.option("--task", type=click.Choice(["binary", "regression"]), default="binary", show_default=True)
@click.option("--data", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True)
@click.option("--params", default="{}", help="The estimator's params, as JSON.")
@click.option("--rows", type=click.IntRange(100), default=2000, show_default=True, help="Practice rows.")
@click.option("--timeout", type=click.FloatRange(1), default=600, show_default=True, help="Seconds for one training.")
@click.option("--env", multiple=True, help="Hand on this environment variable; can be repeated.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep everything here (default: a folder that goes).",
)
def check_trainer(
    command: tuple[str, ...],
    candidate: str | None,
    task: str,
    data: str,
    params: str,
    rows: int,
    timeout: float,
    env: tuple[str, ...],
    folder: Path | None,
) -> int:
    """Try a trainer on made-up rows and check every clause of the contract.

    COMMAND is run several times, with little more in its environment than WINDSOCK_REQUEST:
    once through, once again, killed, stopped, with wrong inputs. Put it after "--"; {folder}
    in it stands for the run's folder, for containers:

    \b
      windsock check-trainer --data csv -- python3 trainer.py
      windsock check-trainer -- docker run --rm --user $UID -e WINDSOCK_REQUEST \\
        --read-only --tmpfs /tmp -v {folder}:{folder} my-trainer:1

    With --candidate, nothing is run: a finished candidate is looked at. Ends with 0 if every
    clause is kept, with 65 if one is broken. docs/trainer.md explains the clauses.
    """  # noqa: D301  click's \b keeps the lines of the example
    if (candidate is None) == (not command):
        raise SpecError("Give either a command after '--' to try, or --candidate to look at what a trainer left.")
    if candidate is not None:
        url = candidate if candidate.endswith("request.json") else f"{candidate.rstrip('/')}/request.json"
        return _print_findings(check_candidate(url))
    try:
        values = json.loads(params)
        if not isinstance(values, dict):
            raise ValueError(f"{params} has no names")
    except ValueError as err:
        raise SpecError(f"--params is no JSON object: {err}. Write it like '{{\"l2\": 0.5}}'.") from err
    estimator = {"kind": "custom", "name": "trainer", "command": list(command), "data": data, "params": values}
    environment = {name: os.environ[name] for name in ("PATH", "HOME", *env) if name in os.environ}
    with ExitStack() as stack:
        if folder is None:
            passing = tempfile.TemporaryDirectory(prefix="windsock-trainer-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(passing))
        if folder.exists() and any(folder.iterdir()):
            raise SpecError(f"{folder} is not empty. Give --folder a new or an empty folder.")
        request = Path(practice_run(str(folder.absolute()), estimator, task=task, rows=rows))
        # A container may run as another user, and sees only what is mounted of this folder.
        for path in folder.rglob("*"):
            path.chmod(0o777 if path.is_dir() else 0o644)
        return _print_findings(try_trainer(ProgramRunner(command, environment), request, seconds=timeout))


def _print_findings(findings: Iterable[Finding]) -> int:
    broken = open_ = 0
    for finding in findings:
        broken += finding.kept is False
        open_ += finding.kept is None
        click.echo(f"{_WORDS[finding.kept]:<7} {finding.clause:<15} {finding.message}")
    if broken:
        click.echo(f"Broken clauses: {broken}; see docs/trainer.md.", err=True)
    else:
        click.echo("Every clause is kept" + (f", but for {open_} not looked at." if open_ else "."), err=True)
    return _BROKEN if broken else 0
