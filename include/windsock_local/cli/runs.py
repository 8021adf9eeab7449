"""``windsock backfill`` and ``windsock trigger``: runs through Airflow, as its UI would start them."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from typing import Any

import click

from windsock.cli.step import read_options
from windsock.days import parse_day, past_day, spans
from windsock.errors import NotReady, SpecError, WindsockError
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock_local.cli.stack import home_option
from windsock_local.stack.airflow_api import AirflowApi

_CHAIN = ("ingest", "features", "score")
_BACKFILLED = ("ingest", "monitor")


class RunFailed(WindsockError):
    """A run that was waited for did not succeed."""


@click.command()
@click.argument("model")
@click.option("--from", "first", required=True, metavar="DAY", help="First day, YYYY-MM-DD.")
@click.option("--to", "last", required=True, metavar="DAY", help="Last day, included.")
@click.option("--stage", type=click.Choice(_BACKFILLED), default="ingest", show_default=True, help="What to run.")
@click.option("--at-a-time", type=click.IntRange(1, 64), default=4, show_default=True, help="Runs at a time.")
@click.option(
    "--again",
    type=click.Choice(["none", "failed", "completed"]),
    default="none",
    show_default=True,
    help="Which days that have a run already to run again.",
)
@click.option("--wait", type=click.IntRange(1), metavar="SECONDS", help="Wait for the runs, at most so long.")
@home_option
def backfill(
    settings: Settings, model: str, first: str, last: str, stage: str, at_a_time: int, again: str, wait: int | None
) -> None:
    """Run a range of days of MODEL through Airflow.

    A backfill of ingest carries the days on through features and scores.
    """
    spec = get_spec(settings, model)
    begin, end = parse_day(first, what="--from"), parse_day(last, what="--to")
    if not spec.first_day <= begin <= end <= (spec.last_day or end):
        known = f"{spec.first_day} to {spec.last_day or 'now'}"
        raise SpecError(f"--from {begin} --to {end} is no range of days within those of model {model!r} ({known}).")
    with suppress(NotReady):  # today's run waits by itself
        past_day(end, what="--to")
    with AirflowApi.of(settings) as api:
        # A paused DAG would leave its runs queued, and drop the events that should start it.
        for each in _CHAIN if stage == "ingest" else (stage,):
            api.set_paused(f"{model}_{each}", False)
        dag_id = f"{model}_{stage}"
        before = api.newest_runs(dag_id, begin, end)
        number = api.backfill(dag_id, begin, end, at_a_time, reprocess=again)
        click.echo(f"Backfill {number} of {dag_id} has started: {api.url}/dags/{dag_id}/runs")
        _say_what_is_left_out(before, api.newest_runs(dag_id, begin, end))
        if wait is None:
            return
        runs = api.wait_for_days(dag_id, begin, end, wait)
    recorded = Ledger.of(settings, model, stage).between(begin, end)
    became = Counter(recorded[day].status if day in recorded else "without a record" for day in runs)
    click.echo(f"{len(runs)} days: " + ", ".join(f"{count} {status}" for status, count in sorted(became.items())))
    if failed := [day for day, run in runs.items() if run["state"] == "failed"]:
        count = f"{len(failed)} of {len(runs)} days"
        raise RunFailed(f"The newest run of {count} failed: {spans(failed)}. Its log says why.")
    if marked := [day for day in runs if day not in recorded]:
        raise RunFailed(
            f"{spans(marked)}: the newest run is a success, but nothing is recorded: what is marked as a success "
            "by hand does not run. Run these days with --again completed."
        )


def _say_what_is_left_out(before: Mapping[date, Mapping[str, Any]], now: Mapping[date, Mapping[str, Any]]) -> None:
    """Say which days have a run that the backfill did not begin again, by what became of that."""
    queued = {day: run["queued_at"] for day, run in before.items()}
    same = {day: run["state"] for day, run in now.items() if day in queued and queued[day] == run["queued_at"]}
    for state in sorted(set(same.values())):
        days = [day for day in same if same[day] == state]
        again = {"success": "--again completed", "failed": "--again failed"}.get(state)
        advice = f"{again} runs them again" if again else "they go on by themselves"
        click.echo(f"{len(days)} days are left out, as they have a run ({state}): {spans(days)}; {advice}")


@click.command()
@click.argument("dag_id", metavar="DAG")
@click.option("--key", "-k", help="The day, YYYY-MM-DD, for DAGs that run by day.")
@click.option("--conf", "-c", "pairs", multiple=True, metavar="NAME=VALUE", help="A field of the form; repeatable.")
@click.option("--wait", type=click.IntRange(1), metavar="SECONDS", help="Wait for the run, at most so long.")
@home_option
def trigger(settings: Settings, dag_id: str, key: str | None, pairs: tuple[str, ...], wait: int | None) -> None:
    """Start a run of DAG, for example fraud_train."""
    if key is not None:
        parse_day(key, what="--key")
    read_options(pairs)  # refused before a stack is looked for
    with AirflowApi.of(settings) as api:
        fields = api.form_fields(dag_id)
        conf = read_options(pairs, [name for name, is_text in fields.items() if is_text])
        for name in sorted(conf.keys() - fields.keys()):  # Airflow would take it, and no step would read it
            raise SpecError.unknown(f"field of the form of {dag_id}", name, fields)
        api.set_paused(dag_id, False)
        before = api.unanswered_run(dag_id)
        run_id = api.trigger(dag_id, key, conf)
        click.echo(f"{dag_id} runs as {run_id}: {api.url}/dags/{dag_id}/runs/{run_id}")
        if before is not None:
            answer = f"answer that first, under Required Actions: {api.url}/dags/{dag_id}/runs/{before}"
            click.echo(f"It stays queued while {before} waits for Approve or Reject; {answer}")
        if wait is None:
            return
        run = api.wait_for_run(dag_id, run_id, wait)
    click.echo(run["state"])
    if run["state"] != "success":
        raise RunFailed(f"{run_id} of {dag_id} ended as {run['state']}. Its log says why.")
