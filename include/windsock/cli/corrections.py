"""``windsock void`` and ``correct-promotion``: mistakes on record are taken back, with a reason that is kept."""

import getpass
from datetime import date

import click

from windsock.days import spans
from windsock.steps import run_step


def user_name() -> str:
    """Return the name of whoever is at the keyboard, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "manual"


_reason = click.option("--reason", required=True, help="Why; it is kept in the record.")
_by = click.option("--by", default=user_name, show_default="you", help="Who says so; it is kept in the record.")


@click.command()
@click.argument("model")
@click.argument("stage")
@click.argument("day")
@_reason
@_by
def void(model: str, stage: str, day: str, reason: str, by: str) -> None:
    """Take out what STAGE of MODEL has recorded for DAY (YYYY-MM-DD).

    STAGE is ingest, labels, features, score, monitor or decisions. The day then counts as not done: its rows are read
    by nobody, who needs them waits, and the next run of the stage records the day anew. Trainings that pinned it can
    still be rebuilt.
    """
    result = run_step("void", model=model, key=day, options={"stage": stage, "reason": reason, "by": by})
    for taken, record in result["voided"].items():
        click.echo(f"{model}: {taken} of {day} ({record['status']}, by {record['origin'] or 'unknown'}) is taken out.")
    for other, days in result["made_from_it"].items():
        click.echo(f"  made from it and out of date: {other} of {spans(map(date.fromisoformat, days))}")
    if result["made_from_it"]:
        again = f"They stay until {stage} of {day} is recorded again"
        click.echo(f"{again}; what should not be there at all is taken out in the same way.")
    if "score" in result["made_from_it"]:
        click.echo(
            "Predictions stay even then, as they were made; step score with the option rescore=true makes others."
        )
    if any(taken.startswith("features/") for taken in result["voided"]):
        click.echo(f"To take it out of the online store, too: windsock materialize {model} {day} --correct")


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
