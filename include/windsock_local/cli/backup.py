"""``windsock backup`` and ``windsock restore``."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import Progress, TaskID

from windsock.backup.target import Manifest, Target
from windsock.redact import redact
from windsock.settings import Settings
from windsock_local.cli.stack import home_option
from windsock_local.stack import backup as backups
from windsock_local.stack.home import Home
from windsock_local.stack.upgrade import to_do

_ELSEWHERE = (
    "Not in it: the databases of Airflow and MLflow, MLflow's artifacts and the secrets, which lie outside this home. "
    'Take them now, after this command; how to, line by line: docs/runbook.md, "Backups".'
)


@contextmanager
def shown() -> Iterator[backups.Tick]:
    """Show progress in a terminal; nobody else may read what is written meanwhile."""
    before = os.umask(0o077)
    try:
        with Progress(console=Console(stderr=True), transient=True) as bars:
            known: dict[str, TaskID] = {}

            def tick(what: str, done: int, of: int) -> None:
                if what not in known:
                    known[what] = bars.add_task(what)
                bars.update(known[what], completed=done, total=of)

            yield tick
    finally:
        os.umask(before)


@click.command()
@home_option
@click.argument("target")
def backup(settings: Settings, target: str) -> None:
    """Back up this installation to TARGET, a folder or a URL such as s3://bucket/backups.

    Days may run meanwhile. TARGET keeps every backup; what has not changed since an earlier one is not copied again.
    """
    place = Target(target)
    with shown() as tick:
        made = backups.back_up(settings, place, tick)
    click.echo(
        f"Backup {made.made_at} in {place}: {len(made.files)} files, {made.bytes / 1e6:,.1f} MB, of which "
        f"{place.brought / 1e6:,.1f} MB are new."
    )
    if backups.is_embedded(Home.of(settings)):
        click.echo(
            "It holds secrets: passwords, and the key that decrypts Airflow's connections. Let nobody else read it."
        )
    else:
        click.echo(_ELSEWHERE)
    click.echo("Not in it: logs, and models that lie outside the home, which git keeps.")
    click.echo(f"To restore it: {restore_line(made, place)}")


def restore_line(made: Manifest, place: Target) -> str:
    """Return the command that restores a backup where it came from, once that is moved away."""
    return f"WINDSOCK_STORE={made.store} windsock restore {place} --backup {made.made_at} --home {made.home}"


@click.command()
@home_option
@click.argument("target")
@click.option("--backup", "name", help="Which one. [default: the newest]")
@click.option("--only", type=click.Choice(["store", "home"]), help="This part alone; home: databases and secrets, too.")
@click.option("--list", "only_list", is_flag=True, help="Only list the backups that are there.")
def restore(settings: Settings, target: str, name: str | None, only: str | None, only_list: bool) -> None:
    """Restore a backup of TARGET to the home and the store of the settings, in which nothing may lie.

    Each file's hash is compared. One that was cut off is refused by every command until it has been run again.
    """
    place = Target(target)
    if only_list:
        for each in place.names():
            made = place.manifest(each)
            click.echo(f"{each}  {made.bytes / 1e6:10,.1f} MB  Windsock {made.windsock}  {made.store}")
        return
    made = place.manifest(name)
    with shown() as tick:
        backups.restore(settings, place, made, only, tick)
    parts = {None: f"{settings.store} and {settings.home}", "store": settings.store, "home": str(settings.home)}
    click.echo(f"Restored backup {made.made_at} to {redact(parts[only])}.")
    if to_do(settings):
        click.echo(
            f"It is of an earlier version. Left to do: `windsock upgrade`, or go on with Windsock {made.windsock}."
        )
    elif only == "store" or (only is None and not made.at_rest):
        for line in backups.refill(settings):
            click.echo(f"Left to do: {line}")
    if not made.part(backups.DUMPS) and only != "store":
        click.echo('It holds no databases: restore those by docs/runbook.md, "Backups".')
