"""``kill``: parts of a stack, alone and in pairs, killed or stopped with days in flight; seconds until all is well.

A backfill of some days runs meanwhile. Afterwards each of these days must have been done, once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from itertools import combinations
from pathlib import Path

import yaml

from bench.figures import Figure, Limit, say
from bench.stack import BenchStack, bench_stack
from bench.world import MODEL
from windsock.completeness import feature_stages
from windsock.days import day_range
from windsock.ledger import Ledger
from windsock.settings import REPO_ROOT
from windsock.spec.load import read_yaml
from windsock.store import Store
from windsock_local.stack import health
from windsock_local.stack import parts as names
from windsock_local.stack.home import GUARDIAN, read_stack

_FIRST = date(2026, 3, 1)
_DAYS_A_BLOW = 4
_LONGEST_S = 600.0
_PARTS = (
    *(names.SCHEDULER, names.API_SERVER, names.POSTGRES),
    *(names.DAG_PROCESSOR, names.TRIGGERER, names.MLFLOW),
)
_BLOWS: tuple[tuple[signal.Signals, tuple[str, ...]], ...] = (
    *((signal.SIGKILL, (name,)) for name in (*_PARTS, GUARDIAN)),
    *((signal.SIGKILL, pair) for pair in combinations(_PARTS[:3], 2)),
    *((signal.SIGSTOP, (name,)) for name in _PARTS),
)


def run(folder: Path) -> Iterator[Figure]:
    """Deal the blows one after another to a stack that carries days of the reference model."""
    dags = {"WINDSOCK_DAGS_FOLDER": str(REPO_ROOT / "dags"), "WINDSOCK_MODELS": str(_small_model(folder / "models"))}
    with bench_stack(folder / "kill", 1, **dags) as stack:
        for stage in ("ingest", "features", "score"):
            stack.api.wait_for_dag(f"{MODEL}_{stage}", 240)
            stack.api.set_paused(f"{MODEL}_{stage}", False)
        for number, (sig, parts) in enumerate(_BLOWS):
            first = _FIRST + timedelta(days=number * _DAYS_A_BLOW)
            yield _deal(stack, sig, parts, day_range(first, first + timedelta(days=_DAYS_A_BLOW - 1)))


def _small_model(models: Path) -> Path:
    """Write the reference model with few customers and a short look back, so that a day takes seconds."""
    shipped = REPO_ROOT / "include" / "models" / MODEL
    raw = read_yaml(shipped / "model.yaml")
    raw |= {"first_day": str(_FIRST), "source": {"kind": "simulator", "customers": 300, "terminals": 600}}
    for view in raw["features"]["views"]:
        view["lookback_days"] = 2
    (models / MODEL).mkdir(parents=True)
    for file in shipped.glob("*.sql"):
        (models / MODEL / file.name).write_bytes(file.read_bytes())
    (models / MODEL / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return models


def _deal(stack: BenchStack, sig: signal.Signals, parts: Sequence[str], days: Sequence[date]) -> Figure:
    stack.api.backfill(f"{MODEL}_ingest", days[0], days[-1], max_active_runs=2)
    _until(lambda: bool(_done(stack, "ingest", days)), "a first day to be done")
    info = read_stack(stack.settings)
    assert info is not None
    pids = {name: info.parts[name].pid for name in parts}
    began = time.monotonic()
    for pid in pids.values():
        os.kill(pid, sig)

    def restored() -> bool:
        now = read_stack(stack.settings)
        if now is None or any(name not in now.parts or now.parts[name].pid == pid for name, pid in pids.items()):
            return False
        return health.check(stack.settings).healthy

    what = f"{sig.name} of {' and '.join(parts)}"
    _until(restored, f"health after {what}")
    well_s = time.monotonic() - began
    _until(lambda: _done(stack, "score", days) == set(days), f"the days after {what}")  # the last step of a day
    all_s = time.monotonic() - began
    stages = ("ingest", "score", *feature_stages(Store.of(stack.settings), MODEL))
    more_than_once = [f"{stage} {day}" for stage in stages for day in days if len(_history(stack, stage, day)) != 1]
    say(f"kill: {what}: all parts well after {well_s:.0f} s, {len(days)} days done after {all_s:.0f} s")
    return Figure(
        "kill",
        f"{what}, until every part is well again",
        well_s,
        Limit("nothing at all", 0.0),
        context={"days": len(days), "days_done_s": all_s, "not_done_once": len(more_than_once)},
    )


def _done(stack: BenchStack, stage: str, days: Sequence[date]) -> set[date]:
    return {day for day in days if Ledger.of(stack.settings, MODEL, stage).get(day) is not None}


def _history(stack: BenchStack, stage: str, day: date) -> list[str]:
    """Return the contents that a day's record has ever had; one that was written again as it was counts once."""
    return Store.of(stack.settings).json_names(MODEL, "ledger", stage, "history", str(day))


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LONGEST_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {_LONGEST_S:.0f} s for {what}")
        time.sleep(0.5)
