"""A small client of Airflow's REST API: what the demo, the CLI and the stack itself need of it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from itertools import takewhile
from typing import Any
from urllib.parse import quote

from windsock.days import day_range, parse_day, spans
from windsock.errors import SpecError, UpstreamUnavailable
from windsock_local.stack.airflow_session import AirflowRefused, AirflowSession

FINAL_RUN_STATES = frozenset({"success", "failed"})
_CONFLICT_SECONDS = 60.0
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.3, 3.0
_RETRY_SECONDS = 1.0


class AirflowApi(AirflowSession):
    """A session with one Airflow: its DAGs, runs and backfills."""

    def wait_for_dag(self, dag_id: str, timeout_seconds: float = 60) -> None:
        """Wait until a DAG has been parsed; what did not appear is reported with the import errors there are."""
        for _ in polls(timeout_seconds):
            try:
                self.call("GET", f"dags/{_quoted(dag_id)}")
                return
            except AirflowRefused as err:
                if err.status != 404:
                    raise
        errors = [f"{e['filename']}: {e['stack_trace'].strip().splitlines()[-1]}" for e in self.import_errors()]
        why = f"DAG {dag_id!r} did not appear. Import errors: {'; '.join(errors) or 'none'}."
        raise UpstreamUnavailable(f"After {timeout_seconds:.0f} s: {why}")

    def import_errors(self) -> list[dict[str, Any]]:
        """Return the DAG files that could not be parsed."""
        return list(self.pages("importErrors", "import_errors"))

    def set_paused(self, dag_id: str, paused: bool) -> None:
        """Pause a DAG, or let it run."""
        self.call("PATCH", f"dags/{_quoted(dag_id)}", {"is_paused": paused})

    def form_fields(self, dag_id: str) -> dict[str, bool]:
        """Return the fields in a DAG's trigger form by name, and whether each takes text.

        Raises:
            SpecError: There is no such DAG.
        """
        try:
            fields = self.call("GET", f"dags/{_quoted(dag_id)}/details")["params"]
            return {name: "string" in (field["schema"].get("type") or ()) for name, field in fields.items()}
        except AirflowRefused as err:
            if err.status != 404:
                raise
            known = [dag["dag_id"] for dag in self.pages("dags", "dags")]
            raise SpecError.unknown("DAG", dag_id, known, self.url) from err

    def trigger(self, dag_id: str, partition_key: str | None = None, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run now and return its id; the run of a paused DAG waits until it is unpaused."""
        day = {"partition_key": partition_key} if partition_key else {}
        body = {"logical_date": None, "conf": dict(conf or {}), **day}
        return str(self.call("POST", f"dags/{_quoted(dag_id)}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str = "~", **filters: Any) -> list[dict[str, Any]]:
        """Return a DAG's runs (``~``: of all DAGs); filters are the API's own."""
        return list(self.pages(f"dags/{_quoted(dag_id)}/dagRuns", "dag_runs", **filters))

    def wait_for_run(self, dag_id: str, run_id: str, timeout_seconds: float = 300) -> dict[str, Any]:
        """Wait for a run's end and return it; look at its ``state``. One too late is reported with its tasks."""
        for _ in polls(timeout_seconds):
            run = dict(self.call("GET", run_path(dag_id, run_id)))
            if run["state"] in FINAL_RUN_STATES:
                return run
        tasks = ", ".join(f"{t['task_id']} {t['state']}" for t in self.task_instances(dag_id, run_id))
        why = f"Run {run_id} of {dag_id} has not ended. Its tasks: {tasks or 'none yet'}."
        raise UpstreamUnavailable(f"After {timeout_seconds:.0f} s: {why}")

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the tasks of one run."""
        return list(self.pages(f"{run_path(dag_id, run_id)}/taskInstances", "task_instances"))

    def unanswered_run(self, dag_id: str) -> str | None:
        """Return the run of a DAG that waits for a person's answer, if there is one."""
        waiting = self.call("GET", f"{run_path(dag_id, '~')}/taskInstances", state="awaiting_input", limit=1)
        return next((task["dag_run_id"] for task in waiting["task_instances"]), None)

    # --- backfills

    def backfill(
        self, dag_id: str, from_day: date | str, to_day: date | str, max_active_runs: int = 4, reprocess: str = "none"
    ) -> int:
        """Start a backfill of a range of days, both included, and return its id.

        Airflow refuses a second one for about half a minute after a first has ended; that is waited out.
        ``reprocess`` says which existing runs to run again: ``none``, ``failed`` or ``completed``.
        """
        body = {
            "dag_id": dag_id,
            "from_date": f"{from_day}T00:00:00Z",
            "to_date": f"{to_day}T00:00:00Z",
            "max_active_runs": max_active_runs,
            "reprocess_behavior": reprocess,
            "dag_run_conf": {},
        }
        deadline = time.monotonic() + _CONFLICT_SECONDS
        while True:
            try:
                return int(self.call("POST", "backfills", body)["id"])
            except AirflowRefused as err:
                if err.status != 409 or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)

    def newest_runs(self, dag_id: str, first: date, last: date) -> dict[date, dict[str, Any]]:
        """Return the run of each day that was begun, or begun again, last; days without a run are left out."""
        found = dict[date, dict[str, Any]]()
        # Not a history of years for a week: what the keys of all these days begin with.
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(str(first), str(last), strict=True))
        runs = self.runs(dag_id, partition_key_prefix_pattern="".join(letter for letter, _ in alike))
        for run in sorted(runs, key=lambda run: run["queued_at"] or run["run_after"]):
            with suppress(SpecError):  # somebody's key that is no day
                found[parse_day(run["partition_key"])] = run
        return {day: found[day] for day in day_range(first, last) if day in found}

    def wait_for_days(self, dag_id: str, first: date, last: date, timeout_seconds: float) -> dict[date, dict[str, Any]]:
        """Wait until the newest run of each day has ended, whoever started it, and return these runs by day."""
        days = day_range(first, last)
        for _ in polls(timeout_seconds):
            runs = self.newest_runs(dag_id, first, last)
            still = [day for day in days if day not in runs or runs[day]["state"] not in FINAL_RUN_STATES]
            if not still:
                return runs
        why = f"{dag_id}: {len(still)} of {len(days)} days have not ended: {spans(still)}. Their runs go on."
        raise UpstreamUnavailable(f"After {timeout_seconds:.0f} s: {why}")


def run_path(dag_id: str, run_id: str) -> str:
    """Return a run's path: run ids hold ``+`` and ``:``."""
    return f"dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _quoted(name: str) -> str:
    return quote(name, safe="~")


def polls(timeout_seconds: float) -> Iterator[None]:
    """Yield at once, then after each tenth of the time that was waited, until the time is up.

    An answer costs the API server what the tasks need that are waited for.
    """
    started = time.monotonic()
    yield
    while (waited := time.monotonic() - started) <= timeout_seconds:
        time.sleep(min(max(waited / 10, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS))
        yield
