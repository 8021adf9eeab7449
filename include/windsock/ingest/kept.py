"""The deliveries that were kept: what they hold, and a delivery of one, without asking its source again.

Ingest keeps every delivery as it came at ``raw/``, also the columns that the spec did not declare then. So a column
that is declared later has a past, as far back as it was delivered.
"""

from datetime import date, timedelta
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from windsock import tables
from windsock.days import utc_now
from windsock.ingest.sources.delivery import Delivery
from windsock.ingest.sources.packed import BadArchive
from windsock.ingest.sources.parse import (
    Allowance,
    Unreadable,
    compression_of,
    csv_batches,
    kind_of,
    parse,
    unpack,
)
from windsock.ledger import DayRecord, Ledger
from windsock.listing import listed
from windsock.spec import ModelSpec
from windsock.store import Store

_NOT_KEPT = (FileNotFoundError, IsADirectoryError)
"""It is older than the spec keeps them; or it was refused, and lies in a folder with the reasons."""


def kept_delivery(store: Store, record: DayRecord) -> Delivery | None:
    """Return the delivery that a day was made from, as it came; None if it is not kept any more."""
    source = record.detail["source"]
    if source["raw"] is None:
        return None
    try:
        raw = store.read_bytes(source["raw"])
    except _NOT_KEPT:
        return None
    # The bytes tell the format: the spec may speak of another source by now.
    compression = compression_of(source["raw"])
    try:
        rows = parse(raw, kind_of(lambda: pa.BufferReader(raw), compression), compression)
    except (Unreadable, pa.ArrowException, OSError, ValueError):
        return None
    return Delivery(rows, raw, source["name"], source["origin"], zone=source.get("zone"))


def kept_columns(store: Store, record: DayRecord) -> tuple[str, ...]:
    """Return the columns of the delivery that a day was made from, by its footer or header; none if it is not kept."""
    path = record.detail["source"]["raw"]
    if path is None:
        return ()
    opened, compression = partial(store.fs.open, store.path(path), "rb"), compression_of(path)
    try:
        if kind_of(opened, compression) == "csv":
            return tuple(next(csv_batches(opened, compression)).schema.names)
        with opened() as file:
            whole = file if compression is None else pa.BufferReader(unpack(file, compression, Allowance()))
            return tuple(pq.ParquetFile(whole).schema_arrow.names)
    except (*_NOT_KEPT, Unreadable, pa.ArrowException, BadArchive):
        return ()


def derivable_since(store: Store, spec: ModelSpec) -> date | None:
    """Return the first day from which on every published day can be derived again from its kept delivery.

    What the next maintenance removes by the spec's ``retention.raw_days`` counts as gone.

    Returns:
        That day; None if the newest published day cannot be.
    """
    keep, now = spec.retention.raw_days, utc_now()
    there = {
        file.name for file in listed(store, f"raw/{spec.name}") if keep is None or now - file.written < timedelta(keep)
    }
    ledger, found = Ledger(store, spec.name, "ingest"), None
    for day in reversed(ledger.days()):
        record = ledger.get(day)
        if record is not None and record.status == "published":
            if record.detail["source"]["raw"] not in there:
                break
            found = day
    return found


def lacking_columns(store: Store, spec: ModelSpec, record: DayRecord) -> list[str]:
    """List the declared columns of events that a published day's rows do not have, and that read as NULL there."""
    output = record.outputs.get("events")
    if output is None or not output.files:
        return []
    stored = tables.delivered_columns(store, output)
    return [name for name in spec.events.columns if name not in stored]


def recoverable_columns(store: Store, spec: ModelSpec, record: DayRecord) -> list[str]:
    """List the declared columns that a published day's rows do not have, but the delivery does that they came from."""
    lacking = lacking_columns(store, spec, record)
    kept = set(kept_columns(store, record)) if lacking else set()
    return [name for name in lacking if spec.events.sources[name] in kept]


def delivered_since(store: Store, spec: ModelSpec, column: str) -> date | None:
    """Return the day from which on every published day has a declared column, in its rows or its kept delivery.

    Returns:
        That day; None if the newest published day does not have it.
    """
    ledger, found = Ledger(store, spec.name, "ingest"), None
    for day in reversed(ledger.days()):
        record = ledger.get(day)
        if record is None or record.status != "published":
            continue
        if column in lacking_columns(store, spec, record) and column not in recoverable_columns(store, spec, record):
            break
        found = day
    return found
