"""Commands around training: ``windsock reproduce``."""

import click

from windsock.errors import SpecError
from windsock.promotions import current
from windsock.registry.versions import version_info
from windsock.reproduce import reproduce as train_again
from windsock.settings import Settings
from windsock.spec import get_spec


@click.command()
@click.option("--model", required=True, help="Model name.")
@click.option("--version", "version", help="Registered version; default: the champion.")
@click.option("--run", "run", help="Run folder's name, instead of a version.")
def reproduce(model: str, version: str | None, run: str | None) -> int:
    """Train a registered version again from its pins and compare, byte for byte.

    Ends with 0 if training set and model text are the same, with 1 if not.
    """
    settings = Settings.from_env()
    spec = get_spec(settings, model)
    if version is not None and run is not None:
        raise SpecError("Give --version or --run, not both.")
    if version is not None:
        run = version_info(settings, spec, version).run
    elif run is None:
        champion = current(settings, spec)
        if champion is None:
            raise SpecError(f"Model {model!r} has no champion yet. Name a version with --version or a run with --run.")
        run = champion.run
    click.echo(f"{model}: training run {run} again ...")
    made = train_again(settings, model, run)
    for name, (then, now) in made.files.items():
        verdict = "equal" if then == now else f"differs: was {then[:12]}, is"
        click.echo(f"  {name:<18} {verdict} {now[:12]}")
    for name, (then, now) in made.differing.items():
        click.echo(f"  {name} was {then}, is {now}")
    if made.equal:
        click.echo("The model is the same, byte for byte.")
        return 0
    hint = "Install the versions of then" if made.differing else "The code of the trainer has changed"
    click.echo(f"The model is not the same. {hint}, and run this again.", err=True)
    return 1
