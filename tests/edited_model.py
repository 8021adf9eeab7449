"""A small model in a git checkout, with a store that looks lived in: for tests of what an edit means."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

from churn_model import DAY, Churn, files_below
from windsock import promotions
from windsock.days import day_range
from windsock.features.feature_tables import feature_table
from windsock.features.frozen import definitions_of
from windsock.features.inputs import inputs_of_day, reads_of
from windsock.ingest.records import NO_SOURCE
from windsock.ledger import DayRecord, Ledger, Output
from windsock.plan.base import CHAMPION, revision
from windsock.plan.change import ModelPlan
from windsock.plan.compare import SPECS_ALONE, Looks, models_of, plan_model
from windsock.promotions import Promotion, append
from windsock.settings import Settings
from windsock.spec import ModelSpec, find_specs, get_spec
from windsock.version_index import VersionInfo, record_version

LAST = DAY + timedelta(days=19)
SECONDS = 2.0
"""How long each stored day took."""

RISK = (
    "select customer_id, seen_at as event_timestamp, avg(churned) over w as risk from history window w as "
    "(partition by customer_id order by epoch_us(seen_at) "
    "range between 345600000000 preceding and 172800000000 preceding)"
)
"""Reads labels, with their delay of two days written into its frame."""


@dataclass(frozen=True)
class Edited:
    """One checkout of the model, to be edited."""

    home: Path

    @property
    def settings(self) -> Settings:
        return Settings.from_env({"WINDSOCK_HOME": str(self.home), "WINDSOCK_MODELS": str(self.home / "models")})

    @property
    def spec(self) -> ModelSpec:
        return get_spec(self.settings, "churn")

    @property
    def folder(self) -> Path:
        return self.home / "models" / "churn"

    def set(self, path: str, value: Any) -> None:
        """Set a field of ``model.yaml``; ``a.b`` names a field of a field, None takes it out."""
        raw = yaml.safe_load((self.folder / "model.yaml").read_text())
        *outer, last = path.split(".")
        part = raw
        for name in outer:
            part = part[int(name)] if isinstance(part, list) else part.setdefault(name, {})
        if value is None:
            del part[last]
        else:
            part[last] = value
        (self.folder / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))

    def rewrite(self, file: str, before: str, after: str) -> None:
        """Replace a part of a file, which must be there."""
        text = (self.folder / file).read_text()
        assert before in text
        (self.folder / file).write_text(text.replace(before, after))

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.home), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def snapshot(self) -> dict[str, tuple[str, int]]:
        """Return every file below the home with its content's hash and the time it was written."""
        return files_below(self.home)


def make_checkout(home: Path) -> Edited:
    """Write the model, commit it, and fill its store: twenty days, their features, two champions in turn."""
    view = {"entity": "customer", "lookback_days": 2, "ttl_days": 5}
    churn = Churn.make(
        home,
        events__columns={
            "event_id": "int64",
            "seen_at": "timestamp",
            "customer_id": "int64",
            "minutes": "double",
            "n": "int64",
        },
        features__row={"minutes": "minutes", "calls": "n"},
        features__views=[{"name": "usage", "sql": "usage.sql", **view}, {"name": "risk", "sql": "risk.sql", **view}],
    )
    (home / "models" / "churn" / "risk.sql").write_text(RISK)
    (home / "models" / "churn" / "expectations.json").write_text('{"expectations": []}')
    (home / ".gitignore").write_text("/store/\n/inbox/\n")
    edited = Edited(home)
    edited.git("init", "--quiet", "--initial-branch", "main")
    edited.git("add", ".")
    edited.git("commit", "--quiet", "--message", "The model")
    fill_store(churn.settings, churn.spec, LAST)
    for version, in_force in (("1", DAY + timedelta(days=12)), ("2", DAY + timedelta(days=15))):
        promote(churn.settings, churn.spec, version, in_force)
    return edited


def fill_store(settings: Settings, spec: ModelSpec, last: date, first: date | None = None) -> None:
    """Put records of ingested days and of their features into the ledger, as the steps would, without any rows."""
    days = day_range(first or spec.first_day, last)
    source = {"source": dict(NO_SOURCE)}
    for stage_day in days:
        columns = {name: hashlib.sha256(f"{name} {stage_day}".encode()).hexdigest() for name in spec.events.columns}
        key = spec.events.key
        outputs = {
            "events": Output(0, columns[key], (), (), {**columns, "known_at": columns[key]}),
            "labels": Output(
                0, columns[key], (), (), dict.fromkeys((key, spec.label.column, "event_time"), columns[key])
            ),
        }
        Ledger.of(settings, spec.name, "ingest").publish(DayRecord(str(stage_day), "published", outputs, {}, source))
    events = Ledger.of(settings, spec.name, "ingest").between(days[0], last)
    for view in spec.features.views:
        ledger, reads = Ledger.of(settings, spec.name, feature_table(spec, view).name), reads_of(spec, view)
        for day in days:
            marks = inputs_of_day(spec, view, day, events, events).marks(reads)
            ledger.publish(DayRecord(str(day), "published", {}, marks, {"reads": reads}, seconds=SECONDS))


def promote(settings: Settings, spec: ModelSpec, version: str, in_force_from: date) -> None:
    """Register a version of a spec's definitions and put it in force."""
    as_of, previous = in_force_from - timedelta(days=1), str(int(version) - 1) if version != "1" else None
    record_version(settings, VersionInfo("churn", version, f"run-{version}", as_of, definitions=definitions_of(spec)))
    entry = Promotion(0, "promote", version, f"run-{version}", previous, in_force_from, as_of, "test")
    append(settings, spec, entry, after=promotions.current(settings, spec))


def copied(checkout: Edited, home: Path) -> Edited:
    """Copy a checkout for a test that edits it."""
    shutil.copytree(checkout.home, home, dirs_exist_ok=True)
    return Edited(home)


def plans_of(edited: Edited, against: str | None = None, looks: Looks = SPECS_ALONE) -> list[ModelPlan]:
    """Return the plan of every model of a checkout."""
    settings = edited.settings
    specs = find_specs(settings.models)
    with revision(settings.models, against) as was:
        return [
            plan_model(settings, name, specs.get(name), was, named=against not in (None, CHAMPION), looks=looks)
            for name in models_of(specs, was, ())
        ]


Edit = Callable[[Edited], None]
