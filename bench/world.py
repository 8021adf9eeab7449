"""Days of simulated payments, ingested by the real step, that the data benches share."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import yaml

from bench.figures import say
from windsock.days import day_range
from windsock.features.feature_tables import FeatureRecords, feature_tables
from windsock.ledger import DayRecord, Ledger
from windsock.settings import REPO_ROOT, Settings
from windsock.spec import ModelSpec, get_spec
from windsock.steps import run_step
from windsock.store import Store

MODEL = "fraud"
_FIRST_DAY = date(2026, 3, 1)
_SAY_EVERY_S = 15.0


@dataclass(frozen=True)
class Size:
    """How much data and how many repetitions."""

    days: int = 136
    customers: int = 5_000
    terminals: int = 10_000
    join_rows: int = 1_000_000
    tasks: int = 20
    stack_runs: int = 3
    asset_keys: int = 10
    data_runs: int = 3
    idle_s: float = 300.0
    recovery: tuple[range, int] = (range(10), 200)
    """Seeds, and worlds without a change."""

    @classmethod
    def quick(cls) -> Size:
        """Return a size that only shows that everything runs; its figures mean nothing."""
        return cls(10, 300, 600, 20_000, 4, 1, 3, 2, 5.0, (range(0), 20))


class World:
    """One home below a scratch folder; each part is made when it is first asked for."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder = folder
        self.size = size

    @cached_property
    def settings(self) -> Settings:
        """Settings of the home, with the reference model in the wanted size."""
        home = self.folder / "data"
        target = home / "models" / MODEL
        shutil.copytree(REPO_ROOT / "include" / "models" / MODEL, target)
        raw = yaml.safe_load((target / "model.yaml").read_text(encoding="utf-8"))
        raw["first_day"] = _FIRST_DAY.isoformat()
        raw["source"] = {
            "kind": "simulator",
            "seed": 0,
            "customers": self.size.customers,
            "terminals": self.size.terminals,
        }
        (target / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        return Settings.from_env({"WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(home / "models")})

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead a child process to this home."""
        settings = self.settings
        return {"WINDSOCK_HOME": str(settings.home), "WINDSOCK_MODELS": str(settings.models[0])}

    @cached_property
    def spec(self) -> ModelSpec:
        """The model."""
        return get_spec(self.settings, MODEL)

    @property
    def store(self) -> Store:
        """The home's store."""
        return Store.of(self.settings)

    @property
    def days(self) -> list[date]:
        """Every day there is."""
        return day_range(_FIRST_DAY, _FIRST_DAY + timedelta(days=self.size.days - 1))

    @cached_property
    def ingest_seconds(self) -> list[float]:
        """Seconds of each day's ingest; asking for them ingests the days."""
        return self._each_day("ingest")

    @cached_property
    def ingested(self) -> Mapping[date, DayRecord]:
        """Ingest records of every day."""
        _ = self.ingest_seconds
        return Ledger.of(self.settings, MODEL, "ingest").all()

    @cached_property
    def feature_seconds(self) -> list[float]:
        """Seconds of each day's features; asking for them builds the days, in order."""
        _ = self.ingested
        return self._each_day("features")

    @cached_property
    def featured(self) -> FeatureRecords:
        """Feature records of every day, by table."""
        _ = self.feature_seconds
        return {table.name: table.ledger(self.store).all() for table in feature_tables(self.spec)}

    def _each_day(self, step: str) -> list[float]:
        say(f"{step} of {len(self.days)} days ...")
        seconds, said = [], time.monotonic()
        for done, day in enumerate(self.days):
            if time.monotonic() - said > _SAY_EVERY_S:
                said = time.monotonic()
                say(f"{step}: {done} of {len(self.days)}")
            began = time.perf_counter()
            # Replayed, as a backfill does it: no page of Data Docs after each day.
            run_step(step, model=MODEL, key=day.isoformat(), live=False, settings=self.settings)
            seconds.append(time.perf_counter() - began)
        return seconds
