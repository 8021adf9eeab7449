"""``windsock apply`` and ``windsock materialize``: the feature store by hand."""

import click

from windsock.featurestore.definitions import apply as apply_definitions
from windsock.settings import Settings
from windsock.steps import run_step


@click.command()
def apply() -> None:
    """Register every model's entities, feature views and service in the feature store."""
    done = apply_definitions(Settings.from_env())
    state = "registered" if done.changed else "already registered, nothing changed"
    click.echo(f"{', '.join(done.models) or 'no model'}: {state}")
    for name, why in done.broken.items():
        click.secho(f"{name}: left as it was: {why}", fg="red", err=True)


@click.command()
@click.argument("model")
@click.argument("day")
@click.option("--correct", is_flag=True, help="Also overwrite newer rows: make online equal to the tables.")
def materialize(model: str, day: str, correct: bool) -> None:
    """Write the features of MODEL of DAY (YYYY-MM-DD) to the online store and check them."""
    result = run_step("materialize", model=model, key=day, options={"correct": correct})
    for view, counts in result["views"].items():
        click.echo(f"{view}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    click.echo(f"parity: {result['parity']['checked']} entities checked, all equal")
