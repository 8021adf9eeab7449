"""Days lived under random troubles, and the same days in quiet; what is left in the store must be equal.

The seed chooses the troubles: parts and tasks killed, DAGs paused, runs cleared, deleted and marked, ``airflow db
clean``. A person is played too, who unpauses, and clears what has failed.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import psutil

from bench.clock import MovedClock
from bench.figures import say
from windsock.errors import UpstreamUnavailable, WindsockError
from windsock.ledger import Ledger, stages_of
from windsock.settings import Settings
from windsock.store import Store
from windsock_local.stack import parts
from windsock_local.stack.airflow_api import AirflowApi, run_path
from windsock_local.stack.home import read_stack

STAGES = ("ingest", "features", "score", "monitor")
WATCH = "windsock_watch"
_LEDGERS = ("ingest", "score", "monitor", "decisions")
_KILLED = (parts.SCHEDULER, parts.API_SERVER, parts.DAG_PROCESSOR, parts.TRIGGERER, parts.MLFLOW, parts.POSTGRES)
_LOOK_S = 300.0


@dataclass
class Chaos:
    """A running stack, one of its models, and the dice."""

    api: AirflowApi
    settings: Settings
    clock: MovedClock
    model: str
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    """How often each kind of trouble was made."""

    def live(self, day: date, troubles: int, patience_s: float = 40.0) -> None:
        """Let the clock reach the noon after a day, make some troubles, and give it a moment to be scored."""
        self.clock.move(timedelta(days=1))
        for kind in self.dice.sample(list(_TROUBLES), troubles):
            time.sleep(self.dice.uniform(0, 4))
            with suppress(WindsockError, psutil.Error):
                what = _TROUBLES[kind](self)
                say(f"chaos: {day}: {what}")
                self.done[kind] += bool(what)
        deadline = time.monotonic() + patience_s
        while day not in self.settled("score") and time.monotonic() < deadline:
            time.sleep(0.5)
        if self.dice.random() < 0.5:
            self.unpause()

    def settled(self, stage: str) -> list[date]:
        """List the days that are settled in a stage of the ledger."""
        return Ledger.of(self.settings, self.model, stage).days()

    def unpause(self) -> None:
        """Let every DAG of the model run; tried until Airflow takes it."""
        for dag_id in (*self._dags(), WATCH):
            self._surely(lambda dag_id=dag_id: self.api.set_paused(dag_id, False))  # type: ignore[misc]

    def calm_down(self, days: Sequence[date], longest_s: float = 600.0) -> None:
        """Make no trouble any more, and wait until all days are settled; a person clears what has failed meanwhile.

        Raises:
            UpstreamUnavailable: They do not get there.
        """
        deadline = time.monotonic() + longest_s
        self.unpause()
        while lacking := self.lacking(days):
            say(f"chaos: lacking: {', '.join(lacking)}")
            if time.monotonic() > deadline:
                left = [(r["dag_id"], r["dag_run_id"], r["state"]) for r in self.runs() if r["state"] != "success"]
                raise UpstreamUnavailable(f"Days are lacking: {lacking}; runs that are not done: {left}")
            self.clock.move(timedelta(minutes=20))  # days rest for so long before they are made up for
            self._surely(self._look)
            self._surely(self._clear_failed)
        self._surely(self._wait_until_quiet)

    def lacking(self, days: Sequence[date]) -> list[str]:
        """List what some days lack: stage and day."""
        return [f"{stage} {day}" for stage in _LEDGERS for day in sorted(set(days) - set(self.settled(stage)))]

    def _look(self) -> None:
        self.api.wait_for_run(WATCH, self.api.trigger(WATCH), _LOOK_S)
        time.sleep(3)
        with suppress(UpstreamUnavailable):
            self._wait_until_quiet()

    def _wait_until_quiet(self, seconds: float = 15.0) -> None:
        deadline, since = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() - since < 2.5:
            if self.runs(state=["queued", "running"]):
                since = time.monotonic()
            if time.monotonic() > deadline:
                raise UpstreamUnavailable("Runs go on.")
            time.sleep(0.5)

    def _clear_failed(self) -> None:
        """Do what a person does who got an alert."""
        for run in self.runs(state=["failed"]):
            key, stage = run["partition_key"], run["dag_id"].removeprefix(f"{self.model}_")
            if key and date.fromisoformat(key) not in self.settled("decisions" if stage == "monitor" else "score"):
                self.api.call("POST", f"{run_path(run['dag_id'], run['dag_run_id'])}/clear", {"dry_run": False})
                self.done["cleared after an alert"] += 1

    def _dags(self) -> list[str]:
        return [f"{self.model}_{stage}" for stage in STAGES]

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Return the runs of the model's daily DAGs."""
        return [run for dag_id in self._dags() for run in self.api.runs(dag_id, **filters)]

    def _surely(self, act: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                act()
                return
            except WindsockError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(2)

    # --- troubles; each says what it did, or nothing

    def _kill_part(self) -> str:
        info, name = read_stack(self.settings), self.dice.choice(_KILLED)
        if info is None or name not in info.parts:
            return ""
        os.kill(info.parts[name].pid, signal.SIGKILL)
        return f"{name} killed"

    def _kill_task(self) -> str:
        """Kill the process of a task: a child of one of the executor's workers, which are children of the scheduler."""
        info, deadline = read_stack(self.settings), time.monotonic() + 5
        scheduler = info.process(parts.SCHEDULER) if info is not None else None
        while scheduler is not None and time.monotonic() < deadline:
            workers = scheduler.children()
            if tasks := [task for worker in workers for task in worker.children()]:
                task = self.dice.choice(tasks)
                task.kill()
                return f"task's process {task.pid} killed"
            time.sleep(0.05)
        return ""

    def _pause(self) -> str:
        dag_id = self.dice.choice(self._dags())
        self.api.set_paused(dag_id, True)
        return f"{dag_id} paused"

    def _some_run(self) -> dict[str, Any]:
        return self.dice.choice(self.runs())

    def _clear(self) -> str:
        run = self._some_run()
        self.api.call("POST", f"{run_path(run['dag_id'], run['dag_run_id'])}/clear", {"dry_run": False})
        return f"{run['dag_id']} {run['dag_run_id']} cleared"

    def _delete(self) -> str:
        run = self._some_run()
        self.api.call("DELETE", run_path(run["dag_id"], run["dag_run_id"]))
        return f"{run['dag_id']} {run['dag_run_id']} deleted"

    def _mark(self) -> str:
        """Mark a run that is under way, or any, as a person does."""
        alive, state = self.runs(state=["queued", "running"]), self.dice.choice(["success", "failed"])
        run = self.dice.choice(alive) if alive else self._some_run()
        self.api.call("PATCH", run_path(run["dag_id"], run["dag_run_id"]), {"state": state})
        return f"{run['dag_id']} {run['dag_run_id']} marked {state}"

    def _clean_database(self) -> str:
        info = read_stack(self.settings)
        scheduler = info.process(parts.SCHEDULER) if info is not None else None
        if scheduler is None:
            return ""
        before = (self.clock.now() - timedelta(hours=1)).isoformat()
        command = [sys.executable, "-P", "-m", "airflow", "db", "clean", "--yes", "--skip-archive"]
        command += ["--clean-before-timestamp", before]
        subprocess.run(
            command, env=scheduler.environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        return f"airflow db clean before {before}"


_TROUBLES: dict[str, Callable[[Chaos], str]] = {
    "part killed": Chaos._kill_part,
    "task killed": Chaos._kill_task,
    "DAG paused": Chaos._pause,
    "run cleared": Chaos._clear,
    "run deleted": Chaos._delete,
    "run marked": Chaos._mark,
    "database cleaned": Chaos._clean_database,
}


def contents(settings: Settings, model: str) -> dict[str, list[str]]:
    """Return stage and day to the hash of the record in force and of each file that it names.

    Left out is which nights had not been monitored when a night was decided: troubles change the order, and it is said.
    """
    store, found = Store.of(settings), dict[str, list[str]]()
    for stage in stages_of(store, model):
        for day, record in Ledger(store, model, stage).all().items():
            files = [file for name in sorted(record.outputs) for file in record.outputs[name].files]
            hashes = (hashlib.sha256(store.read_bytes(file)).hexdigest() for file in files)
            detail = {name: value for name, value in record.detail.items() if name != "missing_nights"}
            found[f"{stage} {day}"] = [replace(record, detail=detail).content_hash, *hashes]
    return found


def differences(one: dict[str, list[str]], other: dict[str, list[str]]) -> list[str]:
    """List the records that are not the same in both."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
