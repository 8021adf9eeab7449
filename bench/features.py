"""``features``: the feature step for one day, and for every day in sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any

from bench.figures import Figure, Limit, say, spread, time_runs
from bench.world import World
from windsock import tables
from windsock.completeness import lookback

_WARM_DAYS = 20


def run(world: World) -> Iterator[Figure]:
    """Measure the step as a task runs it: read, compute, write, publish."""
    rows = sum(record.rows("events") for record in world.ingested.values())
    setup = {"setup_s": sum(world.ingest_seconds), "setup": f"ingest step, {len(world.days)} days"}
    warm = [s for day, s in zip(world.days, world.feature_seconds, strict=True) if day >= world.spec.first_warm_day]
    seconds = (warm or world.feature_seconds)[-_WARM_DAYS:]
    last = world.days[-1]
    say("features: physical limits ...")
    first = max(lookback(last, world.spec.features.lookback_days)[0], world.days[0])
    day_limit = _limit(world, [d for d in world.days if d >= first], [last])
    yield Figure(
        "features",
        "features of one day, both views, step from start to published (a day with its whole lookback)",
        spread(seconds)["median"],
        Limit("read the lookback's Parquet once, write the day's feature rows once", day_limit),
        context={"rows": world.ingested[last].rows("events"), "warm": bool(warm), **spread(seconds)},
    )
    total = sum(world.feature_seconds)
    yield Figure(
        "features",
        f"features of {len(world.days)} days in sequence",
        total,
        Limit("read all Parquet once, write all feature rows once", _limit(world, world.days, world.days)),
        context={"rows": rows, **spread([total]), "s_per_day": total / len(world.days), **setup},
    )


def _limit(world: World, inputs: Sequence[date], outputs: Sequence[date]) -> float:
    import pyarrow.parquet as pq

    made = [rows for name in world.featured if (rows := _read(world, name, outputs)) is not None]
    scratch = world.folder / "limit.parquet"

    def once() -> None:
        for name in ("events", "labels"):
            _read(world, name, inputs)
        for rows in made:
            pq.write_table(rows, scratch)

    try:
        return time_runs(once, max(3, world.size.data_runs)).median
    finally:
        scratch.unlink(missing_ok=True)


def _read(world: World, table: str, days: Iterable[date]) -> Any:
    records = world.featured.get(table, world.ingested)
    return tables.read(world.store, (records[day] for day in days), table)
