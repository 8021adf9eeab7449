"""Days of a model carried through ingest, features, materialize and score as the DAGs carry them, and what comes out.

``in_sequence`` runs them one after another; ``in_any_order`` deals
them out at random to several processes, where a day that has to wait for others is tried
again later. Both run as replays, like a backfill.
"""

import hashlib
import random
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from fork_server import fork_context
from windsock.completeness import FEATURES, feature_stages
from windsock.errors import DayRejected, NotReady
from windsock.featurestore.repo import feast_home
from windsock.ledger import Ledger
from windsock.promotions import Promotion, append, current
from windsock.registry.versions import folder_hash
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step
from windsock.store import Store
from windsock.version_index import VersionInfo, record_version

Task = tuple[str, date]
"""``ingest`` and a day, or ``follow`` and a day: what comes of its events."""


@dataclass
class Course:
    """How a run in any order went."""

    waits: int = 0
    """How often a day found that it had to wait for others."""
    order: list[date] = field(default_factory=list)
    """Days in the order in which they were finished."""


def ingest(settings: Settings, day: date) -> dict[str, Any] | None:
    """Ingest a day; None if its delivery was rejected."""
    try:
        return _step(settings, "ingest", day)
    except DayRejected:
        return None


def follow(settings: Settings, day: date) -> None:
    """Run what follows from a day's events.

    Raises:
        NotReady: Other days must come first.
    """
    for step in ("features", "materialize", "score"):
        _step(settings, step, day)


def _step(settings: Settings, step: str, day: date) -> dict[str, Any]:
    return run_step(step, model="fraud", key=str(day), live=False, settings=settings)


def perform(settings: Settings, task: Task) -> list[Task]:
    """Run a task; return what is to be run next: what follows, or the same again if it has to wait."""
    what, day = task
    if what == "ingest":
        result = ingest(settings, day)
        days = [] if result is None else [day, *map(date.fromisoformat, result["refresh"])]
        return [("follow", d) for d in days]
    try:
        follow(settings, day)
    except NotReady:
        return [task]
    return []


def in_sequence(settings: Settings, days: Sequence[date]) -> Course:
    """Run days one after another, in this process."""
    course = Course()
    for day in days:
        for task in perform(settings, ("ingest", day)):
            course.waits += len(perform(settings, task))
            course.order.append(task[1])
    return course


def in_any_order(settings: Settings, days: Iterable[date], seed: int, processes: int = 4) -> Course:
    """Run days at random, several at a time in as many processes; days that must wait are tried again at random."""
    dice, course = random.Random(seed), Course()
    backlog: list[Task] = [("ingest", day) for day in days]
    running: dict[Future[list[Task]], Task] = {}
    with pool(processes) as workers:
        while backlog or running:
            while backlog and len(running) < processes:
                task = backlog.pop(dice.randrange(len(backlog)))
                running[workers.submit(perform, settings, task)] = task
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                task, left = running.pop(done), done.result()
                backlog += left
                if task[0] == "follow":
                    course.waits += len(left)
                    course.order += [] if left else [task[1]]
    return course


def register(settings: Settings, spec: ModelSpec, version: str, run: str, as_of: date) -> None:
    """Make a finished run a version, without MLflow."""
    digest = folder_hash(Store.of(settings), "runs", spec.name, run, "model")
    record_version(settings, VersionInfo(spec.name, version, run, as_of, model_hash=digest))


def put_in_force(settings: Settings, spec: ModelSpec, version: str, run: str, day: date, as_of: date) -> None:
    """Register a finished run as a version and make it champion for events from ``day`` on, without MLflow and gate."""
    register(settings, spec, version, run, as_of)
    last = current(settings, spec)
    entry = Promotion(0, "promote", version, run, last.version if last else None, day, as_of, "test")
    append(settings, spec, entry, after=last)


def pool(processes: int) -> ProcessPoolExecutor:
    """Start processes from one that has the heavy libraries imported."""
    return ProcessPoolExecutor(processes, mp_context=fork_context())


def published(settings: Settings, stage: str) -> dict[str, Any]:
    """Return what a stage, or all tables of features, published.

    Returns:
        Per day the content hash and the inputs of each record, and SHA-256 of each Parquet file.
    """
    store, found = Store.of(settings), dict[str, tuple[dict[str, Any], ...]]()
    for name in feature_stages(store, "fraud") if stage == FEATURES else [stage]:
        for day, record in Ledger(store, "fraud", name).all().items():
            hashes, inputs, files = found.setdefault(str(day), ({}, {}, {}))
            hashes[name], inputs[name] = record.content_hash, dict(record.inputs)
            for output, written in record.outputs.items():
                files[output] = [hashlib.sha256(store.read_bytes(file)).hexdigest() for file in written.files]
    return found


def online_content(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of the embedded online store, its notes of materialized days included."""
    with closing(sqlite3.connect(feast_home(settings) / "online.db")) as connection:
        names = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        return {name: sorted(connection.execute(f'select * from "{name}"')) for name in names}
