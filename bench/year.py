"""``year``: whether a day costs on day 365 what it cost in the first month, in a bucket that counts requests."""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from bench.counted_bucket import EPOCH, CountedBucket
from bench.figures import Figure, Limit, say
from windsock import promotions
from windsock.features.frozen import definitions_of
from windsock.maintenance import step as maintenance
from windsock.promotions import Promotion
from windsock.registry.versions import folder_hash
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.steps import run_step
from windsock.store import Store
from windsock.version_index import VersionInfo, record_version

MODEL = "churn"
FIRST_DAY = EPOCH.date()
WARM = 14
"""Days until everything runs: features are warm, a champion scores and is monitored."""
MONTH = 28
DAILY = ("ingest", "features", "score", "monitor", "govern")
_SPEC: dict[str, Any] = {
    "name": MODEL,
    "owner": "bench",
    "description": "Will this customer leave?",
    "first_day": FIRST_DAY,
    "source": {"kind": "files", "url": "../../inbox/{ds}.parquet"},
    "events": {
        "time": "seen_at",
        "key": "event_id",
        "columns": {"event_id": "int64", "seen_at": "timestamp", "customer_id": "int64", "minutes": "double"},
    },
    "entities": {"customer": "customer_id"},
    "label": {"column": "churned", "task": "binary", "delay_days": 2},
    "features": {
        "row": {"minutes": "minutes"},
        "views": [{"name": "usage", "entity": "customer", "sql": "usage.sql", "lookback_days": 2, "ttl_days": 10}],
    },
    "training": {
        "window_days": 4,
        "holdout_days": 2,
        "metric": "average_precision",
        "estimator": {"trials": 1, "rounds": 20, "params": {"min_child_samples": 5}},
    },
    "gate": {"floors": {"average_precision": 0.05}},
    "retention": {"report_days": MONTH, "run_days": MONTH},
}
_SQL = (
    "select customer_id, seen_at as event_timestamp, count(*) over w as n_1d, avg(minutes) over w as mean_1d "
    "from events window w as (partition by customer_id order by epoch_us(seen_at) "
    "range between 86399999999 preceding and current row)"
)


@dataclass(frozen=True)
class Spent:
    """What one simulated day cost, its share of the weekly work not counted, or one week's work."""

    day: int
    cpu_s: float
    requests: int
    stored_bytes: int
    """By how much the bucket and the home have grown."""


