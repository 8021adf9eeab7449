"""What happened in the demo, read from ledgers, promotions and gate reports, and told to a person."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Column, Table

from windsock.days import parse_day, spans
from windsock.ledger import Ledger
from windsock.promotions import Promotion, history
from windsock.runs.run_folder import METRICS, RunFolder
from windsock.settings import Settings
from windsock.store import Store
from windsock_local.demo.plan import DemoPlan

_PHASES = {
    "stack": "start PostgreSQL, MLflow, Airflow",
    "dags": "read the DAGs",
    "backfill": "backfill the history",
    "train_first": "first model, to champion",
    "day_by_day": "day by day, retraining included",
    "retrain": "  of which the retraining",
    "docs": "build the Data Docs",
}


def collect_facts(settings: Settings, plan: DemoPlan) -> dict[str, Any]:
    """Gather the facts of a finished demo as plain JSON types."""
    spec = plan.spec
    stages = ("ingest", "features", "score", "monitor", "decisions")
    records = [list(Ledger.of(settings, spec.name, stage).all().values()) for stage in stages]
    ingest, features, scores, monitored, decisions = records
    rejected = {r.ds: list(r.detail.get("reasons", [])) for r in ingest if r.status == "rejected"}
    quarantined = {
        r.ds: {"rows": r.rows("quarantine"), "rules": dict(r.detail.get("quarantined", {}))}
        for r in ingest
        if r.rows("quarantine")
    }
    return {
        "model": spec.name,
        "source": spec.source.kind,
        "metric": spec.training.metric,
        "days": {
            "first": str(plan.spec.first_day),
            "last": max((r.ds for r in ingest), default=None),
            "ingested": sum(r.status in ("published", "empty") for r in ingest),
            "rejected": len(rejected),
            "with_features": sum(r.status == "published" for r in features),
            "scored": sum(r.status == "published" for r in scores),
            "monitored": len(monitored),
        },
        "rows": {
            "ingested": sum(r.rows("events") for r in ingest),
            "quarantined": sum(r.rows("quarantine") for r in ingest),
            "scored": sum(r.rows("predictions") for r in scores),
        },
        "planted": {str(day): kind for day, kind in plan.planted.items()},
        "rejected_days": rejected,
        "quarantined_days": quarantined,
        "warnings": {r.ds: list(r.detail["warnings"]) for r in ingest if r.detail.get("warnings")},
        "drift": {
            "injected_from": str(plan.drift_from) if plan.drift_from else None,
            "first_seen": min((r.ds for r in monitored if r.detail.get("drifted")), default=None),
            "quiet_days": sum(not r.detail.get("drifted") and r.status == "published" for r in monitored),
            "decisions": [
                {"ds": r.ds, "action": r.detail.get("action"), "reasons": list(r.detail.get("reasons", []))}
                for r in decisions
            ],
        },
        "versions": [_version_facts(Store.of(settings), spec.name, p) for p in history(settings, spec)],
    }


def _version_facts(store: Store, model: str, promotion: Promotion) -> dict[str, Any]:
    judged = RunFolder.named(store, model, promotion.run).judged
    gate = judged.read_json("gate.json") if judged.exists("gate.json") else None
    return {**promotion.to_json(), "metrics": judged.read_json(METRICS)["holdout"], "gate": gate}


def print_report(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the summary of a finished demo, of what :func:`collect_facts` gathered, with ``seconds`` and ``links``."""
    days, rows, seconds = facts["days"], facts["rows"], facts["seconds"]
    summary = (
        f"[bold]{days['ingested']} days[/bold] and [bold]{rows['ingested']:,} transactions[/bold] went in, "
        f"{days['scored']} days were scored, {len(facts['versions'])} model versions became champion, "
        f"in [bold]{seconds['total'] / 60:.1f} minutes[/bold]."
    )
    console.print()
    console.print(Panel(summary, title="Windsock demo", border_style="cyan"))
    if caught := list(_caught(facts)):
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


def _table(title: str, names: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    columns = [Column(name, overflow="fold") for name in names]
    table = Table(*columns, title=title, title_justify="left", title_style="bold", show_header=any(names))
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
