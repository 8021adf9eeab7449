"""Telling what happened, to a person who has just watched the bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from windsock.days import parse_day, spans

_PHASES = {
    "stack": "start PostgreSQL, MLflow, Airflow",
    "dags": "read the DAGs",
    "backfill": "backfill the history",
    "train_first": "first model, to champion",
    "day_by_day": "day by day, retraining included",
    "retrain": "  of which the retraining",
    "docs": "build the Data Docs",
}


def tell(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the summary of a finished demo.

    Args:
        console: Where to.
        facts: What :func:`windsock_local.demo.facts.collect` gathered, with ``seconds``, ``links`` and ``json`` added.
    """
    days, rows = facts["days"], facts["rows"]
    console.print()
    console.print(
        Panel(
            f"[bold]{days['ingested']} days[/bold] and [bold]{rows['ingested']:,} transactions[/bold] went in, "
            f"{days['scored']} days were scored, {len(facts['versions'])} model versions became champion, "
            f"in [bold]{facts['seconds']['total'] / 60:.1f} minutes[/bold].",
            title="Windsock demo",
            border_style="cyan",
        )
    )
    _caught(console, facts)
    _versions(console, facts)
    _drift(console, facts)
    _seconds(console, facts["seconds"])
    console.print("[bold]Where to look[/bold]")
    for name, address in facts["links"].items():
        console.print(f"  {name:<22} {escape(str(address))}", highlight=False, soft_wrap=True)
    console.print()


def _caught(console: Console, facts: Mapping[str, Any]) -> None:
    table = Table(title="What was caught", title_justify="left", title_style="bold", show_header=True, expand=False)
    table.add_column("day")
    table.add_column("outcome")
    table.add_column("why", overflow="fold")
    for ds, reasons in facts["rejected_days"].items():
        table.add_row(ds, "[red]file rejected[/red]", escape(" ".join(reasons)))
    for ds, found in facts["quarantined_days"].items():
        why = "; ".join(f"{n} × {rule}" for rule, n in found["rules"].items())
        table.add_row(ds, f"[yellow]{found['rows']:,} rows quarantined[/yellow]", escape(why))
    warnings = {ds: said for ds, said in facts["warnings"].items() if ds not in facts["quarantined_days"]}
    if warnings:
        warned = spans(parse_day(ds) for ds in warnings)
        example = next(iter(warnings.values()))[0]
        table.add_row(warned, f"warned about ({len(warnings)})", escape(f"for example: {example}"))
    if table.row_count:
        console.print(table)
    else:
        console.print("Nothing had to be rejected, set aside or warned about.")


def _versions(console: Console, facts: Mapping[str, Any]) -> None:
    metric = facts["metric"]
    table = Table(title="Champions", title_justify="left", title_style="bold")
    for column in ("version", "trained as of", "scores from", metric.replace("_", " "), "champion before", "gate"):
        table.add_column(column)
    for version in facts["versions"]:
        gate = version["gate"] or {}
        checks = gate.get("checks", [])
        before = (gate.get("bootstrap") or {}).get("reference")
        table.add_row(
            f"[green]{version['version']}[/green]",
            version["as_of"],
            version["in_force_from"],
            f"{version['metrics'][metric]:.3f}",
            f"{before:.3f} on the same rows" if before is not None else "–",
            f"{sum(c['passed'] for c in checks)} of {len(checks)} checks passed" if checks else version["kind"],
        )
    console.print(table)


def _drift(console: Console, facts: Mapping[str, Any]) -> None:
    drift = facts["drift"]
    if drift["injected_from"]:
        seen = f"seen on {drift['first_seen']}" if drift["first_seen"] else "[red]not seen[/red]"
        console.print(
            f"[bold]Drift[/bold]: amounts doubled from {drift['injected_from']} on; {seen}; "
            f"{drift['quiet_days']} monitored days without drift."
        )
    last = None
    for decision in drift["decisions"]:
        if decision["action"] != last and decision["action"] != "none":
            reasons = "; ".join(decision["reasons"])
            console.print(
                f"  {decision['ds']}  [yellow]{decision['action']}[/yellow]  {escape(reasons)}", soft_wrap=True
            )
        last = decision["action"]
    console.print()


def _seconds(console: Console, seconds: Mapping[str, float]) -> None:
    table = Table(title="How long it took", title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column("phase")
    table.add_column("seconds", justify="right")
    table.add_column("bar")
    for key, title in _PHASES.items():
        if key in seconds:
            bar = "█" * max(1, round(40 * seconds[key] / seconds["total"]))
            table.add_row(title, f"{seconds[key]:.0f} s", f"[cyan]{bar}[/cyan]")
    table.add_row("in all", f"{seconds['total']:.0f} s", "")
    console.print(table)
    console.print()
