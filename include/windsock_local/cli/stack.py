"""``windsock up``, ``down``, ``status`` and ``doctor``."""

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
    boot = _Boot(settings)
    if (running := read_stack(settings)) is not None and running.ready:
        boot.found(running)
    elif detach:
        ports = {"--port": port, "--mlflow-port": mlflow_port}
        options = [word for name, value in ports.items() if value for word in (name, str(value))]
        with boot.status:
            info = lifecycle.wait_until_ready(settings, lifecycle.start_detached(settings, *options), boot.part)
        boot.announce(info)
    else:
        layout = Home.of(settings)
        layout.create()
        _log_to(layout.log(SUPERVISOR))
        try:
            with boot.status:
                lifecycle.run_stack(settings, boot, airflow_port=port, mlflow_port=mlflow_port)
        except lifecycle.AlreadyRunning as err:
            boot.found(err.info)
        except WindsockError as err:
            log.error("%s", err)  # for whoever looks at the log of a detached stack
            raise
        else:
            boot.console.print("Stopped.")


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


class _Boot:
    """Tells how a boot goes: one line per part as it becomes ready; a spinner beside it in a terminal."""

    def __init__(self, settings: Settings) -> None:
        self.console = Console(soft_wrap=True)
        # Only an animation thread: it starts no process, so no child dies with it. Without a terminal it is mute.
        self.status = self.console.status("Starting")
        self._home = Home.of(settings)

    def start(self, info: StackInfo, remarks: list[str]) -> None:
        """Say what is going to be started."""
        for remark in remarks:
            self.console.print(f"[yellow]{escape(remark)}[/]")
        self.console.print(
            f"Starting in {escape(info.home)}: Airflow at {info.airflow_url}, MLflow at {info.mlflow_url}"
        )

    def part(self, name: str, seconds: float) -> None:
        """Say that a part is ready."""
        self.console.print(f"  {name:<14} ready after {seconds:5.1f} s", highlight=False)

    def ready(self, info: StackInfo) -> None:
        """Say that everything is."""
        self.status.stop()
        self.announce(info)
        self.console.print("Ctrl-C stops it.")

    def found(self, info: StackInfo) -> None:
        """Say that there was nothing to start."""
        self.console.print("It runs already.")
        self.announce(info)

    def announce(self, info: StackInfo) -> None:
        """Say where everything is."""
        # A password in a pipe would end up in somebody's log.
        password = admin_password(self._home) if sys.stdout.isatty() else f"in {self._home.secrets / 'admin_password'}"
        if info.boot_seconds is not None:
            self.console.print(f"Ready after {info.boot_seconds:.0f} s.", highlight=False)
        for name, value in (
            ("Airflow", info.airflow_url),
            ("MLflow", info.mlflow_url),
            ("login", f"{ADMIN_USER}, password {password}"),
            ("logs", str(self._home.logs)),
        ):
            self.console.print(f"  {name:<9} {escape(value)}", highlight=False)


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
