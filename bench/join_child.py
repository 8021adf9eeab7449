"""One way of joining, in a process of its own: ``python -m bench.join_child WAY FRAME RUNS``."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import time_runs
from bench.world import MODEL
from windsock import tables
from windsock.features.feature_tables import feature_tables
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_KB_PER_GB = 1024 * 1024


def main(way: str, frame_path: Path, runs: int) -> None:
    """Join some times and print seconds, peak memory and the hash of the result as JSON."""
    import pyarrow.feather as feather

    from windsock.featurestore.retrieval import point_in_time, training_frame

    settings = Settings.from_env()
    spec, store = get_spec(settings, MODEL), Store.of(settings)
    ledgers = {table.name: table.ledger(store) for table in feature_tables(spec)}
    records = {name: ledger.all() for name, ledger in ledgers.items()}
    pins = {name: ledger.pins(records[name]) for name, ledger in ledgers.items()}
    frame = feather.read_table(frame_path, memory_map=False)
    if way == "feast":
        from windsock.featurestore.repo import import_feast

        import_feast()

    def gather() -> pa.Table:
        """Do the least that any join must: read everything, copy as many rows as are asked for."""
        import numpy as np
        import pyarrow as pa

        result = frame
        for table, days in records.items():
            rows = tables.read(store, days.values(), table)
            if rows is None:
                raise RuntimeError(f"{table} has no rows to gather.")
            places = pa.array(np.random.default_rng(0).integers(0, rows.num_rows, frame.num_rows))
            given = rows.select([n for n in rows.column_names if n not in frame.column_names]).take(places)
            for name in given.column_names:
                result = result.append_column(name, given[name])
        return result

    ways = {
        "core": lambda: point_in_time(store, spec, frame, records),
        "feast": lambda: training_frame(settings, spec, frame, pins),
        "limit": gather,
    }
    results: list[pa.Table] = []

    def once() -> None:
        results.clear()
        results.append(ways[way]())

    before = _peak_gb()
    timing = time_runs(once, runs)
    peak = _peak_gb()
    result = {
        "seconds": timing.seconds,
        "cpu_s": timing.cpu_s,
        "peak_gb": peak,
        "peak_before_gb": before,
        "columns": results[0].num_columns - frame.num_columns,
        # After the peak was read: hashing takes memory of its own.
        "hash": tables.content_hash(results[0]) if way != "limit" else None,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def _peak_gb() -> float:
    """Return the most memory this program has held: what its parent held before the exec does not count."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
        if found:
            return int(found[1]) / _KB_PER_GB
    unit = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit / _KB_PER_GB


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
