"""Labels and when each became known: the one place where the delay is applied.

A label that comes with its event is hidden until ``delay_days`` after the event. A label from a
file was known when it was delivered: not before the day of delivery, whatever time it claims,
because a backfill must not know earlier what live runs learned later. Null labels are not
stored: unknown is not "no".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from windsock.column_types import to_pandas
from windsock.days import end_of, last_instant, start_of
from windsock.ingest.conform import RowFault
from windsock.ingest.quarantine import DUPLICATE, Quarantine
from windsock.ingest.sources import label_files
from windsock.spec import ModelSpec
from windsock.spec.columns import label_type
from windsock.validate.sentences import show


def inline_labels(spec: ModelSpec, rows: pa.Table) -> pa.Table:
    """Return table ``labels`` for valid events, in their final order, that carry their label."""
    known = rows.filter(pc.is_valid(rows.column(spec.label.column)))
    time = known.column(spec.events.time)
    delay = pa.scalar(spec.label.delay_days * 86_400_000_000, pa.duration("us"))
    return pa.table(
        {
            spec.events.key: known.column(spec.events.key),
            spec.label.column: known.column(spec.label.column),
            "event_time": time,
            "known_at": pc.add(time, delay).cast(pa.timestamp("us")),
        }
    )


def file_columns(spec: ModelSpec) -> dict[str, str]:
    """Return name to type of what a label file must hold."""
    files = label_files(spec)
    columns: dict[str, str] = {files.key: spec.events.columns[spec.events.key], spec.label.column: label_type(spec)}
    if files.time is not None:
        columns[files.time] = "timestamp"
    return columns


UNKNOWN_EVENT = "unknown event"
"""Rule of labels for which no event was published."""


@dataclass(frozen=True)
class FileLabels:
    """What one label file comes to."""

    rows: pa.Table
    """Table ``labels`` of the day of delivery."""
    quarantine: Quarantine
    nulls: int
    """Rows without a label, left out."""
    null_example: str
    """Key of the first of them."""


def match_labels(
    spec: ModelSpec, day: date, delivered: pa.Table, faults: Sequence[RowFault], events: pa.Table | None
) -> FileLabels:
    """Match delivered labels with the events they are for.

    Args:
        spec: The model.
        day: Day of delivery.
        delivered: The label file's rows in their declared form.
        faults: Values that could not be read.
        events: Key and event time of the events that labels may refer to; None: no events.
    """
    files, label = label_files(spec), spec.label.column
    given = to_pandas(delivered)
    given["event_time"] = _event_times(given[files.key], events)
    quarantine = Quarantine(len(given))
    for fault in faults:
        quarantine.add(fault.rule, fault.sentence, fault.rows)
    for rule, column, broken in _rules(spec, day, given):
        rows = broken.to_numpy(dtype=bool).nonzero()[0]
        if len(rows):
            first = int(rows[0])
            sentence = (
                f"{column}: {len(rows):,} of {len(given):,} labels break the rule '{rule}', "
                f"e.g. {show(given[column].iat[first])} ({files.key} {show(given[files.key].iat[first])})."
            )
            quarantine.add(rule, sentence, rows)
    kept = quarantine.kept()
    unlabelled = given[label].isna().to_numpy() & kept
    example = show(given[files.key].to_numpy(dtype=object)[unlabelled][0]) if unlabelled.any() else ""
    rows = _table(spec, day, given[kept & ~unlabelled], delivered.schema)
    return FileLabels(rows, quarantine, int(unlabelled.sum()), example)


def _rules(spec: ModelSpec, day: date, given: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    """Yield rule, column and which rows break it; a row counts under the first."""
    files, label = label_files(spec), spec.label.column
    no_key = given[files.key].isna()
    yield f"{files.key} not null", files.key, no_key
    copies = given.duplicated(keep="first") & ~no_key
    yield DUPLICATE, files.key, copies
    fresh = ~no_key & ~copies
    yield "one label per event", label, given.assign(_twice=fresh).pipe(_contradictions, files.key)
    yield UNKNOWN_EVENT, files.key, fresh & given["event_time"].isna()
    if spec.label.task == "binary":
        yield f"{label} one of 0, 1", label, fresh & given[label].notna() & ~given[label].isin([0, 1])
    else:
        yield f"{label} finite", label, fresh & np.isinf(pd.to_numeric(given[label]).astype("float64"))
    if files.time is not None:
        claimed = given[files.time]
        yield f"{files.time} not null", files.time, fresh & claimed.isna()
        yield f"{files.time} not before its event", files.time, fresh & (claimed < given["event_time"])
        yield f"{files.time} not after its delivery", files.time, fresh & (claimed >= pd.Timestamp(end_of(day)))


def _contradictions(given: pd.DataFrame, key: str) -> pd.Series:
    """Return which rows share their key with another row that is no copy."""
    once = given[given["_twice"]]
    return once.duplicated(subset=[key], keep=False).reindex(given.index, fill_value=False)


def _event_times(keys: pd.Series, events: pa.Table | None) -> pd.Series:
    """Return the event time of each key, null if there is no such event."""
    if events is None or events.num_rows == 0:
        return pd.Series(pd.NaT, index=keys.index, dtype="datetime64[us]")
    known = pd.Series(events.column(1).to_pandas().to_numpy(), index=pd.Index(events.column(0).to_pandas()))
    known = known[~known.index.duplicated(keep="last")]
    places = known.index.get_indexer(pd.Index(keys.fillna(-1) if keys.hasnans else keys))
    times = pd.Series(known.to_numpy()[places], index=keys.index)
    return times.where((places >= 0) & keys.notna().to_numpy(dtype=bool))


def _table(spec: ModelSpec, day: date, valid: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Return table ``labels`` for the valid rows of a label file."""
    files, label = label_files(spec), spec.label.column
    if files.time is not None:
        delivered = pd.Timestamp(start_of(day))
        known_at = valid[files.time].where(valid[files.time] >= delivered, delivered)
    else:
        known_at = pd.Series(pd.Timestamp(last_instant(day)), index=valid.index)
    final = valid.assign(known_at=known_at).sort_values(["event_time", files.key], kind="stable")
    columns = [files.key, label, "event_time", "known_at"]
    kinds = [schema.field(files.key).type, schema.field(label).type, pa.timestamp("us"), pa.timestamp("us")]
    table = pa.Table.from_pandas(
        final[columns], pa.schema(list(zip(columns, kinds, strict=True))), preserve_index=False, safe=False
    )
    return table.replace_schema_metadata(None).rename_columns([spec.events.key, *columns[1:]])
