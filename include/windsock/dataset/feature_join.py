"""Joining features without reading more days than needed.

A view normally has a row for every event, so the features of an event lie in its own day. Only rows that find
nothing there need the days before, as far as the ttl reaches.
"""

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from windsock.spec import ModelSpec


def join_features(
    spec: ModelSpec, frame: pa.Table, first: date, join: Callable[[pa.Table, date], pa.Table]
) -> pa.Table:
    """Add the features of every view to rows; the same as joining with every day there is.

    Args:
        spec: The model.
        frame: Rows with ``event_timestamp`` and the entity columns, none before ``first``.
        first: Days from here on are read for all rows; they must follow one another without a hole.
        join: Adds view features to rows, from all feature days since the given one.
    """
    from windsock.features.feature_tables import feature_tables

    joined = join(frame, first)
    # What was found in the newest days is the latest there is. A view that gave nothing but NULL may have
    # rows in older days.
    alone = np.zeros(joined.num_rows, dtype=bool)
    for table in feature_tables(spec):
        nothing = [joined[name].is_null().to_numpy(zero_copy_only=False) for name in table.features]
        alone |= np.logical_and.reduce(nothing)
    oldest = reach(spec, first)
    if oldest >= first or not alone.any():
        return joined
    again = join(frame.filter(pa.array(alone)), oldest)
    at = np.arange(frame.num_rows)
    at[alone] = frame.num_rows + np.arange(int(alone.sum()))
    return pa.concat_tables([joined, again]).take(pa.array(at)).combine_chunks()


def reach(spec: ModelSpec, first: date) -> date:
    """Return the oldest day that a feature of a row of ``first`` may come from."""
    ttls = [view.ttl_days for view in spec.features.views]
    days = [ttl for ttl in ttls if ttl is not None]
    if len(days) < len(ttls):
        return spec.first_day
    return max(spec.first_day, first - timedelta(days=max(days, default=0)))
