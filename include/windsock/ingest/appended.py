"""Several deliveries of one day that add to each other (``deliveries: append``): a day is made from all of them.

What is kept of such a day is the rows of all deliveries so far, each once, in an order that their values tell. So the
day is the same however its rows are split, in whatever order they come, and also if one comes twice. Rows of one key
that differ are judged as they are within one delivery.
"""

from collections.abc import Collection

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from windsock.ingest.delivered_values import plain_value
from windsock.ingest.kept import kept_delivery
from windsock.ingest.records import IN_FORCE
from windsock.ingest.sources.delivery import Delivery
from windsock.ingest.sources.joined import join_rows, plain_types
from windsock.ingest.sources.parse import Unreadable
from windsock.ledger import Ledger
from windsock.spec.sources import DeliveredFiles, Source
from windsock.steps import StepContext


def adds(source: Source | DeliveredFiles) -> bool:
    """Say whether a further delivery of a day adds to the one before it."""
    return isinstance(source, DeliveredFiles) and source.deliveries == "append"


def with_earlier(ctx: StepContext, stage: str, delivery: Delivery, needed: Collection[str]) -> Delivery:
    """Return a delivery, which may not lack the ``needed`` columns, with what its day in force was made from so far.

    Raises:
        DamagedRecord: The day's record cannot be read, so nobody can tell what was delivered before.
    """
    previous = Ledger.of(ctx.settings, ctx.spec.name, stage).get(ctx.day)
    if delivery.rows is None:
        return delivery
    tables = [delivery.rows]
    if previous is not None and previous.status in IN_FORCE[stage]:
        earlier = kept_delivery(ctx.store, previous)
        if earlier is None or earlier.rows is None:
            return _refused(
                delivery,
                f"the deliveries of {ctx.day} that it adds to are not kept any more (retention.raw_days). Take the day "
                "out with 'windsock void', and have it delivered whole.",
            )
        if earlier.zone != delivery.zone:
            return _refused(
                delivery,
                f"its times are of {delivery.zone or 'UTC'}, but those of the delivery that it adds to of "
                f"{earlier.zone or 'UTC'}. Take the day out with 'windsock void', and have it delivered whole.",
            )
        tables.append(earlier.rows)
    try:  # an empty file's types say nothing
        rows = each_once(join_rows([rows for rows in tables if rows.num_rows] or tables[:1], [needed]))
    except Unreadable as err:
        return _refused(delivery, f"it does not go with the delivery that it adds to: {err}")
    return Delivery.of_rows(rows, name=f"{ctx.day}.parquet", origin=delivery.origin, zone=delivery.zone)


def each_once(rows: pa.Table) -> pa.Table:
    """Return rows without exact copies, in an order that depends on nothing but their values and columns' names."""
    rows = plain_types(rows).select(np.argsort(rows.column_names, kind="stable").tolist())
    columns = [part for column in rows.columns for part in _comparable(column.combine_chunks())]
    frame = pd.DataFrame(dict(enumerate(columns)), copy=False)
    places = np.flatnonzero(~frame.duplicated().to_numpy())
    marks = pd.util.hash_pandas_object(frame.iloc[places], index=False).to_numpy()
    return rows.take(pa.array(places[np.argsort(marks, kind="stable")], pa.int64()))


def _comparable(column: pa.Array) -> list[np.ndarray]:
    """Return what two values are equal by, bit for bit, and where there is one; other types than the usual as text."""
    kind, there = column.type, column.is_valid().to_numpy(zero_copy_only=False)
    if t.is_floating(kind) and not t.is_float16(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(float("nan"), kind), column)  # of which there are many
    if t.is_primitive(kind) and not t.is_boolean(kind) and kind.bit_width in (32, 64):
        values = column.view(pa.int64() if kind.bit_width == 64 else pa.int32()).fill_null(0).to_numpy()
    elif t.is_string(kind) or t.is_boolean(kind):
        try:
            values = column.fill_null("" if t.is_string(kind) else False).to_numpy(zero_copy_only=False)
        except (UnicodeDecodeError, pa.ArrowException):  # text in Latin-1 under the name of UTF-8
            values = np.array([str(plain_value(value)) for value in column], dtype=object)
    else:
        values = np.array([repr(plain_value(value)) for value in column], dtype=object)
    return [values, there]


def _refused(delivery: Delivery, why: str) -> Delivery:
    return Delivery(None, delivery.raw, delivery.name, delivery.origin, f"{delivery.origin}: {why}")
