"""Drives the loop through Airflow: backfill, train, promote, go on day by day, drift, retrain."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from windsock import promotions as promotion_log
from windsock.days import day_range
from windsock.errors import UpstreamUnavailable
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock_local.demo.display import Display
from windsock_local.demo.plan import DemoPlan
from windsock_local.stack.airflow_api import AirflowApi

_STAGES = ("ingest", "features", "score", "monitor", "retrain", "train", "promote", "rollback")
_BACKFILL_RUNS = 6
_DAYS_AHEAD = 3
"""Days ingested while an earlier one is still being monitored."""
_POLL_S = 0.5
_STALL_S = 300.0
_CHECK_RUNS_EVERY_S = 5.0


@dataclass
class DemoLoop:
    """One demo on a running stack."""

    settings: Settings
    plan: DemoPlan
    api: AirflowApi
    display: Display

    @property
    def _model(self) -> str:
        return self.plan.spec.name

    def run(self) -> None:
        """Run every phase in turn.

        Raises:
            UpstreamUnavailable: Nothing moves any more, or a run failed that should not.
        """
        self._unpause()
        self._backfill()
        self._train_first()
        self._go_on()

    def _unpause(self) -> None:
        wanted = [f"{self._model}_{stage}" for stage in _STAGES]
        with self.display.phase("dags", "Airflow reads the DAGs", len(wanted)):
            for index, dag_id in enumerate(wanted):
                self.api.wait_for_dag(dag_id, timeout_seconds=_STALL_S)
                self.api.set_paused(dag_id, False)
                self.display.count(index + 1)

    def _backfill(self) -> None:
        plan = self.plan
        days = day_range(plan.first_day, plan.backfill_last)
        title = f"Backfill {len(days)} days, {_BACKFILL_RUNS} at a time"
        with self.display.phase("backfill", title, len(days)):
            self.api.backfill(f"{self._model}_ingest", str(days[0]), str(days[-1]), max_active_runs=_BACKFILL_RUNS)
            self._until(lambda: sum(self._settled(day) for day in days), len(days), "the backfill")
        for day in days:
            self._report_trouble(day)

    def _train_first(self) -> None:
        with self.display.phase("train_first", "First model: train, gate, promote"):
            self.api.trigger(
                f"{self._model}_train",
                conf={"as_of": str(self.plan.backfill_last), "reason": "first model of the demo"},
            )
            self._until(lambda: len(self._promotions()), 1, "the first promotion")
        self._report_promotion()

    def _go_on(self) -> None:
        """Go on day by day until a second model is in force, then a little further."""
        days = day_range(self.plan.backfill_last + timedelta(days=1), self.plan.last_day)
        if self.plan.drift_from is not None:
            self.display.say(f"From {self.plan.drift_from} on, every amount is doubled: the payments drift.")
        stop_after: date | None = None
        with self.display.phase("day_by_day", f"Day by day from {days[0]}", len(days)):
            triggered = 0
            for index, day in enumerate(days):
                while triggered < min(len(days), index + _DAYS_AHEAD):
                    self.api.trigger(f"{self._model}_ingest", partition_key=str(days[triggered]))
                    triggered += 1
                self._until(lambda day=day: int(self._settled(day)), 1, f"{day}", count=False)  # type: ignore[misc]
                self._report_trouble(day)
                self._monitor(day)
                self.display.count(index + 1)
                if self._asked_for_retraining(day):
                    self._await_second_promotion()
                    stop_after = day + timedelta(days=_DAYS_AHEAD)
                if stop_after is not None and day >= stop_after:
                    break
        if not self.plan.simulated and len(self._promotions()) < 2:
            self._retrain_at_the_end(days[-1])

    def _monitor(self, day: date) -> None:
        if not Ledger.of(self.settings, self._model, "score").get(day):
            return
        self.api.trigger(f"{self._model}_monitor", partition_key=str(day))
        decisions = Ledger.of(self.settings, self._model, "decisions")
        self._until(lambda: int(decisions.get(day) is not None), 1, f"the monitor of {day}", count=False)
        record = decisions.get(day)
        before = decisions.get(day - timedelta(days=1))
        if record is not None and (before is None or before.detail.get("action") != record.detail.get("action")):
            reasons = "; ".join(str(r) for r in record.detail.get("reasons", [])) or "nothing unusual"
            self.display.say(f"{day}  monitor: {record.detail.get('action')} ({reasons})", "yellow")

    def _asked_for_retraining(self, day: date) -> bool:
        record = Ledger.of(self.settings, self._model, "decisions").get(day)
        return record is not None and record.detail.get("action") == "retrain"

    def _await_second_promotion(self) -> None:
        with self.display.phase("retrain", "Retrain: train, gate, promote"):
            self._until(lambda: len(self._promotions()), 2, "the second promotion", count=False)
        self._report_promotion()

    def _retrain_at_the_end(self, day: date) -> None:
        """On a person's file no drift is planted: challenge the champion once, whatever the monitor said."""
        with self.display.phase("retrain", f"Challenger as of {day}"):
            run = self.api.trigger(
                f"{self._model}_train", conf={"as_of": str(day), "reason": "end of the demo: challenge the champion"}
            )
            self.api.wait_for_run(f"{self._model}_train", run, timeout_seconds=_STALL_S)
            self._until(lambda: int(self._promote_runs_done() >= 2), 1, "the gate", count=False, failing=("train",))
        if len(self._promotions()) > 1:
            self._report_promotion()
        else:
            self.display.say("The gate kept the champion: the challenger did not show that it is better.", "yellow")

    def _promotions(self) -> list[promotion_log.Promotion]:
        return promotion_log.history(self.settings, self.plan.spec)

    def _promote_runs_done(self) -> int:
        runs = self.api.runs(f"{self._model}_promote")
        return sum(run["state"] in ("success", "failed") for run in runs)

    def _settled(self, day: date) -> bool:
        """Say whether a day went all the way, or was rejected and recorded as such."""
        ingest = Ledger.of(self.settings, self._model, "ingest").get(day)
        if ingest is None or ingest.status == "rejected":
            return ingest is not None
        return Ledger.of(self.settings, self._model, "score").get(day) is not None

    def _report_trouble(self, day: date) -> None:
        record = Ledger.of(self.settings, self._model, "ingest").get(day)
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
        self.display.say(
            f"Version {last.version} is champion: trained as of {last.as_of}, scores from {last.in_force_from} on.",
            "green",
        )

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
            failed: list[dict[str, Any]] = self.api.runs(f"{self._model}_{stage}", state="failed")
            if failed:
                run = failed[0]
                raise UpstreamUnavailable(
                    f"{run['dag_id']}: the run {run['dag_run_id']} failed. Its log says why: "
                    f"{self.api.url}/dags/{run['dag_id']}/runs/{run['dag_run_id']}"
                )
