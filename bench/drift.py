"""``drift``: a million recent rows against a million of the reference, 100 columns: ours, plain SciPy, plain Evidently.

Each in a process of its own, which reads the rows first (not timed) and tells its largest memory, rows included. Plain
SciPy and Evidently compute each column's distance from all rows and nothing else; ours measures chance on days and
entities besides. How far our distances are from SciPy's is a figure of its own.
"""

from __future__ import annotations

import multiprocessing
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.figures import Figure, Limit, say
from windsock.served.metrics import SCORE
from windsock.spec import ModelSpec

_NUMBERS, _TEXTS, _MOVED = 90, 10, 10
_DAYS, _ENTITIES = 28, 1000
_MATTERS = 0.01
"""Smaller distances are nobody's alarm; a share of nothing says nothing."""
Distances = dict[str, float]


def run(spec: ModelSpec, folder: Path, rows: int) -> Iterator[Figure]:
    """Compare the same rows in three ways."""
    folder.mkdir(parents=True)
    for side, moved in (("reference", False), ("current", True)):
        _rows(rows, moved).to_parquet(folder / f"{side}.parquet")
    found = {}
    for name, way in (("ours", ours), ("scipy", scipy), ("evidently", evidently)):
        say(f"drift: {name} ...")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
            found[name] = child.submit(_timed, way, spec, folder).result()
    (own, seconds, cpu_s, memory), exact = found["ours"], found["scipy"][0]
    off = max(abs(own[name] / value - 1) for name, value in exact.items() if name != SCORE and value >= _MATTERS)
    size = {"rows": rows, "columns": _NUMBERS + _TEXTS}
    for name in ("scipy", "evidently"):
        _, other, its_cpu_s, its_memory = found[name]
        more = {**size, "cpu_s": cpu_s, "its_cpu_s": its_cpu_s, "memory_gb": memory, "its_memory_gb": its_memory}
        yield Figure("drift", f"seconds, beside plain {name}", seconds, Limit(name, other), context=more)
    yield Figure(
        "drift", "largest difference from SciPy's distance", 100 * off, Limit("aim, at most", 5, "%"), unit="%"
    )
    yield Figure("drift", "seconds", seconds, Limit("aim, at most", 60 * rows / 1e6), context={"cpu_s": cpu_s})
    yield Figure("drift", "memory, rows included", memory, Limit("aim, at most", 4, "GB"), unit="GB", context=size)


def _rows(rows: int, moved: bool) -> pd.DataFrame:
    """Make rows: numbers of four shapes, some of them skewed, and texts; of each kind some have moved."""
    rng = np.random.default_rng(int(moved))
    columns: dict[str, object] = {}
    for n in range(_NUMBERS):
        shift = 0.3 if moved and n < _MOVED else 0.0
        columns[f"n{n}"] = _numbers(n, shift, rows, rng)
    for n in range(_TEXTS):
        weights = np.ones(20)
        weights[0] += 4.0 if moved and n == 0 else 0.0
        names = np.array([f"kind-{k}" for k in range(len(weights))])
        columns[f"t{n}"] = pd.Categorical(names[rng.choice(len(names), rows, p=weights / weights.sum())])
    columns[SCORE] = rng.random(rows)
    return pd.DataFrame(columns).astype({f"t{n}": object for n in range(_TEXTS)})


def _numbers(n: int, shift: float, rows: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    match n % 4:
        case 0:
            return rng.normal(shift, 1, rows)
        case 1:
            return rng.lognormal(shift, 1.5, rows)
        case 2:
            return rng.random(rows) + shift
        case _:
            return rng.poisson(3 + shift, rows).astype(np.float64)


def _timed(
    way: Callable[[ModelSpec, pd.DataFrame, pd.DataFrame], Distances], spec: ModelSpec, folder: Path
) -> tuple[Distances, float, float, float]:
    """Return the distances, wall and CPU seconds and the largest memory in GB."""
    current, reference = (pd.read_parquet(folder / f"{side}.parquet") for side in ("current", "reference"))
    way(spec, current.head(1000), reference.head(1000))  # what is imported late is not counted
    began, cpu_began = time.perf_counter(), time.process_time()
    found = way(spec, current, reference)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    # Not getrusage: what it tells begins with the parent's memory.
    memory = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return found, seconds, cpu_s, int(memory[1]) / 1e6 if memory else float("nan")


def ours(spec: ModelSpec, current: pd.DataFrame, reference: pd.DataFrame) -> Distances:
    """Return what the nightly monitor finds."""
    from windsock.monitoring.drift import find_drift
    from windsock.monitoring.window import History, Samples

    day = np.arange(len(reference)) * _DAYS // len(reference)
    recent = _DAYS + np.arange(len(current)) * 7 // len(current)
    learnt, entity = np.zeros(len(reference), bool), np.arange(len(reference)) % _ENTITIES
    history = History(reference, day.astype(np.intp), learnt, entity.astype(np.intp), {})
    days = tuple(date(2026, 6, 1) + timedelta(days=n) for n in range(7))
    samples = Samples(current, reference, {}, days, (), day=recent.astype(np.intp), history=history)
    drift = find_drift(spec, samples, np.random.default_rng(0))
    return {name: found["value"] or 0.0 for name, found in drift.columns.items()}


def scipy(spec: ModelSpec, current: pd.DataFrame, reference: pd.DataFrame) -> Distances:
    """Return each column's distance from all rows, by SciPy."""
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import wasserstein_distance

    found = {}
    for name in current.columns:
        now, then = current[name], reference[name]
        if now.dtype == object:
            shares = pd.concat([side.value_counts(normalize=True) for side in (now, then)], axis=1).fillna(0.0)
            found[name] = float(jensenshannon(shares.iloc[:, 0], shares.iloc[:, 1]))
        else:
            found[name] = float(wasserstein_distance(now, then) / then.std())
    return found


def evidently(spec: ModelSpec, current: pd.DataFrame, reference: pd.DataFrame) -> Distances:
    """Return each column's distance from all rows, by Evidently, which draws nothing here."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    texts = [name for name in current.columns if current[name].dtype == object]
    numbers = [name for name in current.columns if name not in texts]
    kinds = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    methods = {**dict.fromkeys(numbers, "wasserstein"), **dict.fromkeys(texts, "jensenshannon")}
    report = Report([ValueDrift(column=name, method=method) for name, method in methods.items()])
    done = report.run(*(Dataset.from_pandas(side, kinds) for side in (current, reference)))
    return {each["config"]["column"]: float(each["value"]) for each in done.dict()["metrics"]}
