"""How the days of each model stand, as ``windsock status`` shows it."""

from collections.abc import Mapping

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from windsock.days import utc_now
from windsock.settings import Settings
from windsock.spec import load_specs
from windsock.upkeep.overview import DaysOfModel, days_of_model, lines_about_days
from windsock.upkeep.stage_days import STAGES
from windsock_local.stack.day_checks import DagFacts, dag_facts


def read_days(settings: Settings) -> tuple[list[DaysOfModel], dict[str, DagFacts]]:
    """Return the days of each model, by the store, and what Airflow says of its DAGs."""
    specs = sorted(load_specs(settings)[0].items())
    return [days_of_model(settings, spec, utc_now()) for _, spec in specs], dag_facts(settings)


def show_days(days: list[DaysOfModel], dags: Mapping[str, DagFacts]) -> None:
    """Show the newest settled day of each stage, what is paused and runs next, and who waits for what."""
    if not days:
        return
    table = Table("model", *STAGES, "next run", title=f"Newest settled days; yesterday was {days[0].yesterday}")
    for each in days:
        cells = {found.stage: str(found.last or "–") for found in each.stages}
        ours = {stage: dags.get(f"{each.model}_{stage}") for stage in STAGES}
        cells |= {stage: f"{cells.get(stage, '–')} (paused)" for stage, dag in ours.items() if dag and dag.paused}
        due = min((dag.next_run for dag in ours.values() if dag and dag.next_run and not dag.paused), default=None)
        row = (cells.get(stage, "") for stage in STAGES)
        table.add_row(escape(each.model), *row, f"{due:%Y-%m-%d %H:%M}" if due else "–")
    Console().print(table)
    for line in (line for each in days for line in lines_about_days(each)):
        click.echo(line)
