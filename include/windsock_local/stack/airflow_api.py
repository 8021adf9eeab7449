"""A small client of Airflow's REST API: what the demo, the CLI and tests need of it.

with AirflowApi.of_stack(settings) as api:
    run_id = api.trigger("fraud_train", conf={"trials": 5})
    run = api.wait_for_run("fraud_train", run_id, timeout_seconds=300)
"""

import time
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Self, TypeVar
from urllib.parse import quote

from windsock.errors import UpstreamUnavailable
from windsock.settings import Settings
from windsock_local.stack.airflow_session import AirflowRefused, AirflowSession
from windsock_local.stack.credentials import ADMIN_USER, admin_password
from windsock_local.stack.layout import Home
from windsock_local.stack.state import running_stack

__all__ = ["AirflowApi", "AirflowRefused"]

_T = TypeVar("_T")

FINAL_RUN_STATES = frozenset({"success", "failed"})
_CONFLICT_SECONDS = 60.0
_POLL_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class AirflowApi(AirflowSession):
    """DAGs, runs and backfills of one Airflow."""

    @classmethod
    def of_stack(cls, settings: Settings) -> Self:
        """Return a session with the running stack of these settings' home.

        Raises:
            UpstreamUnavailable: No stack runs there.
        """
        return cls(running_stack(settings).airflow_url, ADMIN_USER, admin_password(Home.of(settings)))

    # --- DAGs

    def wait_for_dag(self, dag_id: str, timeout_seconds: float = 60) -> dict[str, Any]:
        """Wait until a DAG has been parsed, and return it.

        Raises:
            UpstreamUnavailable: It did not appear; with the import errors there are.
        """

        def look() -> dict[str, Any] | None:
            try:
                return dict(self.get(f"dags/{_quoted(dag_id)}"))
            except AirflowRefused as err:
                if err.status == 404:
                    return None
                raise

        def explain() -> str:
            errors = [f"{e['filename']}: {e['stack_trace'].strip().splitlines()[-1]}" for e in self.import_errors()]
            return f"DAG {dag_id!r} did not appear. Import errors: {'; '.join(errors) or 'none'}."

        return _wait(look, timeout_seconds, explain)

    def import_errors(self) -> list[dict[str, Any]]:
        """Return the DAG files that could not be parsed."""
        return list(self.pages("importErrors", "import_errors"))

    def set_paused(self, dag_id: str, paused: bool) -> None:
        """Pause a DAG, or let it run."""
        self.patch(f"dags/{_quoted(dag_id)}", {"is_paused": paused})

    # --- runs

    def trigger(
        self,
        dag_id: str,
        partition_key: str | None = None,
        conf: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
    ) -> str:
        """Start a run now and return its id; the run of a paused DAG waits until it is unpaused."""
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        body |= {"partition_key": partition_key} if partition_key else {}
        body |= {"dag_run_id": run_id} if run_id else {}
        return str(self.post(f"dags/{_quoted(dag_id)}/dagRuns", body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return one run."""
        return dict(self.get(_run_path(dag_id, run_id)))

    def runs(self, dag_id: str = "~", **filters: Any) -> list[dict[str, Any]]:
        """Return a DAG's runs (``~``: of all DAGs); filters are the API's own."""
        return list(self.pages(f"dags/{_quoted(dag_id)}/dagRuns", "dag_runs", **filters))

    def wait_for_run(self, dag_id: str, run_id: str, timeout_seconds: float = 300) -> dict[str, Any]:
        """Wait for a run's end and return it; look at its ``state``.

        Raises:
            UpstreamUnavailable: It did not end in time; says where its tasks stand.
        """

        def look() -> dict[str, Any] | None:
            run = self.run(dag_id, run_id)
            return run if run["state"] in FINAL_RUN_STATES else None

        def explain() -> str:
            tasks = ", ".join(f"{t['task_id']} {t['state']}" for t in self.task_instances(dag_id, run_id))
            return f"Run {run_id} of {dag_id} has not ended. Its tasks: {tasks or 'none yet'}."

        return _wait(look, timeout_seconds, explain)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the tasks of one run."""
        return list(self.pages(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances"))

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try of a task as text."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/logs/{try_number}"
        body = self.get(path, map_index=map_index, full_content=True)
        content = body["content"]
        if isinstance(content, str):
            return content
        return "\n".join(str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in content)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return a value that a task passed on."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/xcomEntries/{_quoted(key)}"
        return self.get(path, map_index=map_index, deserialize=True)["value"]

    # --- backfills

    def backfill(
        self, dag_id: str, from_day: date | str, to_day: date | str, max_active_runs: int = 4, reprocess: str = "none"
    ) -> int:
        """Start a backfill of a range of days, both included, and return its id.

        Airflow refuses a second one for about half a minute after a first has ended;
        that is waited out. ``reprocess`` says which existing runs to run again: ``none``, ``failed`` or ``completed``.
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
                return int(self.post("backfills", body)["id"])
            except AirflowRefused as err:
                if err.status != 409 or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)

    def wait_for_backfill(self, backfill_id: int, timeout_seconds: float = 600) -> list[dict[str, Any]]:
        """Wait until every run of a backfill has ended, and return the runs of its days.

        Airflow itself notes a backfill's end up to half a minute late, so the runs are asked.

        Raises:
            UpstreamUnavailable: They did not end in time.
        """
        backfill = self.get(f"backfills/{backfill_id}")
        first, last, dag_id = backfill["from_date"][:10], backfill["to_date"][:10], backfill["dag_id"]
        mine: list[dict[str, Any]] = []

        def look() -> list[dict[str, Any]] | None:
            runs = self.runs(dag_id, run_type="backfill")
            mine[:] = [r for r in runs if first <= (r.get("partition_date") or r["run_after"])[:10] <= last]
            return mine if mine and all(r["state"] in FINAL_RUN_STATES for r in mine) else None

        def explain() -> str:
            ended = sum(r["state"] in FINAL_RUN_STATES for r in mine)
            return f"Backfill {backfill_id} of {dag_id}: {ended} of {len(mine)} runs have ended."

        return _wait(look, timeout_seconds, explain)


def _wait(look: Callable[[], _T | None], timeout_seconds: float, explain: Callable[[], str]) -> _T:
    deadline = time.monotonic() + timeout_seconds
    while True:
        if (found := look()) is not None:
            return found
        if time.monotonic() > deadline:
            raise UpstreamUnavailable(f"After {timeout_seconds:.0f} s: {explain()}")
        time.sleep(_POLL_SECONDS)


def _run_path(dag_id: str, run_id: str) -> str:
    return f"dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _quoted(name: str) -> str:
    """Quote one path segment: run ids hold ``+`` and ``:``."""
    return quote(name, safe="~")
