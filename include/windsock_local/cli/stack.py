"""``windsock up``, ``down``, ``status`` and ``doctor``."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from windsock.errors import WindsockError
from windsock.settings import Settings
from windsock_local.stack.credentials import ADMIN_USER, admin_password
from windsock_local.stack.layout import Home
from windsock_local.stack.state import SUPERVISOR, StackInfo, read_stack

log = logging.getLogger(__name__)

_COLOURS = {"ok": "green", "healthy": "green", "starting": "yellow", "warning": "yellow"}

home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the stack's state. [default: $WINDSOCK_HOME, else var/ in the repository]",
)


def settings_for(home: Path | None) -> Settings:
    """Return the settings, with the home that the user named."""
    return Settings.from_env({**os.environ, "WINDSOCK_HOME": str(home)} if home else None)


@click.command()
@home_option
@click.option("--detach", "-d", is_flag=True, help="Return when it is ready and leave it running.")
@click.option("--port", type=click.IntRange(1, 65535), help="Airflow's port. [default: 8080, or any free one]")
@click.option("--mlflow-port", type=click.IntRange(1, 65535), help="MLflow's port. [default: 5000, or any free one]")
def up(home: Path | None, detach: bool, port: int | None, mlflow_port: int | None) -> None:
    """Start PostgreSQL, MLflow and Airflow on this machine, for this machine only.

    Ctrl-C stops everything. If it runs already, this only says where.
    """
    from windsock_local.stack import lifecycle

    settings = settings_for(home)
    console = Console(soft_wrap=True)
    if (running := read_stack(settings)) is not None and running.ready:
        console.print("It runs already.")
        _announce(console, settings, running)
        return
    progress = _Progress(console)
    options = lifecycle.UpOptions(port, mlflow_port)
    if detach:
        with progress:
            info = lifecycle.wait_until_ready(settings, lifecycle.start_detached(settings, options), progress.part)
        _announce(console, settings, info)
        return
    layout = Home.of(settings)
    layout.create()
    _log_to(layout.log(SUPERVISOR))

    def on_start(info: StackInfo, remarks: list[str]) -> None:
        for remark in remarks:
            console.print(f"[yellow]{escape(remark)}[/]")
        console.print(f"Starting in {escape(info.home)}: Airflow at {info.airflow_url}, MLflow at {info.mlflow_url}")

    def on_ready(info: StackInfo) -> None:
        progress.finish()
        _announce(console, settings, info)
        console.print("Ctrl-C stops it.")

    try:
        with progress:
            lifecycle.run_stack(settings, options, on_start=on_start, on_part=progress.part, on_ready=on_ready)
    except lifecycle.AlreadyRunning as found:
        console.print("It runs already.")
        _announce(console, settings, found.info)
        return
    except WindsockError as err:
        log.error("%s", err)  # for whoever looks at the log of a detached stack
        raise
    console.print("Stopped.")


@click.command()
@home_option
@click.option("--wipe", is_flag=True, help="Also remove its state: database, tables, models, logs, secrets.")
def down(home: Path | None, wipe: bool) -> None:
    """Stop the stack, or what is left of a killed one."""
    from windsock_local.stack import lifecycle

    settings = settings_for(home)
    click.echo("Stopped." if lifecycle.stop_stack(settings) else "Nothing was running.")
    if wipe:
        left = lifecycle.wipe(settings)
        click.echo(f"Removed the state in {settings.home}.")
        if left:
            click.echo(f"Not Windsock's, so left there: {', '.join(path.name for path in left)}")


@click.command()
@home_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(home: Path | None, as_json: bool) -> int:
    """Show each part of the stack; exit code 1 unless all are well."""
    from windsock_local.stack import health

    state = health.check(settings_for(home))
    if as_json:
        click.echo(json.dumps(state.as_dict(), indent=1))
    elif not state.running:
        click.echo(f"No stack runs under {state.home}. Start it with `windsock up`.")
    else:
        table = Table("part", "health", "pid", "up", "address", title=f"Stack in {escape(state.home)}: {state.state}")
        table.columns[-1].overflow = "fold"
        for part in state.parts:
            up_for = "" if part.up_seconds is None else f"{part.up_seconds:.0f} s"
            table.add_row(part.name, _coloured(part.health), str(part.pid or ""), up_for, part.address)
        Console().print(table)
        click.echo(f"Logs: {state.home}/logs, one file per part")
    return 0 if state.healthy else 1


@click.command()
@home_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def doctor(home: Path | None, as_json: bool) -> int:
    """Check this machine, the installation and the specs; exit code 1 on a problem."""
    from windsock_local.stack.doctor import examine

    checks = examine(settings_for(home))
    if as_json:
        click.echo(json.dumps([vars(check) for check in checks], indent=1))
    else:
        table = Table("check", "", "found", "next step")
        for check in checks:
            table.add_row(check.name, _coloured(check.verdict), escape(check.finding), escape(check.next_step))
        Console().print(table)
    return 1 if any(check.verdict == "problem" for check in checks) else 0


class _Progress:
    """One line per part as it becomes ready; a spinner beside it in a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("Starting") if console.is_terminal else None

    def __enter__(self) -> _Progress:
        # Only an animation thread: it starts no process, so no child dies with it.
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Stop the spinner."""
        if self._status is not None:
            self._status.stop()

    def part(self, name: str, seconds: float) -> None:
        """Say that a part is ready."""
        self._console.print(f"  {name:<14} ready after {seconds:5.1f} s", highlight=False)


def _announce(console: Console, settings: Settings, info: StackInfo) -> None:
    home = Home.of(settings)
    if info.boot_seconds is not None:
        console.print(f"Ready after {info.boot_seconds:.0f} s.", highlight=False)
    console.print(f"  Airflow   {info.airflow_url}", highlight=False)
    console.print(f"  MLflow    {info.mlflow_url}", highlight=False)
    # A password in a pipe would end up in somebody's log.
    shown = admin_password(home) if sys.stdout.isatty() else f"in {home.secrets / 'admin_password'}"
    console.print(f"  login     {ADMIN_USER}, password {escape(shown)}", highlight=False)
    console.print(f"  logs      {escape(str(home.logs))}", highlight=False)


def _log_to(path: Path) -> None:
    """Log to the supervisor's file; a foreground stack shows its warnings too."""
    to_file = logging.FileHandler(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handlers: list[logging.Handler] = [to_file]
    if not os.path.samestat(os.fstat(sys.stderr.fileno()), path.stat()):  # detached: stderr is that file
        to_terminal = logging.StreamHandler()
        to_terminal.setLevel(logging.WARNING)
        handlers.append(to_terminal)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)


def _coloured(word: str) -> str:
    return f"[{_COLOURS.get(word, 'red')}]{escape(word)}[/]"
