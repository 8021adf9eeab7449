"""``windsock plan``: what an edit of a model means, before it is merged."""

import click

from windsock.plan.base import CHAMPION, revision
from windsock.plan.change import worst
from windsock.plan.compare import Looks, models_of, plan_model
from windsock.plan.report import as_json, as_markdown, as_text
from windsock.settings import Settings
from windsock.spec import find_specs

_FORMATS = {"text": as_text, "markdown": as_markdown, "json": as_json}


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--against",
    metavar="REV",
    help="Compare with a commit, branch or tag, or with 'champion'; default: HEAD, where git is, else the champion.",
)
@click.option("--values", is_flag=True, help="Also compute the newest full day as it was and as it is, and compare.")
@click.option("--suite", is_flag=True, help="Also judge the last 14 raw days by the rules as they are.")
@click.option("--probe", type=click.IntRange(1), metavar="N", help="Also compare N published days with the source.")
@click.option("--format", "form", type=click.Choice(list(_FORMATS)), default="text", help="How to print it.")
@click.option("--json", "as_json_too", is_flag=True, help="The same as --format json.")
def plan(
    models: tuple[str, ...],
    against: str | None,
    values: bool,
    suite: bool,
    probe: int | None,
    form: str,
    as_json_too: bool,
) -> None:
    """Say what an edit of a model means: what is computed, for whom, when it counts, what is refused.

    It reads specs, git and the store, and writes nothing. Exit code 0: nothing follows; 2: something
    does; 64: something is refused.
    """
    settings = Settings.from_env()
    specs = find_specs(settings.models)
    with revision(settings.models, against) as was:
        plans = [
            plan_model(
                settings,
                name,
                specs.get(name),
                was,
                named=against not in (None, CHAMPION),
                looks=Looks(values, suite, probe or 0),
            )
            for name in models_of(specs, was, models)
        ]
    click.echo(_FORMATS["json" if as_json_too else form](plans), nl=False)
    if code := worst(plans):
        raise click.exceptions.Exit(code)
