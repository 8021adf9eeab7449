"""``windsock correct-promotion``: what was recorded by mistake is taken back, with a reason that is kept."""

import getpass

import click

from windsock.steps import run_step


def _user() -> str:
    """Return the name of whoever is at the keyboard, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "manual"


_reason = click.option("--reason", required=True, help="Why; it is kept in the record.")
_by = click.option("--by", default=_user, show_default="you", help="Who says so; it is kept in the record.")


@click.command("correct-promotion")
@click.argument("model")
@_reason
@_by
def correct_promotion(model: str, reason: str, by: str) -> None:
    """Put the champion of MODEL in force from the first day that nobody has scored.

    For a promotion or rollback that took force too late, because a day was recorded by mistake. Days that are scored
    keep their champion; the log of promotions keeps what stood there.
    """
    made = run_step("correct", model=model, options={"reason": reason, "by": by})
    click.echo(
        f"{model}: version {made['version']} is in force from {made['in_force_from']} on, instead of "
        f"{made['instead_of']}. Days since then that were left without a score get one by {model}_score."
    )
