"""``windsock upgrade``."""

import click

from windsock.errors import WindsockError
from windsock.settings import Settings
from windsock_local.cli.backup import shown
from windsock_local.cli.stack import home_option
from windsock_local.stack import upgrade as upgrades
from windsock_local.stack.backup import is_embedded
from windsock_local.stack.home import Home

_ELSEWHERE = (
    "The databases of Airflow and MLflow lie outside this home: they are migrated by their own parts when these start "
    "(docs/deploy.md)."
)


@click.command()
@home_option
@click.option("--check", "only_check", is_flag=True, help="Only say what would be done; exit code 1 if anything.")
@click.option("--backup", "target", metavar="TARGET", help="Where the backup goes. [default: backups/ in the home]")
@click.option("--no-backup", is_flag=True, help="Take none; there is no way back then.")
def upgrade(settings: Settings, only_check: bool, target: str | None, no_backup: bool) -> int:
    """Bring store, databases and home of an earlier version to this one, after a backup.

    The stack must be stopped. One that was cut off is refused by every command until this has been run again.
    """
    if no_backup and target is not None:
        raise click.UsageError("--backup and --no-backup contradict each other.")
    wanted = upgrades.to_do(settings)
    home = Home.of(settings)
    if not wanted:
        click.echo("Nothing to do: store, databases and home are of this version.")
        return 0
    for line in wanted.values():
        click.echo(f"{'To do: ' if only_check else ''}{line}")
    embedded = is_embedded(home)
    if not embedded:
        click.echo(_ELSEWHERE)
    if only_check:
        return 1
    with shown() as tick:
        if upgrades.is_begun(settings):
            click.echo("It was begun before, and goes on.")
            before = None
            try:
                before = upgrades.backup_of(settings)
            except WindsockError as err:  # it is needed for the way back alone
                click.echo(f"Its backup cannot be read just now: {err}", err=True)
        else:
            before = None if no_backup else upgrades.back_up_first(settings, target, tick)
        if before is not None:
            click.echo(f"Backup {before[0].made_at} in {before[1]}. The way back, also to the version from before:")
            for line in upgrades.way_back(*before):
                click.echo(f"  {line}")
        upgrades.upgrade(settings, before, tick)
    click.echo("Upgraded." + (" Start it with `windsock up`." if embedded else ""))
    return 0
