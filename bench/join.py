"""``join``: a million rows looked up point in time in two views, directly and through Feast.

Each way runs in a process of its own (``join_child``), so that its peak memory is its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.figures import Figure, Limit, say, spread
from bench.world import World
from windsock import tables
from windsock.featurestore.definitions import apply
from windsock.settings import REPO_ROOT

_TARGET = {"target_s": 15, "target_peak_gb": 3}
_WAYS = {
    "core": "point-in-time join, as scoring calls it",
    "feast": "point-in-time join through Feast's get_historical_features, as training calls it",
}


def run(world: World) -> Iterator[Figure]:
    """Measure both ways, and the limit in a third process.

    Raises:
        RuntimeError: The two ways gave different rows.
    """
    _ = world.featured  # built before anything is timed
    frame = _entity_rows(world)
    apply(world.settings)
    done = {way: _child(world, way, frame) for way in ("limit", *_WAYS)}
    if done["core"]["hash"] != done["feast"]["hash"]:
        raise RuntimeError("The join through Feast gives other rows than the direct one: look at featurestore/offline.")
    floor = spread(done["limit"]["seconds"])["median"]
    for way, what in _WAYS.items():
        found = done[way]
        yield Figure(
            "join",
            what,
            spread(found["seconds"])["median"],
            Limit("read both views' Parquet once and gather that many rows, were their places known", floor),
            context={
                "rows": world.size.join_rows,
                "days": len(world.days),
                "views": len(world.spec.features.views),
                "columns": found["columns"],
                **spread(found["seconds"]),
                "cpu_s": spread(found["cpu_s"])["median"],
                "peak_gb": found["peak_gb"],
                "peak_before_gb": found["peak_before_gb"],
                "limit_peak_gb": done["limit"]["peak_gb"],
                "same_rows": True,
                **(_TARGET if world.size.join_rows == 1_000_000 else {}),
            },
        )


def _entity_rows(world: World) -> Path:
    """Write rows to look up: entities of real events, up to a day after them, in no order."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.feather as feather

    spec, count = world.spec, world.size.join_rows
    entities = sorted(set(spec.entities.values()))
    events = tables.read(world.store, world.ingested.values(), "events", [*entities, spec.events.time])
    if events is None:
        raise RuntimeError("No events were ingested.")
    say(f"join: {count:,} rows over {len(world.days)} days ...")
    rng = np.random.default_rng(0)
    chosen = events.take(pa.array(rng.integers(0, events.num_rows, count)))
    later = rng.integers(0, 86_400_000_000, count).astype("timedelta64[us]")
    times = chosen[spec.events.time].to_numpy().astype("datetime64[us]") + later
    frame = chosen.select(entities).append_column("event_timestamp", pa.array(times, pa.timestamp("us")))
    path = world.folder / "entity_rows.arrow"
    feather.write_feather(frame, path, compression="uncompressed")
    return path


def _child(world: World, way: str, frame: Path) -> dict[str, Any]:
    say(f"join: {way} ...")
    done = subprocess.run(
        [sys.executable, "-m", "bench.join_child", way, str(frame), str(world.size.data_runs)],
        env={**os.environ, **world.env},
        cwd=REPO_ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))
