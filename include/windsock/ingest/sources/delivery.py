"""What a source hands over, and asking it: its kind in the spec is the name of its module here."""

import hashlib
import logging
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib import import_module
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from windsock.errors import NotReady
from windsock.spec import ModelSpec

log = logging.getLogger(__name__)


class NotDelivered(NotReady):
    """The place was reached, but the day's delivery is not there (yet)."""


class NotWhole(NotDelivered):
    """The delivery is on its way: it is being written, or lacks the mark that says that it is whole."""


@dataclass(frozen=True)
class Delivery:
    """One day's delivery, as it came."""

    rows: pa.Table | None
    """The day's rows with every delivered column; None if they cannot be read."""
    raw: bytes | None
    """What to keep in the raw store: the file's own bytes, or the rows as Parquet when there is no file
    for the day (a query, a cut of a big file, the simulator). None only for a big file that cannot be read."""
    name: str
    """File name to keep ``raw`` under; its ending says the format."""
    origin: str
    """Where it came from, for records and messages; never holds a secret."""
    problem: str | None = None
    """Why the delivery cannot be read: what is wrong, where, and what to do."""
    zone: str | None = None
    """Time zone of the times that do not say theirs; None: UTC."""

    @cached_property
    def content_hash(self) -> str | None:
        """SHA-256 of ``raw``: equal hashes mean an equal delivery."""
        return hashlib.sha256(self.raw).hexdigest() if self.raw is not None else None

    @classmethod
    def of_rows(cls, rows: pa.Table, *, name: str, origin: str, zone: str | None = None) -> Self:
        """Make the delivery of a source that has no file for the day; equal rows give equal bytes."""
        sink = pa.BufferOutputStream()
        # Chunks and schema metadata depend on how rows were read, not on what they are.
        pq.write_table(rows.replace_schema_metadata(None).combine_chunks(), sink, compression="zstd")
        return cls(rows, bytes(sink.getvalue()), name, origin, zone=zone)


def fetch(spec: ModelSpec, day: date) -> Delivery:
    """Fetch one day of events as it was delivered; sources read their own secrets from the environment.

    Returns:
        The delivery; its ``problem`` is set, and ``rows`` is None, if it cannot be read.

    Raises:
        NotDelivered: The delivery is not there yet.
        UpstreamUnavailable: Its source cannot be reached.
        SpecError: The source is described wrongly (no such protocol, a query that does not run).
    """
    module = import_module(f"windsock.ingest.sources.{spec.source.kind}")
    delivery: Delivery = module.fetch(spec, spec.source, day)
    rows = "unreadable" if delivery.rows is None else f"{delivery.rows.num_rows} rows"
    log.info("%s %s: %s from %s", spec.name, day, rows, delivery.origin)
    return delivery
