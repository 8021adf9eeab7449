"""What the length of the window that was chosen means to a run: its rows, and what the lineage says of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from windsock.runs.run_folder import LINEAGE, RunFolder
from windsock.served.metrics import TIME


def of_window(rows: pa.Table, days: Sequence[str], window_days: int | None) -> pa.Table:
    """Return the training rows that a model learnt from: those of the last days of the window, or all of them."""
    if window_days is None or window_days >= len(days):
        return rows
    first = datetime.fromisoformat(days[-window_days])
    return rows.filter(pc.greater_equal(rows[TIME], pa.scalar(first, pa.timestamp("us"))))


def note_window(folder: RunFolder, days: Sequence[str], window: Mapping[str, Any]) -> None:
    """Say in the lineage which length of the window was chosen, and from what."""
    lineage, length = folder.read_json(LINEAGE), int(window["days"])
    reached = ", ".join(
        f"{n} days {'unknown' if found is None or found['score'] is None else format(found['score'], '.4g')}"
        for n, found in window["compared"].items()
    )
    said = f"{length} days" + (
        f" ({window['metric']} on the folds: {reached})"
        if reached
        else ", as there is too little history to compare others"
    )
    learnt = [days[-length:][0], days[-1]]
    folder.write_json({**lineage, "window": said, "learnt_from": learnt, "window_choice": dict(window)}, LINEAGE)
