"""Drives the loop through Airflow, and shows how far it is: backfill, train, promote, go on day by day, retrain."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from windsock.days import day_range
from windsock.errors import UpstreamUnavailable
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import Promotion, history
from windsock.settings import Settings
from windsock_local.demo.plan import DemoPlan
from windsock_local.stack.airflow_api import FINAL_RUN_STATES, AirflowApi

_STAGES = ("ingest", "features", "score", "monitor", "retrain", "train", "promote", "rollback")
_BACKFILL_RUNS = 6
_DAYS_AHEAD = 3
"""Days ingested while an earlier one is still being monitored."""
_POLL_S = 0.5
_STALL_S = 300.0
_CHECK_RUNS_EVERY_S = 5.0
_PLAIN_EVERY_S = 10.0


class Display:
    """Phases with a count each, and sentences about what happened: bars in a terminal, plain lines in a log."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, soft_wrap=True)
        self.seconds: dict[str, float] = {}
        """Of each phase that has ended."""
        self.started = time.monotonic()
        self._last_line_at = 0.0
        self._running: list[TaskID] = []
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=18),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
        )
        self.bars = Progress(*columns, console=self.console, disable=not self.console.is_terminal)

    @contextmanager
    def phase(self, key: str, title: str, total: int | None = None) -> Iterator[None]:
        """Time one phase; its seconds stand in ``seconds[key]`` afterwards."""
        began = time.monotonic()
        bar = self.bars.add_task(title, total=total, count="")
        self._running.append(bar)
        if not self.console.is_terminal:
            self.say(f"{title} ...")
        try:
            yield
        finally:
            self._running.pop()
            self.seconds[key] = round(self.seconds.get(key, 0.0) + time.monotonic() - began, 1)
        self.bars.update(bar, total=total or 1, completed=total or 1)
        if not self.console.is_terminal:
            self.say(f"{title}: done in {time.monotonic() - began:.0f} s")

    def count(self, done: int) -> None:
        """Say how far the innermost running phase is."""
        bar = self.bars.tasks[self._running[-1]]
        if bar.total is None:
            return
        self.bars.update(bar.id, completed=done, count=f"{done}/{bar.total}")
        if not self.console.is_terminal and time.monotonic() - self._last_line_at > _PLAIN_EVERY_S:
            self.say(f"{bar.description}: {done} of {bar.total}")

    def say(self, sentence: str, style: str = "") -> None:
        """Tell what happened."""
        self._last_line_at = time.monotonic()
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        self.console.print(f"[dim]{minutes:2}:{seconds:02}[/dim]  {sentence}", style=style or None, highlight=False)


