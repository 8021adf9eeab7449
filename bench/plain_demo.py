"""The demo's days and steps in one plain Python process: no Airflow, no server, nothing in parallel.

``python -m bench.plain_demo HOME`` prints its seconds as JSON. Everything is imported and
MLflow's database is made before the clock starts: what remains is the work itself.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from windsock.days import day_range
from windsock.errors import DayRejected
from windsock.settings import Settings
from windsock.steps import STEPS, run_step
from windsock_local.demo.plan import DemoPlan, simulated_plan

_DAY_STEPS = ("ingest", "features", "materialize", "score")
_DAYS_AFTER_RETRAINING = 3
_LIBRARIES = (
    *("pandas", "pyarrow.parquet", "pyarrow.dataset", "pyarrow.compute", "duckdb", "sklearn.metrics"),
    *("lightgbm", "optuna", "mlflow", "mlflow.lightgbm", "great_expectations", "evidently"),
)


@dataclass
class PlainDemo:
    """One run of the loop, step after step."""

    settings: Settings
    plan: DemoPlan
    phases: dict[str, float] = field(default_factory=dict)
    steps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    promoted: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    days: int = 0

    def run(self) -> dict[str, Any]:
        """Run it all and return seconds per phase and per step."""
        self._warm_up()
        began, cpu_began = time.perf_counter(), time.process_time()
        with self._phase("backfill"):
            for day in day_range(self.plan.spec.first_day, self.plan.backfill_last):
                self._day(day, live=False)
        with self._phase("train_first"):
            self._train(self.plan.backfill_last)
        with self._phase("day_by_day"):
            self._go_on()
        with self._phase("docs"):
            from windsock.validate import docs

            docs.build(self.settings)
        total, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        return {
            "total": total,
            "cpu_s": cpu,
            "phases": self.phases,
            "steps": {name: {"runs": len(s), "seconds": round(sum(s), 2)} for name, s in self.steps.items()},
            "days": self.days,
            "rejected": self.rejected,
            "promoted": self.promoted,
        }

    def _warm_up(self) -> None:
        from windsock.featurestore.definitions import apply
        from windsock.featurestore.repo import import_feast
        from windsock.registry.client import mlflow_client

        for name in (*_LIBRARIES, *STEPS.values()):
            importlib.import_module(name)
        import_feast()
        apply(self.settings)
        mlflow_client(self.settings).search_experiments()

    def _go_on(self) -> None:
        stop_after: date | None = None
        for day in day_range(self.plan.backfill_last + timedelta(days=1), self.plan.last_day):
            if self._day(day, live=True):
                self._step("monitor", day)
                decision = self._step("govern", day)
                if decision["retrain"]:
                    before = len(self.promoted)
                    with self._phase("retrain"):
                        self._train(day, {name: decision[name] for name in ("dedupe_key", "trigger", "recovery")})
                    if len(self.promoted) > before and stop_after is None:
                        stop_after = day + timedelta(days=_DAYS_AFTER_RETRAINING)
            if stop_after is not None and day >= stop_after:
                return

    def _day(self, day: date, *, live: bool) -> bool:
        """Run one day through to its scores; False if it was rejected."""
        self.days += 1
        for name in _DAY_STEPS:
            try:
                self._step(name, day, live=live)
            except DayRejected:
                self.rejected.append(day.isoformat())
                return False
        return True

    def _train(self, as_of: date, request: Mapping[str, Any] = MappingProxyType({})) -> None:
        options = {"as_of": as_of.isoformat(), **request}
        run = {"run": self._step("assemble", origin=f"plain-{as_of}", options=options)["run"]}
        self._step("fit", options=run)
        self._step("choose", options=run)
        version = self._step("register", options=run)["version"]
        gate = self._step("gate", options={"version": version})
        if not gate["passed"]:
            return
        seen = {"version": version, "champion_seen": gate["champion_seen"]}
        again = self._step("refit", options=seen)
        if again["estimator"]:
            self._step("fit", options={"run": again["run"], "estimator": again["estimator"]})
        seen["version"] = self._step("adopt", options={"version": version})["version"]
        self.promoted.append(str(self._step("promote", options=seen)["version"]))

    def _step(
        self,
        name: str,
        day: date | None = None,
        *,
        live: bool = True,
        origin: str = "plain",
        options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            return run_step(
                name,
                model=self.plan.spec.name,
                key=day.isoformat() if day is not None else None,
                live=live,
                origin=origin,
                options=options,
                settings=self.settings,
            )
        finally:
            self.steps[name].append(time.perf_counter() - began)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = round(time.perf_counter() - began, 2)
            sys.stderr.write(f"bench: plain process: {name} took {self.phases[name]:.0f} s\n")


def main(home: Path) -> None:
    """Run the demo's own plan below ``home``."""
    logging.disable(logging.WARNING)
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)
    plan = simulated_plan(home)
    settings = Settings.from_env({"WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(plan.spec.folder.parent)})
    sys.stdout.write(json.dumps(PlainDemo(settings, plan).run()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