class Year:
    """An installation that lives through days: daily steps, and weekly a training, a promotion, a cleaning."""

    def __init__(
        self,
        home: Path,
        daily: Sequence[str] = DAILY,
        *,
        live: bool = True,
        first_day: date = FIRST_DAY,
        lookback_days: int = 2,
        store: str = "counted://year/store",
    ) -> None:
        CountedBucket.empty()
        maintenance.utc_now = CountedBucket.now  # type: ignore[attr-defined]
        folder = home / "models" / MODEL
        folder.mkdir(parents=True)
        (home / "inbox").mkdir()
        (folder / "usage.sql").write_text(_SQL)
        spec = {**copy.deepcopy(_SPEC), "first_day": first_day}
        spec["features"]["views"][0]["lookback_days"] = lookback_days
        (folder / "model.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
        self.home, self._daily, self._live = home, daily, live
        self.settings = Settings.from_env(
            {
                "WINDSOCK_HOME": str(home),
                "WINDSOCK_MODELS": str(home / "models"),
                "WINDSOCK_STORE": store,
            }
        )
        self.store = Store.of(self.settings)
        self._versions = 0
        self.each_step: Callable[[str], AbstractContextManager[object]] = nullcontext
        """Surrounds each step of a day, for who measures them one by one."""

    def live(self, n: int) -> Spent:
        """Live through the n-th day, counted from 0."""
        CountedBucket.today = n
        day, inbox = FIRST_DAY + timedelta(days=n), self.deliver(n)
        before = self._spent(n)
        origin = f"scheduled {day}"
        for step in self._daily:
            with self.each_step(step):
                run_step(step, model=MODEL, key=str(day), live=self._live, origin=origin, settings=self.settings)
        spent = self._since(before)
        inbox.unlink()
        self._date_home()
        return spent

    def deliver(self, n: int) -> Path:
        """Put the file of the n-th day where it is looked for."""
        day = FIRST_DAY + timedelta(days=n)
        inbox = self.home / "inbox" / f"{day}.parquet"
        pq.write_table(_delivery(day), inbox)
        return inbox

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return get_spec(self.settings, MODEL)

    def end_week(self, n: int) -> tuple[Spent, Spent]:
        """Train and promote as of the n-th day, then clean up; return what each cost."""
        day, before = FIRST_DAY + timedelta(days=n), self._spent(n)
        origin = f"weekly {day}"
        for lacking in self._run("prepare", origin, as_of=str(day))["days"]:
            run_step("features", model=MODEL, key=lacking, settings=self.settings)
        run = str(self._run("assemble", origin, as_of=str(day))["run"])
        for step in ("fit", "choose"):
            self._run(step, origin, run=run)
        spec, champion = self.spec, None
        if self._versions:
            champion = promotions.current(self.settings, spec)
        self._versions += 1
        made = VersionInfo(
            MODEL,
            str(self._versions),
            run,
            day,
            model_hash=folder_hash(self.store, "runs", MODEL, run, "model"),
            definitions=definitions_of(spec),
        )
        record_version(self.settings, made)
        entry = Promotion(0, "promote", made.version, run, None, day + timedelta(days=1), day, "bench")
        promotions.append(self.settings, spec, entry, after=champion)
        trained, before = self._since(before), self._spent(n)
        self._run("maintain", origin)
        return trained, self._since(before)

    def _run(self, step: str, origin: str, **options: str) -> dict[str, object]:
        return run_step(step, model=MODEL, origin=origin, options=options, settings=self.settings)

    def _spent(self, n: int) -> Spent:
        home = sum(path.stat().st_size for path in self.home.rglob("*") if path.is_file())
        return Spent(n, time.process_time(), CountedBucket.requests(), CountedBucket.stored() + home)

    def _since(self, before: Spent) -> Spent:
        now = self._spent(before.day)
        return Spent(
            now.day,
            now.cpu_s - before.cpu_s,
            now.requests - before.requests,
            now.stored_bytes - before.stored_bytes,
        )

    def _date_home(self) -> None:
        """Give what was written to the home the simulated time."""
        now = CountedBucket.now().timestamp()
        for path in (self.home / "great_expectations").rglob("*"):
            if path.is_file() and path.stat().st_mtime > now:
                os.utime(path, (now, now))


def _delivery(day: date, rows: int = 120) -> pa.Table:
    dice = np.random.default_rng(day.toordinal())
    start, minutes = datetime(day.year, day.month, day.day), dice.exponential(30, rows).round(2)
    return pa.table(
        {
            "event_id": [day.toordinal() * 100_000 + n for n in range(rows)],
            "seen_at": [start + timedelta(seconds=n * (86_400 // rows)) for n in range(rows)],
            "customer_id": [n % 40 for n in range(rows)],
            "minutes": minutes,
            "churned": (minutes + dice.normal(0, 10, rows) < 12).astype(int),
        }
    )


def live_through(year: Year, days: int) -> dict[str, list[Spent]]:
    """Live through some days and return what each day, each training and each cleaning cost."""
    spent: dict[str, list[Spent]] = {"day": [], "training": [], "cleaning": []}
    for n in range(days):
        spent["day"].append(year.live(n))
        if n % 7 == 6 and n >= 10:
            trained, cleaned = year.end_week(n)
            spent["training"].append(trained)
            spent["cleaning"].append(cleaned)
        if n % 25 == 24:
            say(f"year: {n + 1} of {days} days")
    return spent


def months(spent: Sequence[Spent], name: str, last_day: int) -> tuple[float, float]:
    """Return a field's mean over the first month in which everything runs, and over the last one."""
    first = [getattr(s, name) for s in spent if WARM <= s.day < WARM + MONTH]
    last = [getattr(s, name) for s in spent if s.day > last_day - MONTH]
    return statistics.fmean(first), statistics.fmean(last)


def run(folder: Path, days: int = 365) -> Iterator[Figure]:
    """Live through a year and compare its ends; the limit of each figure is the first month's."""
    spent = live_through(Year(folder / "year"), days)
    for what, each in spent.items():
        for name, unit in (("cpu_s", "CPU s"), ("requests", "requests"), ("stored_bytes", "bytes")):
            first, last = months(each, name, days - 1)
            yield Figure(
                "year",
                f"one {what} in the last month of {days} days: {name}. Aim: 1.1 times the first month",
                float(last),
                Limit("the same in the first month", float(first), unit),
                unit=unit,
            )
