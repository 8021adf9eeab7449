"""``plan``: what ``windsock plan`` takes on a store of 400 days, for an edit of one of two views."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from bench.figures import Figure, Limit, say, time_runs
from bench.world import MODEL, Size
from windsock import promotions, tables
from windsock.column_types import ARROW_TYPES
from windsock.days import day_range
from windsock.features.feature_tables import feature_table
from windsock.features.frozen import definitions_of
from windsock.features.inputs import inputs_of_day, reads_of
from windsock.ingest.records import NO_SOURCE
from windsock.ingest.sources.delivery import fetch
from windsock.ingest.step import with_known_at
from windsock.ledger import DayRecord, Ledger, Output
from windsock.settings import REPO_ROOT, Settings
from windsock.spec import ModelSpec, get_spec
from windsock.store import Store
from windsock.version_index import VersionInfo, record_version

_DAYS, _QUICK_DAYS = 400, 70
_FIRST_DAY = date(2025, 1, 1)
_EDIT = ("1209599999999 preceding", "1814399999999 preceding")
"""In ``terminal_risk.sql``: the window of seven days becomes one of fourteen."""


def run(folder: Path, size: Size) -> Iterator[Figure]:
    """Measure the command as people run it, its start included."""
    home = folder / "plan"
    days = day_range(_FIRST_DAY, _FIRST_DAY + timedelta(days=(_DAYS if size.days > _QUICK_DAYS else _QUICK_DAYS) - 1))
    say(f"plan: a store of {len(days)} days ...")
    settings, spec = _checkout(home)
    _fill(settings, spec, days)
    view = spec.folder / "terminal_risk.sql"
    view.write_text(view.read_text(encoding="utf-8").replace(*_EDIT), encoding="utf-8")
    records = (
        Ledger.of(settings, MODEL, "ingest"),
        *(Ledger.of(settings, MODEL, feature_table(spec, each).name) for each in spec.features.views),
    )
    read = time_runs(lambda: [ledger.all() for ledger in records], size.data_runs).median
    limit = Limit("read every day record of the model once", read)
    environment = {**os.environ, "WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(home / "models")}
    for options, aim in (([], 5), (["--values"], 30)):
        command = [sys.executable, "-m", "windsock.cli", "plan", *options]

        def plan(command: list[str] = command) -> None:
            code = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode
            if code != 2:
                raise RuntimeError(f"{' '.join(command)} ended with {code}, not with 2")

        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        timing = time_runs(plan, size.data_runs)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
        what = " ".join(["windsock plan", *options])
        context = {"days": len(days), "aim_s": aim, **timing.context(), "cpu_s": spent / size.data_runs}
        yield Figure("plan", f"{what}, one of two views edited", timing.median, limit, context=context)


def _checkout(home: Path) -> tuple[Settings, ModelSpec]:
    """Put the reference model under git."""
    shutil.copytree(REPO_ROOT / "include" / "models" / MODEL, home / "models" / MODEL)
    path = home / "models" / MODEL / "model.yaml"
    text = path.read_text(encoding="utf-8").replace("first_day: 2026-09-01", f"first_day: {_FIRST_DAY}")
    path.write_text(text, encoding="utf-8")
    for command in (["init", "--quiet"], ["add", "models"], ["commit", "--quiet", "--message", "The model"]):
        names = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        subprocess.run(["git", "-C", str(home), *names, *command], check=True)
    settings = Settings.from_env({"WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(home / "models")})
    return settings, get_spec(settings, MODEL)


def _fill(settings: Settings, spec: ModelSpec, days: list[date]) -> None:
    """Write the records that the steps would, with rows for the last lookback alone, and promote a version."""
    store, ingest = Store.of(settings), Ledger.of(settings, MODEL, "ingest")
    with_rows = set(days[-spec.features.lookback_days - 1 :])
    for day in days:
        outputs = _real(store, spec, day) if day in with_rows else _empty(spec, day)
        ingest.publish(DayRecord(str(day), "published", outputs, detail={"source": dict(NO_SOURCE)}))
    events = ingest.between(days[0], days[-1])
    for view in spec.features.views:
        ledger, reads = Ledger(store, MODEL, feature_table(spec, view).name), reads_of(spec, view)
        for day in days:
            marks = inputs_of_day(spec, view, day, events, events).marks(reads)
            ledger.publish(DayRecord(str(day), "published", {}, marks, {"reads": reads}, seconds=0.5))
    info = VersionInfo(MODEL, "1", "run-1", days[-20], definitions=definitions_of(spec))
    record_version(settings, info)
    entry = promotions.Promotion(0, "promote", "1", "run-1", None, days[-19], days[-20], "bench")
    promotions.append(settings, spec, entry, after=None)


def _real(store: Store, spec: ModelSpec, day: date) -> dict[str, Output]:
    rows = fetch(spec, day).rows
    assert rows is not None
    columns = [name for name in (*spec.events.columns, spec.label.column) if name in rows.column_names]
    rows = rows.select(columns)
    for n, (name, kind) in enumerate(spec.events.columns.items()):
        rows = rows.set_column(n, name, rows[name].cast(ARROW_TYPES[kind]))
    labels = rows.select([spec.events.key, spec.label.column]).append_column("event_time", rows[spec.events.time])
    wanted = {"events": with_known_at(spec, day, rows), "labels": labels}
    return {name: tables.write_day(store, MODEL, name, day, table) for name, table in wanted.items()}


def _empty(spec: ModelSpec, day: date) -> dict[str, Output]:
    columns = [*spec.events.columns, "known_at"]
    found = {}
    for table, names in (("events", columns), ("labels", [spec.events.key, spec.label.column, "event_time"])):
        hashes = {name: hashlib.sha256(f"{table} {name} {day}".encode()).hexdigest() for name in names}
        found[table] = Output(0, next(iter(hashes.values())), (), (), hashes)
    return found
