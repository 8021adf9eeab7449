"""``windsock up``, ``down``, ``status`` and ``doctor``."""

import dataclasses
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
from windsock.listing import AREAS, disk_use
from windsock.redact import redact, redact_line
from windsock.settings import Settings
from windsock.spec import find_specs
from windsock.store import Store
from windsock_local.stack import health, lifecycle
from windsock_local.stack.doctor import examine
from windsock_local.stack.home import ADMIN_USER, Home, StackInfo, read_stack

log = logging.getLogger(__name__)

_COLOURS = {"ok": "green", "healthy": "green", "starting": "yellow", "warning": "yellow"}


def _settings(_context: click.Context, _option: click.Parameter, home: Path | None) -> Settings:
    # Who names a folder means the stack in it, not the Airflow of an address.
    named = {"WINDSOCK_HOME": str(home), "WINDSOCK_AIRFLOW_URL": ""}
    return Settings.from_env({**os.environ, **named} if home else None)


home_option = click.option(
    "--home",
    "settings",
    type=click.Path(path_type=Path, file_okay=False),
    callback=_settings,
    help="Folder of the stack's state. [default: $WINDSOCK_HOME, else var/ in the repository]",
)
"""Gives a command the settings, with the home that the user named."""
_json_option = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


@click.command()
@home_option
@click.option("--detach", "-d", is_flag=True, help="Return when it is ready and leave it running.")
@click.option("--port", type=click.IntRange(1, 65535), help="Airflow's port. [default: 8080, or any free one]")
@click.option("--mlflow-port", type=click.IntRange(1, 65535), help="MLflow's port. [default: 5000, or any free one]")
def up(settings: Settings, detach: bool, port: int | None, mlflow_port: int | None) -> None:
    """Start PostgreSQL, MLflow and Airflow on this machine, for this machine only.

    Ctrl-C stops everything. If it runs already, this only says where.
    """
    console = Console(soft_wrap=True)

    def show_part(name: str, seconds: float) -> None:
        console.print(f"  {name:<14} ready after {seconds:5.1f} s", highlight=False)

    if (running := read_stack(settings)) is not None and running.ready:
        _show_addresses(console, running, "It runs already.")
        return
    if detach:
        ports = {"--port": port, "--mlflow-port": mlflow_port}
        options = [word for name, value in ports.items() if value for word in (name, str(value))]
        with console.status("Starting"):
            process = lifecycle.start_detached(settings, *options)
            info = lifecycle.wait_until_ready(settings, process, show_part)
        _show_addresses(console, info)
        return
    home = Home.of(settings)
    home.create()
    _log_to(home.supervisor_log)
    try:
        with lifecycle.prepared_stack(settings, show_part, airflow_port=port, mlflow_port=mlflow_port) as stack:
            if stack is None:  # it runs already, perhaps only just
                _show_addresses(console, lifecycle.wait_until_ready(settings), "It runs already.")
                return
            urls = f"Airflow at {stack.info.airflow_url}, MLflow at {stack.info.mlflow_url}"
            console.print(f"Starting in {escape(stack.info.home)}: {urls}")
            # Only an animation thread: it starts no process, so no child dies with it. Without a terminal it is mute.
            with console.status("Starting"):
                booted = stack.boot()
            if booted:
                _show_addresses(console, stack.info)
                console.print("Ctrl-C stops it.")
                stack.watch()
        console.print("Stopped.")
    except WindsockError as err:
        log.error("%s", err)  # for whoever looks at the log of a detached stack
        raise


def _show_addresses(console: Console, info: StackInfo, remark: str = "") -> None:
    home = Home(Path(info.home))
    # A password in a pipe would end up in somebody's log.
    password = home.admin_password() if sys.stdout.isatty() else f"in {home.secrets / 'admin_password'}"
    if remark:
        console.print(remark)
    if info.boot_seconds is not None:
        console.print(f"Ready after {info.boot_seconds:.0f} s.", highlight=False)
    for name, value in (
        ("Airflow", info.airflow_url),
        ("MLflow", info.mlflow_url),
        ("login", f"{ADMIN_USER}, password {password}"),
        ("logs", str(home.logs)),
    ):
        console.print(f"  {name:<9} {escape(value)}", highlight=False)


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


