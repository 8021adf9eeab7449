"""Runs of Airflow that will never go on by themselves: of cancelled backfills, and of DAGs that are gone."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from windsock.days import parse_day, spans, utc_now
from windsock.errors import SpecError, WindsockError
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import load_specs
from windsock.store import Store
from windsock_local.stack.airflow_api import AirflowApi
from windsock_local.stack.airflow_session import QUICKLY

ACTIVE = ("queued", "running")
_RECENT = timedelta(days=7)
"""Nobody prunes runs that are so new."""


def stuck_runs(settings: Settings) -> Iterator[tuple[str, str]]:
    """Ask Airflow; yield each finding with what to do about it, and nothing where none answers."""
    try:
        with AirflowApi.of(settings, **QUICKLY) as api:
            yield from _of_cancelled_backfills(api)
            yield from _of_lost_dags(api)
            yield from _of_a_lost_database(api, settings)
    except WindsockError:
        return


def _of_cancelled_backfills(api: AirflowApi) -> Iterator[tuple[str, str]]:
    """Airflow starts no run of a backfill that is paused, and one that was cancelled stays so for ever."""
    queued = defaultdict(list)
    for run in api.runs(state="queued", run_type="backfill"):
        queued[run["dag_id"]].append(run)
    for dag_id, runs in sorted(queued.items()):
        backfills = list(api.pages("backfills", "backfills", dag_id=dag_id))
        days = [run["partition_key"] for run in runs if _is_left_behind(run, backfills)]
        if days:
            yield (
                f"{dag_id}: runs of a cancelled backfill were cleared and stay queued for ever: {_written(days)}",
                f"delete them ({api.url}/dags/{dag_id}/runs?state=queued), then `windsock trigger {dag_id} --key DAY`",
            )


def _is_left_behind(run: Mapping[str, Any], backfills: list[dict[str, Any]]) -> bool:
    day = run["partition_key"] or run["run_after"][:10]
    of_day = [backfill for backfill in backfills if backfill["from_date"][:10] <= day <= backfill["to_date"][:10]]
    return bool(of_day) and all(b["is_paused"] and b["completed_at"] for b in of_day)


def _of_lost_dags(api: AirflowApi) -> Iterator[tuple[str, str]]:
    lost = {dag["dag_id"] for dag in api.pages("dags", "dags", exclude_stale=False) if dag["is_stale"]}
    if not lost:
        return
    active = [run for run in api.runs(state=ACTIVE) if run["dag_id"] in lost]
    for dag_id in sorted({run["dag_id"] for run in active}):
        days = [run["partition_key"] for run in active if run["dag_id"] == dag_id]
        yield (
            f"{dag_id}: {len(days)} runs wait, but its model was renamed or removed, or cannot be read: "
            f"{_written(days)}",
            f"`windsock lint`; put the model back, or delete the runs: {api.url}/dags/{dag_id}/runs",
        )


def _of_a_lost_database(api: AirflowApi, settings: Settings) -> Iterator[tuple[str, str]]:
    """Days of this week that a run of Airflow's has settled, and of which it knows nothing any more."""
    store, today = Store.of(settings), utc_now().date()
    for model in sorted(load_specs(settings)[0]):
        recent = list(Ledger.of(settings, model, "ingest").between(today - _RECENT, today))
        if recent and store.json_names(model, "started", "ingest"):  # not by `windsock step` alone
            dag_id = f"{model}_ingest"
            if not api.newest_runs(dag_id, recent[0], recent[-1]):
                yield (
                    f"{dag_id}: {spans(recent)} are settled, but {api.url} knows no run of these days: its database is "
                    "a new or an older one, or it is another Airflow",
                    "nothing that a run decided is lost, it stands in the store: unpause the DAGs, and restore the "
                    "database if its history, users or connections are wanted",
                )


def _written(keys: list[str | None]) -> str:
    try:
        return spans(parse_day(key) for key in keys)
    except SpecError:
        return ", ".join(key or "without a day" for key in keys)
