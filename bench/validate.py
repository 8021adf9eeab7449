"""``validate``: the model's expectations on one day, and on all days' rows at once; beside another revision."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Figure, Limit, say, spread, time_runs
from bench.world import World
from windsock import tables
from windsock.days import start_of
from windsock.settings import REPO_ROOT
from windsock.validate.engine import Broken, validate
from windsock.validate.suites import expectations_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


_ROUNDS = 3


def run(world: World, against: str | None = None) -> Iterator[Figure]:
    """Measure ``validate`` alone: rows in memory in, findings out; and beside the revision ``against``, if given."""
    day = world.days[-1]
    cases = (
        ("validation of one day", _rows(world, [day], day), 3 * world.size.data_runs),
        (
            f"validation of {len(world.days)} days' rows as one delivery",
            _rows(world, world.days, day),
            world.size.data_runs,
        ),
    )
    validate(world.settings, world.spec, day, cases[0][1])  # opens the context, imports what it needs
    for what, rows, runs in cases:
        yield _figure(world, what, rows, runs)
    if against is not None:
        before = _unpacked(world.folder, against)
        for what, rows, runs in cases:
            yield _beside(world, f"{what}, beside {against}", rows, runs, before)


def _unpacked(folder: Path, revision: str) -> Path:
    """Lay a revision of this repository out in a folder."""
    packed = subprocess.run(["git", "archive", revision], cwd=REPO_ROOT, stdout=subprocess.PIPE, check=True).stdout
    target = folder / "before"
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(target, filter="data")
    return target


def _beside(world: World, what: str, rows: pa.Table, runs: int, before: Path) -> Figure:
    """Let both revisions validate the same rows, in turns: what else the machine does then weighs on both."""
    import pyarrow.parquet as pq

    say(f"{what}: {rows.num_rows:,} rows, {_ROUNDS} rounds of {runs} runs each ...")
    path = world.folder / "rows.parquet"
    pq.write_table(rows, path)
    then: dict[str, list[float]] = {"seconds": [], "cpu_s": []}
    now: dict[str, list[float]] = {"seconds": [], "cpu_s": []}
    for _ in range(_ROUNDS):
        for side, root in ((then, before), (now, REPO_ROOT)):
            for name, values in _child(world, root, path, runs).items():
                side[name] += values
    cpu_then, cpu_now = spread(then["cpu_s"])["median"], spread(now["cpu_s"])["median"]
    return Figure(
        "validate",
        what,
        spread(now["seconds"])["median"],
        Limit("no limit: the other revision's time of the same rows", spread(then["seconds"])["median"]),
        context={"rows": rows.num_rows, **spread(now["seconds"]), "cpu_s": cpu_now, "cpu_s_before": cpu_then,
                 "times_cpu": cpu_now / cpu_then},
    )  # fmt: skip


def _child(world: World, root: Path, rows: Path, runs: int) -> dict[str, Any]:
    env = {**os.environ, **world.env, "PYTHONPATH": f"{root / 'include'}",
           "WINDSOCK_GX_ROOT": f"{root / 'great_expectations'}"}  # fmt: skip
    command = [sys.executable, "-m", "bench.validate_child", str(rows), str(world.days[-1]), str(runs)]
    done = subprocess.run(command, env=env, cwd=REPO_ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _figure(world: World, what: str, rows: pa.Table, runs: int) -> Figure:
    say(f"{what}: {rows.num_rows:,} rows, {runs} runs ...")
    found: list[list[Broken]] = []
    timing = time_runs(lambda: found.append(validate(world.settings, world.spec, world.days[-1], rows)[0]), runs)
    columns = _columns(rows)
    limit = time_runs(lambda: _one_pass(columns), 5)
    return Figure(
        "validate",
        what,
        timing.median,
        Limit(
            "one numpy pass over the same columns in memory: smallest and largest (a NaN shows in them)", limit.median
        ),
        context={
            "rows": rows.num_rows,
            "expectations": len(expectations_of(world.settings, world.spec)),
            "broken": len(found[-1]),
            **timing.context(),
            "rows_per_s": rows.num_rows / timing.median,
        },
    )


def _rows(world: World, days: list[date], as_of: date) -> pa.Table:
    """Return rows as delivered: events with their label, all times moved to one day."""
    import pyarrow as pa
    import pyarrow.compute as pc

    spec = world.spec
    records = [world.ingested[day] for day in days]
    events = tables.read(world.store, records, "events", list(spec.events.columns))
    labels = tables.read(world.store, records, "labels", [spec.events.key, spec.label.column])
    if events is None or labels is None:
        raise RuntimeError("No events were ingested.")
    rows = events.join(labels, spec.events.key).sort_by(spec.events.key)
    place = rows.column_names.index(spec.events.time)
    times = rows.column(place)
    into_day = pc.subtract(times, pc.floor_temporal(times, unit="day"))
    moved = pc.add(into_day, pa.scalar(start_of(as_of), pa.timestamp("us")))
    return rows.set_column(place, pa.field(spec.events.time, pa.timestamp("us")), moved).combine_chunks()


def _columns(rows: pa.Table) -> list[np.ndarray]:
    columns = [column.to_numpy() for column in rows.columns]
    return [column.view("int64") if column.dtype.kind == "M" else column for column in columns]


def _one_pass(columns: list[np.ndarray]) -> None:
    for column in columns:
        column.min()
        column.max()
