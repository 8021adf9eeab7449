"""A small churn model with daily files, for tests of what feature SQL may say."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from windsock import tables
from windsock.completeness import lookback
from windsock.features.feature_tables import FeatureTable, feature_table
from windsock.features.view_sql import compute_view
from windsock.ledger import DayRecord, Ledger
from windsock.lint import lint_model
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.spec.modelling import FeatureView
from windsock.steps import run_step
from windsock.store import Store

DAY = date(2026, 3, 1)
HEAD = "select customer_id, seen_at as event_timestamp, "
COLUMNS = {"event_id": "int64", "seen_at": "timestamp", "customer_id": "int64", "minutes": "double"}
USAGE = (
    HEAD + "count(*) over w as n_1d, avg(minutes) over w as mean_1d from events window w as "
    "(partition by customer_id order by epoch_us(seen_at) range between 86399999999 preceding and current row)"
)


@dataclass(frozen=True)
class Churn:
    """One installation with the model in it."""

    home: Path
    settings: Settings

    @classmethod
    def make(cls, home: Path, sql: str = USAGE, **fields: Any) -> "Churn":
        """Write the model below a folder; ``a__b`` names a field of a field."""
        spec: dict[str, Any] = {
            "name": "churn",
            "owner": "growth",
            "description": "Will this customer leave?",
            "first_day": DAY,
            "source": {"kind": "files", "url": "../../inbox/{ds}.parquet"},
            "events": {"time": "seen_at", "key": "event_id", "columns": dict(COLUMNS)},
            "entities": {"customer": "customer_id"},
            "label": {"column": "churned", "task": "binary", "delay_days": 2},
            "features": {
                "row": {"minutes": "minutes"},
                "views": [{"name": "usage", "entity": "customer", "sql": "usage.sql", "lookback_days": 2}],
            },
            "training": {
                "window_days": 4,
                "holdout_days": 2,
                "metric": "average_precision",
                "estimator": {"trials": 1, "rounds": 20, "params": {"min_child_samples": 5}},
            },
            "gate": {"floors": {"average_precision": 0.05}},
        }
        for name, value in fields.items():
            *path, last = name.split("__")
            part = spec
            for step in path:
                part = part[step]
            part[last] = value
        folder = home / "models" / "churn"
        folder.mkdir(parents=True, exist_ok=True)
        (home / "inbox").mkdir(exist_ok=True)
        (folder / "usage.sql").write_text(sql)
        (folder / "model.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
        return cls(home, Settings.from_env({"WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(home / "models")}))

    @property
    def spec(self) -> ModelSpec:
        return get_spec(self.settings, "churn")

    @property
    def view(self) -> FeatureView:
        return self.spec.features.views[0]

    @property
    def table(self) -> FeatureTable:
        return feature_table(self.spec, self.view)

    @property
    def store(self) -> Store:
        return Store.of(self.settings)

    def write_sql(self, sql: str) -> None:
        (self.home / "models" / "churn" / "usage.sql").write_text(sql)

    def lint(self, *, data: bool = False) -> list[str]:
        path = self.home / "models" / "churn" / "model.yaml"
        return lint_model("churn", path, self.settings if data else None).faults

    def step(self, name: str, day: date = DAY, **options: Any) -> dict[str, Any]:
        return run_step(name, model="churn", key=day.isoformat(), settings=self.settings, options=options)

    def unkeyed(self, step: str, *, origin: str = "manual", **options: Any) -> dict[str, Any]:
        """Run a step that works on no day."""
        return run_step(step, model="churn", settings=self.settings, origin=origin, options=options)

    def train(self, as_of: date) -> str:
        """Train as the DAG does, up to the finished run, and return its name."""
        for day in self.unkeyed("prepare", as_of=str(as_of))["days"]:
            self.step("features", date.fromisoformat(day))
        run = str(self.unkeyed("assemble", as_of=str(as_of))["run"])
        for step in ("fit", "choose"):
            self.unkeyed(step, run=run)
        return run

    def copied(self, home: Path, sql: str = USAGE, **fields: Any) -> "Churn":
        """Copy the installation for a test that changes it, with other SQL or other fields if wanted."""
        shutil.copytree(self.home, home, dirs_exist_ok=True)
        return Churn.make(home, sql, **fields)

    def files(self, *parts: str) -> dict[str, tuple[str, int]]:
        """Return the files of a folder of the store; see :func:`files_below`."""
        return files_below(Path(self.settings.store, *parts))

    def ingest(self, rows: pa.Table, day: date = DAY) -> None:
        """Deliver a day and run the ingest step."""
        pq.write_table(rows, self.home / "inbox" / f"{day}.parquet")
        self.step("ingest", day)

    def record(self, stage: str = "ingest", day: date = DAY) -> DayRecord:
        record = Ledger.of(self.settings, "churn", stage).get(day)
        assert record is not None
        return record

    def leave_features_of_0_1(self, days: Sequence[date]) -> None:
        """Write the features of some days as version 0.1 did: one record for all views, by the text of their SQL."""
        spec, ledger = self.spec, Ledger(self.store, "churn", "features")
        for day in days:
            first, last = lookback(day, spec.features.lookback_days)
            ingested = Ledger(self.store, "churn", "ingest").between(first, last)
            inputs = {f"ingest/{d}": record.data_hash for d, record in ingested.items()}
            outputs = {}
            for view in spec.features.views:
                events, labels = (
                    read(self.store, spec, ingested.values()) for read in (tables.read_events, tables.read_labels)
                )
                rows = compute_view(spec, view, events, labels, day)
                name = f"features/{view.name}"
                inputs[f"sql/{view.name}"] = hashlib.sha256(spec.sql_of(view).encode()).hexdigest()
                outputs[name] = tables.write_day(self.store, "churn", name, day, rows)
            ledger.publish(DayRecord(day.isoformat(), "published", outputs, inputs, {"warm": True}))

    def features(self) -> pa.Table:
        """Return the first day's rows of the view."""
        return self.rows(self.table.name, self.table.name)

    def rows(self, table: str, stage: str = "ingest", days: int = 1) -> pa.Table:
        records = [self.record(stage, DAY + timedelta(days=n)) for n in range(days)]
        found = tables.read(self.store, records, table)
        assert found is not None
        return found


def files_below(folder: Path) -> dict[str, tuple[str, int]]:
    """Return every file below a folder with its content's hash and the time it was written."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def delivery(day: date = DAY, rows: int = 200, more: Mapping[str, pa.Array] | None = None) -> pa.Table:
    """Make a day of events of 40 customers, evenly spaced, with labels and more columns."""
    dice = np.random.default_rng(day.toordinal())
    start, minutes = datetime(day.year, day.month, day.day), dice.exponential(30, rows).round(2)
    columns: Mapping[str, pa.Array] = {
        "event_id": pa.array([day.toordinal() * 100_000 + n for n in range(rows)]),
        "seen_at": pa.array([start + timedelta(seconds=n * (86_400 // rows)) for n in range(rows)]),
        "customer_id": pa.array([n % 40 for n in range(rows)]),
        "minutes": pa.array(minutes),
        "churned": pa.array((minutes + dice.normal(0, 10, rows) < 12).astype(int)),
    }
    return pa.table({**columns, **(more or {})})
