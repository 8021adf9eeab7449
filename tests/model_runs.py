"""Watching one model's runs on a stack that other tests use too."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from stack_fixture import Stack
from windsock_local.stack.airflow_api import polls

ACTIVE = ("queued", "running")


def wait_until(done: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something is so, and fail with ``what`` if it does not become so."""
    assert any(done() for _ in polls(seconds)), f"after {seconds:.0f} s still not: {what}"


def wait_until_quiet(stack: Stack, seconds: float, dags: Collection[str] | None = None) -> None:
    """Wait until no run of some DAGs (default: of any) is active and no event is on its way to one."""
    quiet_since = time.monotonic()
    active = Counter[tuple[str, str]]()
    for _ in polls(seconds):
        runs = stack.api.runs(state=ACTIVE)
        active = Counter((r["dag_id"], r["state"]) for r in runs if dags is None or r["dag_id"] in dags)
        if active:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > 2.5:
            return
    raise AssertionError(f"still active: {active}")


@dataclass(frozen=True)
class ModelRuns:
    """The DAGs of one model."""

    stack: Stack
    model: str

    def dag(self, stage: str) -> str:
        """Return a stage's DAG id."""
        return f"{self.model}_{stage}"

    def all(self, stage: str) -> list[dict[str, Any]]:
        """Return a stage's runs."""
        return self.stack.api.runs(self.dag(stage))

    def ids(self, stage: str) -> set[str]:
        """Return the ids of a stage's runs, to tell later ones from them."""
        return {run["dag_run_id"] for run in self.all(stage)}

    def days(self, stage: str, state: str = "success", known: Collection[str] = ()) -> Counter[str]:
        """Count a stage's runs in a state per day, those with a known id left out."""
        return Counter(
            run["partition_key"] for run in self.all(stage) if run["state"] == state and run["dag_run_id"] not in known
        )

    def wait_for_days(self, stage: str, days: Iterable[date], seconds: float, known: Collection[str] = ()) -> None:
        """Wait until a stage has a successful run for each of the days."""
        wanted = {str(day) for day in days}
        wait_until(lambda: wanted <= set(self.days(stage, known=known)), seconds, f"{self.dag(stage)} of {wanted}")

    def wait_until_quiet(self, seconds: float = 240, stages: Iterable[str] = ("ingest", "features", "score")) -> None:
        """Wait until no run of these stages is active and no event is on its way to one."""
        wait_until_quiet(self.stack, seconds, {self.dag(stage) for stage in stages})

    def start(self, stage: str, day: date | None = None) -> str:
        """Trigger a stage as a person would, and return the run's id."""
        return self.stack.api.trigger(self.dag(stage), partition_key=str(day) if day else None)

    def finish(self, stage: str, run_id: str, seconds: float = 240) -> dict[str, Any]:
        """Wait for a run to succeed and return the results of its tasks."""
        run = self.stack.api.wait_for_run(self.dag(stage), run_id, seconds)
        tasks = {t["task_id"]: t["state"] for t in self.stack.api.task_instances(self.dag(stage), run_id)}
        assert run["state"] == "success", f"{self.dag(stage)} {run_id}: {tasks}"
        return run

    def only_run(self, stage: str, seconds: float = 120, known: Collection[str] = ()) -> str:
        """Wait for the first run, beside known ones, that something else starts, and return its id."""
        wait_until(lambda: bool(self.ids(stage) - set(known)), seconds, f"a run of {self.dag(stage)}")
        (run,) = self.ids(stage) - set(known)
        return run

    def result(self, stage: str, run_id: str, task: str | None = None) -> Any:
        """Return what a task passed on."""
        return self.stack.api.xcom(self.dag(stage), run_id, task or stage)

    def log(self, stage: str, run_id: str, task: str | None = None) -> str:
        """Return the log of a task's first try."""
        return self.stack.api.task_log(self.dag(stage), run_id, task or stage)

    def wait_for_state(self, stage: str, run_id: str, state: str, seconds: float = 120) -> None:
        """Wait until the stage's own task is in a state."""

        def there() -> bool:
            tasks = self.stack.api.task_instances(self.dag(stage), run_id)
            return any(t["task_id"] == stage and t["state"] == state for t in tasks)

        wait_until(there, seconds, f"{self.dag(stage)} {run_id} in state {state}")
