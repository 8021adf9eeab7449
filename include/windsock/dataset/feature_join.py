"""Joining features without reading more days than needed.

A view normally has a row for every event, so the features of an event lie in its own
day. Only rows that find nothing there need the days before, as far as the ttl reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from windsock.spec import ModelSpec

if TYPE_CHECKING:
    import pyarrow as pa

Join = Callable[["pa.Table", date], "pa.Table"]
"""Adds view features to rows, from all feature days since the given one."""


def join_features(spec: ModelSpec, frame: pa.Table, first: date, join: Join) -> pa.Table:
    """Add the features of every view to rows; the same as joining with every day there is.

    Args:
        spec: The model.
        frame: Rows with ``event_timestamp`` and the entity columns, none before ``first``.
        first: Days from here on are read for all rows; they must follow one another without a hole.
        join: How to join.
    """
    import pyarrow as pa

    joined = join(frame, first)
    # What was found in the newest days is the latest there is. A view that gave nothing but NULL may have
    # rows in older days.
    alone = _without_features(spec, joined)
    oldest = reach(spec, first)
    if oldest >= first or not alone.any():
        return joined
    again = join(frame.filter(pa.array(alone)), oldest)
    place = np.arange(frame.num_rows)
    place[alone] = frame.num_rows + np.arange(int(alone.sum()))
    return pa.concat_tables([joined, again]).take(pa.array(place)).combine_chunks()


def _without_features(spec: ModelSpec, joined: pa.Table) -> npt.NDArray[np.bool_]:
    from windsock.features.feature_tables import feature_tables

    alone = np.zeros(joined.num_rows, dtype=bool)
    for table in feature_tables(spec):
        nothing = np.ones(joined.num_rows, dtype=bool)
        for name in table.features:
            nothing &= joined[name].is_null().to_numpy(zero_copy_only=False)
        alone |= nothing
    return alone


def reach(spec: ModelSpec, first: date) -> date:
    """Return the oldest day that a feature of a row of ``first`` may come from."""
    ttls = [view.ttl_days for view in spec.features.views]
    days = [ttl for ttl in ttls if ttl is not None]
    if len(days) < len(ttls):
        return spec.first_day
    return max(spec.first_day, first - timedelta(days=max(days, default=0)))
