"""``windsock alerts``: what people were told, or would have been without Slack."""

import json
from datetime import datetime

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from windsock.alert_table import table_of_alerts
from windsock.settings import Settings

_STYLES = {"error": "red", "warning": "yellow", "info": "blue"}


@click.command()
@click.option("--days", type=click.IntRange(1, 90), default=14, show_default=True, help="How far back.")
@click.option("--open", "only_open", is_flag=True, help="Only what is not over.")
@click.option("-m", "--model", help="Only of this model.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, whole sentences.")
def alerts(days: int, only_open: bool, model: str | None, as_json: bool) -> None:
    """List what was reported: since when, how often, and whether it is over."""
    rows = table_of_alerts(Settings.from_env(), days)
    rows = [r for r in rows if (not only_open or r.state == "open") and model in (None, r.first.model)]
    if as_json:
        click.echo(json.dumps([row.to_json() for row in rows], indent=1, ensure_ascii=False))
        return
    if not rows:
        click.echo(f"Nothing was reported in the last {days} days{' that is not over' if only_open else ''}.")
        return
    table = Table("last (UTC)", "", "state", "what", "of", "")
    for row in rows:
        at = datetime.fromisoformat(row.last.at)
        state = row.state + (", not sent yet" if row.waiting else "")
        where = " ".join(filter(None, (row.first.dag_id, row.last.day)))
        style, times = _STYLES[row.first.severity], f" ({row.count}×)" if row.count > 1 else ""
        sentence = row.last.sentence.partition("\n")[0]
        table.add_row(
            f"{at:%Y-%m-%d %H:%M}",
            f"[{style}]{row.first.severity}[/]",
            state,
            escape(row.first.headline) + times,
            escape(where),
            escape(sentence if len(sentence) <= 160 else f"{sentence[:159]}…"),
        )
    Console().print(table)