@click.command()
@home_option
@click.option("--wipe", is_flag=True, help="Also remove its state: database, tables, models, logs, secrets.")
def down(settings: Settings, wipe: bool) -> None:
    """Stop the stack, or what is left of a killed one."""
    click.echo("Stopped." if lifecycle.stop_stack(settings) else "Nothing was running.")
    if wipe:
        left = lifecycle.wipe(settings)
        click.echo(f"Removed the state in {settings.home}.")
        if left:
            click.echo(f"Left there, as it is a backup or not Windsock's: {', '.join(path.name for path in left)}")


@click.command()
@home_option
@_json_option
def status(settings: Settings, as_json: bool) -> int:
    """Show each part of the stack or installation, each model's days and size; exit code 1 unless all are well."""
    state = health.check(settings)
    use, fault = _disk_use(settings)
    from windsock_local.cli.days import read_days, show_days  # brings DuckDB, which `up` shall not hold

    days, dags = read_days(settings)
    if as_json:
        content = {**dataclasses.asdict(state), "disk_use": use, "disk_fault": fault}
        content["days"] = {each.model: each.to_json() for each in days}
        content["dags"] = {name: dataclasses.asdict(dag) for name, dag in dags.items()}
        click.echo(json.dumps(content, indent=1, default=str))
    elif not state.running:
        click.echo(state.fault)
    else:
        which = f"Airflow at {state.airflow_url}" if settings.airflow_url else f"Stack in {state.home}"
        table = Table("part", "health", "pid", "up", "address", title=f"{escape(which)}: {state.state}")
        table.columns[-1].overflow = "fold"
        for part in state.parts:
            up_for = "" if part.up_seconds is None else f"{part.up_seconds:.0f} s"
            table.add_row(part.name, _coloured(part.health), str(part.pid or ""), up_for, part.address)
        Console().print(table)
        if not settings.airflow_url:
            click.echo(f"Logs: {state.home}/logs, one file per part")
    if not as_json:
        show_days(days, dags)
    if use and not as_json:
        place = escape(redact(settings.store))
        sizes = Table("model", *AREAS, "all", title=f"Megabytes in {place}", title_justify="left")
        for model, areas in use.items():
            sizes.add_row(escape(model), *(f"{size / 1e6:,.1f}" for size in (*areas.values(), sum(areas.values()))))
        Console().print(sizes)
    if fault and not as_json:
        click.echo(f"What the models take of the disk is not known: {fault}", err=True)
    return 0 if state.healthy else 1


def _disk_use(settings: Settings) -> tuple[dict[str, dict[str, int]], str]:
    """Return model to bytes by area, and why that is not known, if so."""
    try:
        return disk_use(Store.of(settings), sorted(find_specs(settings.models))), ""
    except WindsockError as err:
        return {}, str(err)
    except Exception as err:  # every kind of store has errors of its own
        return {}, f"{type(err).__name__}: {redact_line(err)}"


@click.command()
@home_option
@_json_option
def doctor(settings: Settings, as_json: bool) -> int:
    """Check this machine, the installation and the specs; exit code 1 on a problem."""
    checks = examine(settings)
    if as_json:
        click.echo(json.dumps([vars(check) for check in checks], indent=1))
    else:
        table = Table("check", "", "found", "next step")
        for check in checks:
            table.add_row(check.name, _coloured(check.verdict), escape(check.finding), escape(check.next_step))
        Console().print(table)
    return 1 if any(check.verdict == "problem" for check in checks) else 0


def _coloured(word: str) -> str:
    return f"[{_COLOURS.get(word, 'red')}]{escape(word)}[/]"
