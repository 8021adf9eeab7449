"""``usual``: what a usual day, a verdict and a look at the DAG files cost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import yaml

from bench.figures import Figure, Limit, say, spread, time_runs
from bench.world import MODEL, World
from windsock import tables
from windsock.gate.compare import compare
from windsock.ingest.sources import simulator
from windsock.promotions import Promotion, append
from windsock.registry.versions import folder_hash
from windsock.served.resampling import ClusteredRows
from windsock.settings import REPO_ROOT
from windsock.spec import get_spec
from windsock.spec.sources import SimulatorSource
from windsock.steps import run_step
from windsock.version_index import VersionInfo, record_version

_PARSE = """
import time
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk import DAG
folder = Path("dags")
began = time.process_time()
for file in folder.glob("*.py"):
    compile(file.read_bytes(), file, "exec")
compiled = time.process_time()
bag = BundleDagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="dags-folder")
print(compiled - began, time.process_time() - compiled, len(bag.dags))
"""
_VERSION = "1"


def run(world: World) -> Iterator[Figure]:
    """Measure each; a scored day and a monitored night only where there are days enough to train a champion."""
    yield _simulated(world)
    yield _judged(world)
    yield _parsed(world)
    training = world.spec.training
    needed = world.spec.features.lookback_days + training.window_days + training.holdout_days
    if len(world.days) < needed + 2 * world.spec.label.delay_days:
        say("usual: too few days for a champion, so no day is scored and no night monitored")
        return
    _crown(world)
    yield from _scored_and_monitored(world)


def _simulated(world: World) -> Figure:
    source = SimulatorSource(kind="simulator", customers=world.size.customers, terminals=world.size.terminals)
    first, day = world.days[0], world.days[-1]
    rows = simulator.transactions(source, first, day)
    timing = time_runs(lambda: simulator.transactions(source, first, day), world.size.data_runs)
    limit = time_runs(lambda: np.random.default_rng(0).random((rows.num_columns, rows.num_rows)), 5)
    what = Limit("draw one random number for each of its values", limit.median)
    return Figure(
        "usual",
        "a simulated day. Aim: 0.3 s",
        timing.median,
        what,
        context={"rows": rows.num_rows, **timing.context()},
    )


def _judged(world: World) -> Figure:
    entities, rows_each, resamples = 5_000, 12, 400
    rng = np.random.default_rng(7)
    entity = np.repeat(np.arange(entities), rows_each)
    score = rng.normal(size=entities)[entity] + rng.normal(size=len(entity))
    label = (score + rng.normal(size=len(score)) > 1.5).astype(float)
    rows = ClusteredRows(label, np.tile(np.arange(rows_each), entities), entity, entity, "entity")
    other = score + rng.normal(size=len(score))
    spec = world.spec.model_copy(update={"gate": world.spec.gate.model_copy(update={"resamples": resamples})})
    timing = time_runs(lambda: compare(spec, rows, other, score, margin=0.0), world.size.data_runs)
    limit = time_runs(lambda: [np.cumsum(label) for _ in range(2 * resamples)], 3)
    return Figure(
        "usual",
        f"the gate's verdict on {len(score):,} rows, {resamples} resamples. Aim: 8 CPU seconds",
        timing.median,
        Limit("add up the labels once per resample and model, were the rows in order", limit.median),
        context=timing.context(),
    )


def _parsed(world: World) -> Figure:
    env = {**os.environ, **world.env}
    found = []
    for _ in range(world.size.data_runs):
        done = subprocess.run(
            [sys.executable, "-c", _PARSE], cwd=REPO_ROOT, env=env, capture_output=True, text=True, check=True
        )
        found.append([float(number) for number in done.stdout.splitlines()[-1].split()])
    compiled, parsed = spread([row[0] for row in found]), spread([row[1] for row in found])
    return Figure(
        "usual",
        "parsing the DAG files of one model in a fresh process. Aim: 2 CPU seconds",
        parsed["median"],
        Limit("compile the same files", compiled["median"]),
        unit="CPU s",
        context={"dags": int(found[0][2]), **parsed},
    )


def _crown(world: World) -> None:
    """Train one small version on the last days and put it in force for the very last."""
    _ = world.featured
    path = world.settings.models[0] / MODEL / "model.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    del raw["training"]["estimators"]
    raw["training"]["estimator"] = {"kind": "lightgbm", "trials": 1, "rounds": 200}
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    say("usual: training a champion ...")
    run_name = run_step("assemble", model=MODEL, settings=world.settings, origin="bench")["run"]
    for step in ("fit", "choose"):
        run_step(step, model=MODEL, settings=world.settings, options={"run": run_name})
    day, digest = world.days[-1], folder_hash(world.store, "runs", MODEL, run_name, "model")
    as_of = day - timedelta(days=1)
    record_version(world.settings, VersionInfo(MODEL, _VERSION, run_name, as_of, model_hash=digest))
    entry = Promotion(0, "promote", _VERSION, run_name, None, day, as_of, "bench")
    append(world.settings, get_spec(world.settings, MODEL), entry, after=None)


def _scored_and_monitored(world: World) -> Iterator[Figure]:
    day = world.days[-1]
    rows = world.ingested[day].rows("events")

    def read() -> None:
        for name, days in world.featured.items():
            tables.read(world.store, [days[day]], name)

    limit = Limit("read the day's feature rows once", time_runs(read, 5).median)
    for step, what, options in (
        ("score", "a day scored again. Aim: 1 CPU second", {"rescore": True}),
        ("monitor", "a night's drift report. Aim: 6 CPU seconds", {}),
    ):

        def once(step: str = step, options: dict[str, bool] = options) -> None:
            run_step(step, model=MODEL, key=day.isoformat(), live=False, settings=world.settings, options=options)

        once()  # imports
        timing = time_runs(once, world.size.data_runs)
        yield Figure("usual", what, timing.median, limit, context={"rows": rows, **timing.context()})
