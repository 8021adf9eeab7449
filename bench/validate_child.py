"""Validation by one revision's code, in a process of its own: ``python -m bench.validate_child ROWS DAY RUNS``.

``PYTHONPATH`` says whose code; only what every revision has is used here.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq

from bench.figures import time_runs
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.validate.engine import validate


def main(rows_path: Path, day: date, runs: int) -> None:
    """Validate a file's rows some times and print seconds as JSON; what has to be imported is not counted."""
    logging.disable(logging.WARNING)
    settings = Settings.from_env()
    spec, rows = get_spec(settings, "fraud"), pq.read_table(rows_path)
    validate(settings, spec, day, rows.slice(0, 100))
    timing = time_runs(lambda: validate(settings, spec, day, rows), runs)
    sys.stdout.write(json.dumps({"seconds": timing.seconds, "cpu_s": timing.cpu_s}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), date.fromisoformat(sys.argv[2]), int(sys.argv[3]))
