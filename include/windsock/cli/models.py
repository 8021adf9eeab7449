"""``windsock lint``, ``models`` and ``reproduce``: what is declared, what has become of it, and is it so again?"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from windsock import promotions
from windsock.days import utc_now
from windsock.errors import SpecError
from windsock.ledger import Ledger
from windsock.lint import lint_model, specs_below
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec, load_specs
from windsock.spec.reference import markdown
from windsock.upkeep.overview import days_of_model, lines_about_days
from windsock.version_index import list_versions, version_info

_STAGES = ("ingest", "features", "score", "monitor")
_OF_CHAMPION = ("version", "run", "in_force_from", "as_of", "kind", "reason", "by")


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--model", "-m", help="Check this model only.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--data", is_flag=True, help="Also try the newest delivery at the source, and every view on a day.")
@click.option("--reference", is_flag=True, help="Check nothing; print every field of model.yaml as Markdown.")
def lint(path: Path | None, model: str | None, as_json: bool, data: bool, reference: bool) -> None:
    """Check model specs: fields, files, SQL, features, parameters.

    PATH is a model.yaml, a model's folder or a folder of models; without it, every model of
    this installation is checked. Every fault is listed. Exit code 64 if there is one.
    """
    if reference:
        click.echo(markdown(), nl=False)
        return
    settings = Settings.from_env()
    specs = sorted(specs_below(settings, path, model).items())
    checked = [lint_model(name, file, settings if data else None) for name, file in specs]
    if as_json:
        click.echo(json.dumps([asdict(found) for found in checked], indent=1, default=str))
    else:
        console = Console(soft_wrap=True)
        for found in checked:
            count = len(found.faults)
            verdict = "[green]ok[/]" if not count else f"[red]{count} fault{'s' if count > 1 else ''}[/]"
            console.print(f"{escape(found.model)}: {verdict}  [dim]{escape(str(found.path))}[/]")
            for fault in found.faults:
                console.print(f"  [red]✗[/] {escape(fault)}")
            for warning in found.warnings:
                console.print(f"  [yellow]![/] {escape(warning)}")
            if not count:
                console.print(f"  [dim]{escape(found.note)}[/]")
    if any(found.faults for found in checked):
        raise click.exceptions.Exit(64)


@click.command()
@click.option("--model", "-m", help="Show this model only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(model: str | None, as_json: bool) -> None:
    """Show every model: champion, challenger, last days."""
    settings = Settings.from_env()
    specs, faults = load_specs(settings)
    if not specs and not faults:
        specs_below(settings)  # raises: there is no model, and where it would be
    if model is not None:
        specs = {model: get_spec(settings, model)}
    rows = [_overview(settings, specs[name]) for name in sorted(specs)]
    broken = {name: str(err) for name, err in faults.items()}
    if as_json:
        click.echo(json.dumps({"models": rows, "broken": broken}, indent=1))
        return
    _print_models(rows)
    for name in sorted(row["model"] for row in rows):
        for line in lines_about_days(days_of_model(settings, specs[name], utc_now())):
            Console(soft_wrap=True).print(escape(line), highlight=False)
    console = Console(stderr=True)
    for name, why in broken.items():
        console.print(f"[red]{escape(name)}[/] has a broken spec: {escape(why.splitlines()[0])} Run 'windsock lint'.")


@click.command()
@click.option("--model", required=True, help="Model name.")
@click.option("--version", help="Registered version; default: the champion.")
@click.option("--run", help="Run folder's name, instead of a version.")
def reproduce(model: str, version: str | None, run: str | None) -> int:
    """Train a registered version again from its pins and compare, byte for byte.

    Ends with 0 if training set and model text are the same, with 1 if not.
    """
    from windsock.reproduce import reproduce as train_again  # brings the learners

    settings = Settings.from_env()
    spec = get_spec(settings, model)
    if version is not None and run is not None:
        raise SpecError("Give --version or --run, not both.")
    if version is not None:
        run = version_info(settings, spec, version).run
    elif run is None:
        champion = promotions.current(settings, spec)
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


@click.command()
@click.option("--model", "-m", help="Look at this model only.")
def canary(model: str | None) -> int:
    """Compute one published day of each living definition again, and compare it byte for byte.

    Run it before a new version of Windsock or DuckDB goes into production. Nothing is written. Ends with 0 if all are
    equal, with 65 if one is not.
    """
    from windsock.features.canary import recompute

    settings = Settings.from_env()
    specs = {model: get_spec(settings, model)} if model is not None else load_specs(settings)[0]
    differing = 0
    for name, spec in sorted(specs.items()):
        for each in recompute(settings, spec):
            verdict = "equal" if each.equal else "differs"
            what = f"{each.day}, {each.rows} rows: {verdict}" if each.day is not None else "no day to compare with yet"
            click.echo(f"{name}: {each.table}: {what}")
            differing += not each.equal
    if differing:
        click.echo(
            f"{differing} of them would get other rows than they have. Keep the version that computed them, or report "
            "this: a release that changes what equal SQL computes must give every definition a new name.",
            err=True,
        )
    return 65 if differing else 0


def _overview(settings: Settings, spec: ModelSpec) -> dict[str, Any]:
    """Return what the store alone says of a model: no server is asked, so it works while all are down."""
    entries, versions = promotions.history(settings, spec), list_versions(settings, spec)
    newest = versions[-1] if versions else None
    champion = None
    if entries:
        content = entries[-1].to_json()
        metrics = dict(version_info(settings, spec, entries[-1].version).metrics)
        champion = {**{name: content[name] for name in _OF_CHAMPION}, "metrics": metrics}
    days = {stage: Ledger.of(settings, spec.name, stage).days() for stage in _STAGES}
    return {
        "model": spec.name,
        "owner": spec.owner,
        "description": spec.description,
        "task": spec.label.task,
        "champion": champion,
        "challenger": newest if newest not in {p.version for p in entries} else None,
        "versions": len(versions),
        "promotions": len(entries),
        "days": days_of_model(settings, spec, utc_now()).to_json(),
        "last_days": {stage: found[-1].isoformat() if found else None for stage, found in days.items()},
    }


def _print_models(rows: list[dict[str, Any]]) -> None:
    names = ("model", "owner", "champion", "since", "challenger", "ingested", "scored", "all")
    table = Table(*(Column(name, overflow="fold") for name in names), box=None, pad_edge=False, header_style="bold")
    for row in rows:
        champion = row["champion"] or {}
        cells = (
            row["model"],
            row["owner"],
            champion.get("version"),
            champion.get("in_force_from"),
            row["challenger"],
            row["last_days"].get("ingest"),
            row["last_days"].get("score"),
            str(row["versions"]),
        )
        table.add_row(*(escape(str(c)) if c is not None else "–" for c in cells))
    Console().print(table)
