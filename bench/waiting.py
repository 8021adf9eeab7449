"""``waiting``: what hundreds of runs that wait for days cost, and whether one more model goes on beside them.

Ten models have runs of ``features`` for sixty days each, of which no day is ingested. Another model runs a backfill and
a day by hand before and meanwhile.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import yaml

from bench.figures import Figure, Limit, say
from bench.idle import cpu_seconds, part_of
from bench.stack import BenchStack, bench_stack
from bench.year import FIRST_DAY, MODEL, Year
from windsock.days import day_range
from windsock.errors import UpstreamUnavailable
from windsock.ledger import Ledger
from windsock.settings import REPO_ROOT
from windsock.spec.load import read_yaml

_BACKFILL_DAYS = 4
_LONGEST_S = 1800.0
_STAGES = ("ingest", "features", "score")


def run(folder: Path, models: int, days: int, idle_s: float) -> Iterator[Figure]:
    """Measure before anything waits, and while all of it does."""
    year = Year(folder / "waiting", store=str(folder / "waiting" / "store"))
    waiting = [_copy(year, f"waiting{n}") for n in range(models)]
    for n in range(2 * (_BACKFILL_DAYS + 1)):
        year.deliver(n)
    dags = {
        "WINDSOCK_DAGS_FOLDER": str(REPO_ROOT / "dags"),
        "WINDSOCK_MODELS": str(year.home / "models"),
        "WINDSOCK_STORE": year.settings.store,
    }
    with bench_stack(folder / "w", 1, **dags) as stack:
        for dag_id in (*(f"{MODEL}_{stage}" for stage in _STAGES), *(f"{name}_features" for name in waiting)):
            stack.api.wait_for_dag(dag_id, 240)
            stack.api.set_paused(dag_id, False)
        quiet = _days_s(stack, year, 0)
        idle = _idle(stack, idle_s)
        began = time.monotonic()
        for name in waiting:
            for day in day_range(FIRST_DAY, FIRST_DAY + timedelta(days=days - 1)):
                stack.api.trigger(f"{name}_features", partition_key=str(day))
            say(f"waiting: {days} runs of {name} asked for after {time.monotonic() - began:.0f} s")
        _until_all_sleep(stack, waiting, days)
        say(f"waiting: {models * days} runs wait after {time.monotonic() - began:.0f} s")
        beside = _days_s(stack, year, _BACKFILL_DAYS + 1)
        what = f"{models} models with {days} waiting runs each"
        for name, value, before in zip(
            (f"a backfill of {_BACKFILL_DAYS} days of another model", "a live day of it"), beside, quiet, strict=True
        ):
            yield Figure("waiting", f"{name}, beside {what}", value, Limit("the same before any run waited", before))
        still = _idle(stack, idle_s)
        yield Figure(
            "waiting",
            f"processor time of the stack with {what}, of one core",
            still.total(),
            Limit("the same before any run waited", idle.total(), "%"),
            unit="%",
            context={"by_part": dict(still.most_common()), "by_part_before": dict(idle.most_common())},
        )


def _copy(year: Year, name: str) -> str:
    """Write the year's model under another name."""
    target = year.home / "models" / name
    shutil.copytree(year.home / "models" / MODEL, target)
    raw = {**read_yaml(target / "model.yaml"), "name": name}
    (target / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return name


def _days_s(stack: BenchStack, year: Year, first: int) -> tuple[float, float]:
    """Return how long a backfill takes until its days are scored, and then a day by hand."""
    days = [FIRST_DAY + timedelta(days=first + n) for n in range(_BACKFILL_DAYS + 1)]
    began = time.monotonic()
    stack.api.backfill(f"{MODEL}_ingest", days[0], days[-2])
    _until_scored(year, days[:-1])
    done = time.monotonic()
    stack.api.trigger(f"{MODEL}_ingest", partition_key=str(days[-1]))
    _until_scored(year, days[-1:])
    return done - began, time.monotonic() - done


def _until_scored(year: Year, days: Sequence[date]) -> None:
    deadline = time.monotonic() + _LONGEST_S
    while not set(days) <= set(Ledger.of(year.settings, MODEL, "score").days()):
        if time.monotonic() > deadline:
            raise UpstreamUnavailable(f"After {_LONGEST_S:.0f} s not all of {days} are scored.")
        time.sleep(0.2)


def _until_all_sleep(stack: BenchStack, models: Sequence[str], days: int) -> None:
    deadline = time.monotonic() + _LONGEST_S
    for name in models:
        path = f"dags/{name}_features/dagRuns/~/taskInstances"
        while (n := stack.api.call("GET", path, state="deferred", limit=1)["total_entries"]) < days:
            if time.monotonic() > deadline:
                raise UpstreamUnavailable(f"Only {n} of {days} runs of {name} sleep after {_LONGEST_S:.0f} s.")
            time.sleep(2)


def _idle(stack: BenchStack, seconds: float) -> Counter[str]:
    """Return the share of a core that each part of the stack takes while nothing is asked of it, in percent."""
    time.sleep(min(30.0, seconds))
    before, began, used = cpu_seconds(stack), time.monotonic(), Counter[str]()
    time.sleep(seconds)
    for process, cpu_s in cpu_seconds(stack).items():
        used[part_of(process, stack)] += 100 * (cpu_s - before.get(process, 0.0)) / (time.monotonic() - began)
    return used