@dataclass
class DemoLoop:
    """One demo on a running stack."""

    settings: Settings
    plan: DemoPlan
    api: AirflowApi
    display: Display

    def run(self) -> None:
        """Run every phase in turn.

        Raises:
            UpstreamUnavailable: Nothing moves any more, or a run failed that should not.
        """
        with self.display.phase("dags", "Airflow reads the DAGs", len(_STAGES)):
            for index, stage in enumerate(_STAGES):
                self.api.wait_for_dag(self._dag(stage), timeout_seconds=_STALL_S)
                self.api.set_paused(self._dag(stage), False)
                self.display.count(index + 1)
        self._backfill()
        self._train_first()
        self._go_on()

    def _backfill(self) -> None:
        days = day_range(self.plan.spec.first_day, self.plan.backfill_last)
        title = f"Backfill {len(days)} days, {_BACKFILL_RUNS} at a time"
        with self.display.phase("backfill", title, len(days)):
            self.api.backfill(self._dag("ingest"), days[0], days[-1], max_active_runs=_BACKFILL_RUNS)
            left = set(days)

            def settled() -> int:
                left.difference_update([day for day in left if self._settled(day)])
                return len(days) - len(left)

            self._until(settled, len(days), "the backfill")
        for day in days:
            self._report_trouble(day)

    def _train_first(self) -> None:
        with self.display.phase("train_first", "First model: train, gate, promote"):
            conf = {"as_of": str(self.plan.backfill_last), "reason": "first model of the demo"}
            self.api.trigger(self._dag("train"), conf=conf)
            self._until(lambda: len(self._promotions()), 1, "the first promotion")
        self._report_promotion()

    def _go_on(self) -> None:
        """Go on day by day until a second model is in force, then a little further."""
        days = day_range(self.plan.backfill_last + timedelta(days=1), self.plan.last_day)
        if self.plan.drift_from is not None:
            self.display.say(f"From {self.plan.drift_from} on, every amount is doubled: the payments drift.")
        stop_after, asked = None, 0
        ended = partial(self.api.runs, self._dag("promote"), state=[*FINAL_RUN_STATES])
        with self.display.phase("day_by_day", f"Day by day from {days[0]}", len(days)):
            triggered = 0
            for index, day in enumerate(days):
                while triggered < min(len(days), index + _DAYS_AHEAD):
                    self.api.trigger(self._dag("ingest"), partition_key=str(days[triggered]))
                    triggered += 1
                self._until(lambda day=day: int(self._settled(day)), 1, f"{day}", count=False)  # type: ignore[misc]
                self._report_trouble(day)
                action = self._monitor(day) if self._record("score", day) else ""
                self.display.count(index + 1)
                if action == "retrain":
                    asked, before = asked + 1, len(self._promotions())
                    with self.display.phase("retrain", f"Retrain as of {day}: train, gate, promote"):
                        self._until(lambda: len(ended()), 1 + asked, "the verdict")
                    if len(self._promotions()) > before:
                        self._report_promotion()
                        stop_after = stop_after or day + timedelta(days=_DAYS_AHEAD)
                    else:
                        self.display.say("The gate kept the champion: not proven better yet.", "yellow")
                if stop_after is not None and day >= stop_after:
                    break
        if self.plan.drift_from is None and len(self._promotions()) < 2:
            self._retrain_at_the_end(days[-1])

    def _monitor(self, day: date) -> str:
        """Let a day be monitored, and return what the governor decided."""
        self.api.trigger(self._dag("monitor"), partition_key=str(day))
        self._until(lambda: int(self._record("decisions", day) is not None), 1, f"the monitor of {day}", count=False)
        record, before = self._record("decisions", day), self._record("decisions", day - timedelta(days=1))
        action = "" if record is None else str(record.detail.get("action"))
        if record is not None and (before is None or before.detail.get("action") != action):
            reasons = "; ".join(str(r) for r in record.detail.get("reasons", [])) or "nothing unusual"
            self.display.say(f"{day}  monitor: {action} ({reasons})", "yellow")
        return action

    def _retrain_at_the_end(self, day: date) -> None:
        """On a person's file no drift is planted: challenge the champion once, whatever the monitor said."""
        with self.display.phase("retrain", f"Challenger as of {day}"):
            conf = {"as_of": str(day), "reason": "end of the demo: challenge the champion"}
            run = self.api.trigger(self._dag("train"), conf=conf)
            self.api.wait_for_run(self._dag("train"), run, timeout_seconds=_STALL_S)
            ended = partial(self.api.runs, self._dag("promote"), state=[*FINAL_RUN_STATES])
            self._until(lambda: len(ended()), 2, "the gate", failing=("train",))
        if len(self._promotions()) > 1:
            self._report_promotion()
        else:
            self.display.say("The gate kept the champion: the challenger did not show that it is better.", "yellow")

    # --- what has happened so far

    def _dag(self, stage: str) -> str:
        return f"{self.plan.spec.name}_{stage}"

    def _record(self, stage: str, day: date) -> DayRecord | None:
        return Ledger.of(self.settings, self.plan.spec.name, stage).get(day)

    def _promotions(self) -> list[Promotion]:
        return history(self.settings, self.plan.spec)

    def _settled(self, day: date) -> bool:
        """Say whether a day went all the way, or was rejected and recorded as such."""
        ingest = self._record("ingest", day)
        if ingest is None or ingest.status == "rejected":
            return ingest is not None
        return self._record("score", day) is not None

    def _report_trouble(self, day: date) -> None:
        record = self._record("ingest", day)
        if record is None:
            return
        if record.status == "rejected":
            reasons = "; ".join(str(r) for r in record.detail.get("reasons", []))
            self.display.say(f"{day}  rejected: {reasons}", "red")
        elif record.rows("quarantine"):
            rules = ", ".join(f"{n} × {rule}" for rule, n in record.detail.get("quarantined", {}).items())
            self.display.say(f"{day}  {record.rows('quarantine')} rows quarantined: {rules}", "yellow")

    def _report_promotion(self) -> None:
        last = self._promotions()[-1]
        words = f"Version {last.version} is champion: trained as of {last.as_of}, scores from {last.in_force_from} on."
        self.display.say(words, "green")

    def _until(
        self,
        progress: Callable[[], int],
        goal: int,
        what: str,
        *,
        count: bool = True,
        failing: tuple[str, ...] = ("features", "score", "monitor", "train", "promote"),
    ) -> None:
        """Wait until ``progress`` reaches ``goal``; end early and loudly if it never will."""
        done, moved, checked = -1, time.monotonic(), time.monotonic()
        while (now_done := progress()) < goal:
            now = time.monotonic()
            if now_done != done:
                done, moved = now_done, now
                if count:
                    self.display.count(done)
            if now - checked > _CHECK_RUNS_EVERY_S:
                checked = now
                self._stop_on_failed_run(failing)
            if now - moved > _STALL_S:
                raise UpstreamUnavailable(
                    f"The demo waited {_STALL_S:.0f} s for {what} and nothing moved (at {done} of {goal}). "
                    f"See {self.api.url} and the logs in {self.settings.home / 'logs'}."
                )
            time.sleep(_POLL_S)
        if count:
            self.display.count(goal)

    def _stop_on_failed_run(self, stages: tuple[str, ...]) -> None:
        for stage in stages:
            for run in self.api.runs(self._dag(stage), state="failed"):
                raise UpstreamUnavailable(
                    f"{run['dag_id']}: the run {run['dag_run_id']} failed. Its log says why: "
                    f"{self.api.url}/dags/{run['dag_id']}/runs/{run['dag_run_id']}"
                )
