"""Telling what happened, to a person who has just watched the bars."""

from collections.abc import Iterable, Mapping
from itertools import groupby
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


def print_report(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the summary of a finished demo.

    Args:
        console: Where to.
        facts: What :func:`windsock_local.demo.facts.collect` gathered, with ``seconds`` and ``links`` added.
    """
    days, rows, seconds = facts["days"], facts["rows"], facts["seconds"]
    summary = (
        f"[bold]{days['ingested']} days[/bold] and [bold]{rows['ingested']:,} transactions[/bold] went in, "
        f"{days['scored']} days were scored, {len(facts['versions'])} model versions became champion, "
        f"in [bold]{seconds['total'] / 60:.1f} minutes[/bold]."
    )
    console.print()
    console.print(Panel(summary, title="Windsock demo", border_style="cyan"))
    caught = list(_caught(facts))
    if caught:
        console.print(_table("What was caught", ("day", "outcome", "why"), caught))
    else:
        console.print("Nothing had to be rejected, set aside or warned about.")
    metric = facts["metric"]
    columns = ("version", "trained as of", "scores from", metric.replace("_", " "), "champion before", "gate")
    console.print(_table("Champions", columns, (_version(version, metric) for version in facts["versions"])))
    _drift(console, facts["drift"])
    console.print(_table("How long it took", ("", "", ""), _durations(seconds)))
    console.print("[bold]Where to look[/bold]")
    for name, address in facts["links"].items():
        console.print(f"  {name:<22} {escape(str(address))}", highlight=False, soft_wrap=True)
    console.print()


def _table(title: str, columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    names = list(columns)
    table = Table(title=title, title_justify="left", title_style="bold", show_header=any(names))
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _caught(facts: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    for ds, reasons in facts["rejected_days"].items():
        yield ds, "[red]file rejected[/red]", escape(" ".join(reasons))
    for ds, found in facts["quarantined_days"].items():
        why = "; ".join(f"{n} × {rule}" for rule, n in found["rules"].items())
        yield ds, f"[yellow]{found['rows']:,} rows quarantined[/yellow]", escape(why)
    warnings = {ds: words for ds, words in facts["warnings"].items() if ds not in facts["quarantined_days"]}
    if warnings:
        example = next(iter(warnings.values()))[0]
        days = spans(parse_day(ds) for ds in warnings)
        yield days, f"warned about ({len(warnings)})", escape(f"for example: {example}")


def _version(version: Mapping[str, Any], metric: str) -> tuple[str, ...]:
    gate = version["gate"] or {}
    checks = gate.get("checks", [])
    before = (gate.get("bootstrap") or {}).get("reference")
    return (
        f"[green]{version['version']}[/green]",
        version["as_of"],
        version["in_force_from"],
        f"{version['metrics'][metric]:.3f}",
        f"{before:.3f} on the same rows" if before is not None else "–",
        f"{sum(c['passed'] for c in checks)} of {len(checks)} checks passed" if checks else version["kind"],
    )


def _durations(seconds: Mapping[str, float]) -> Iterable[tuple[str, str, str]]:
    for key, title in _PHASES.items():
        if key in seconds:
            bar = "█" * max(1, round(40 * seconds[key] / seconds["total"]))
            yield title, f"{seconds[key]:.0f} s", f"[cyan]{bar}[/cyan]"
    yield "in all", f"{seconds['total']:.0f} s", ""


def _drift(console: Console, drift: Mapping[str, Any]) -> None:
    if drift["injected_from"]:
        seen = f"seen on {drift['first_seen']}" if drift["first_seen"] else "[red]not seen[/red]"
        console.print(
            f"[bold]Drift[/bold]: amounts doubled from {drift['injected_from']} on; {seen}; "
            f"{drift['quiet_days']} monitored days without drift."
        )
    for action, decisions in groupby(drift["decisions"], key=lambda decision: decision["action"]):
        first = next(decisions)
        if action != "none":
            reasons = escape("; ".join(first["reasons"]))
            console.print(f"  {first['ds']}  [yellow]{action}[/yellow]  {reasons}", soft_wrap=True)
    console.print()
