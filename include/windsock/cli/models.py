"""``windsock lint`` and ``windsock models``: what is declared, and what has become of it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from windsock.lint import CheckedModel, lint_model, specs_below
from windsock.registry.overview import overview
from windsock.settings import Settings
from windsock.spec.reference import markdown


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--model", "-m", "model", help="Check this model only.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--reference", is_flag=True, help="Check nothing; print every field of model.yaml as Markdown.")
def lint(path: Path | None, model: str | None, as_json: bool, reference: bool) -> None:
    """Check model specs: fields, files, SQL, features, parameters.

    PATH is a model.yaml, a model's folder or a folder of models; without it, every model of
    this installation is checked. Every fault is listed. Exit code 64 if there is one.
    """
    if reference:
        click.echo(markdown(), nl=False)
        return
    settings = Settings.from_env()
    checked = [lint_model(name, file) for name, file in sorted(specs_below(settings, path, model).items())]
    if as_json:
        click.echo(json.dumps([asdict(found) for found in checked], indent=1, default=str))
    else:
        _print_faults(checked)
    if any(found.faults for found in checked):
        raise click.exceptions.Exit(64)


@click.command()
@click.option("--model", "-m", "model", help="Show this model only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(model: str | None, as_json: bool) -> None:
    """Show every model: champion, challenger, last days."""
    settings = Settings.from_env()
    rows, broken = overview(settings, model)
    if as_json:
        click.echo(json.dumps({"models": rows, "broken": broken}, indent=1))
        return
    _print_models(rows)
    console = Console(stderr=True)
    for name, why in broken.items():
        console.print(f"[red]{escape(name)}[/] has a broken spec: {escape(why.splitlines()[0])} Run 'windsock lint'.")


def _print_faults(checked: list[CheckedModel]) -> None:
    console = Console(soft_wrap=True)
    for found in checked:
        count = len(found.faults)
        verdict = "[green]ok[/]" if not count else f"[red]{count} fault{'s' if count > 1 else ''}[/]"
        console.print(f"{escape(found.model)}: {verdict}  [dim]{escape(str(found.path))}[/]")
        for fault in found.faults:
            console.print(f"  [red]✗[/] {escape(fault)}")
        if not count:
            console.print(f"  [dim]{escape(found.note)}[/]")


def _print_models(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "owner", "champion", "since", "challenger", "ingested", "scored", "all"):
        table.add_column(column, overflow="fold")
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
