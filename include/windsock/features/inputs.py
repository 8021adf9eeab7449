"""What a day of a definition is made from: each input by name and by the content that the definition can see.

Equal marks, equal rows. A day whose marks differ from those of its record is stale. Marks say what is read, so a column
that nobody reads makes nothing stale, and how long a label takes to become known, as that is no part of a definition.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Self

import pyarrow as pa

from windsock import tables
from windsock.completeness import Reads, input_mark, lookback, settled_days
from windsock.copies import tags
from windsock.days import day_range
from windsock.features.definition import known_mark, read_columns, reads_labels
from windsock.features.feature_tables import Records
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.columns import event_known_at
from windsock.spec.modelling import FeatureView
from windsock.store import Store


@dataclass(frozen=True)
class Inputs:
    """Events and labels of a lookback, and their marks."""

    events: Records
    labels: Records
    """Records of labels; those of the events where labels come with them."""
    reads: Reads
    """What the definition reads of an ingested day."""
    known: str | None
    """When labels become known; None: the definition reads none."""

    def read(self, store: Store, spec: ModelSpec) -> tuple[pa.Table, pa.Table]:
        """Read the events of the lookback and the labels that may be known by its end; none if the view reads none.

        Labels by files are stored by day of delivery, so every day of the lookback may hold some.
        """
        return (
            tables.read_events(store, spec, self.events.values(), late_in=self.events.values()),
            tables.read_labels(store, spec, self.labels.values() if self.known is not None else ()),
        )

    def marks(self, reads: Reads | None) -> dict[str, str]:
        """Return each input's name and mark for a reader of some columns; None: of all, as version 0.1 wrote them."""
        marks = {f"ingest/{day}": input_mark(record, reads) for day, record in self.events.items()}
        if self.known is not None:
            marks["known"] = self.known
            if self.labels is not self.events:
                marks |= {f"labels/{day}": record.data_hash for day, record in self.labels.items()}
        return marks


@dataclass(frozen=True)
class Seen:
    """Records of events and labels that were read once for several views of a day."""

    events: Records
    labels: Records
    tags: Mapping[str, str]
    """What the store's listing said of them before they were read: whether one was replaced since takes no reading."""

    @classmethod
    def of(cls, settings: Settings, spec: ModelSpec, day: date, lookback_days: int) -> Self:
        """Read what there is in a lookback."""
        first, last = lookback(day, lookback_days)
        first = max(first, spec.first_day)
        tags = _tags(settings, spec, first, last)
        events = Ledger.of(settings, spec.name, "ingest").between(first, last)
        by_files = spec.label.files is not None
        return cls(events, Ledger.of(settings, spec.name, "labels").between(first, last) if by_files else events, tags)

    def still_stand(self, settings: Settings, spec: ModelSpec) -> bool:
        """Say whether none of them was replaced, and none has come, since they were read."""
        days = [date.fromisoformat(name.rpartition("/")[2]) for name in self.tags]
        return bool(days) and _tags(settings, spec, min(days), max(days)) == self.tags


def _tags(settings: Settings, spec: ModelSpec, first: date, last: date) -> dict[str, str]:
    """List the records of events and labels of some days, each with what is another one once it was replaced."""
    store, stages = Store.of(settings), ("ingest",) if spec.label.files is None else ("ingest", "labels")
    listings = {stage: tags(store, f"{spec.name}/ledger/{stage}") for stage in stages}
    names = [(stage, f"{stage}/{day}", f"{day}.json") for stage in stages for day in day_range(first, last)]
    return {name: listings[stage][file] for stage, name, file in names if file in listings[stage]}


def settled_inputs(
    settings: Settings, spec: ModelSpec, view: FeatureView, day: date, seen: Seen | None = None
) -> Inputs:
    """Return what a view of a day is made from, once all of it is settled.

    Args:
        settings: Where the store is.
        spec: The spec that holds the view.
        view: The view.
        day: The day.
        seen: Records that were read before, of at least this lookback; None: they are read now.

    Raises:
        NotReady: A day of the lookback is neither published nor recorded as rejected or empty.
    """
    first, last = lookback(day, view.lookback_days)
    needed = day_range(max(first, spec.first_day), last)
    if seen is not None and all(d in seen.events and d in seen.labels for d in needed):
        return inputs_of_day(spec, view, day, seen.events, seen.labels)
    events = settled_days(settings, spec, "ingest", first, last)
    labels = events
    if spec.label.files is not None and reads_labels(spec, view):
        # A label of the oldest event may have been delivered on any later day.
        labels = settled_days(settings, spec, "labels", first, last)
    return inputs_of_day(spec, view, day, events, labels)


def inputs_of_day(spec: ModelSpec, view: FeatureView, day: date, events: Records, labels: Records) -> Inputs:
    """Return what a view of a day is made from, of records that may reach further."""
    first, last = lookback(day, view.lookback_days)
    within = {d: record for d, record in events.items() if first <= d <= last}
    known = known_mark(spec) if reads_labels(spec, view) else None
    delivered = within
    if known is not None and spec.label.files is not None:
        delivered = {d: record for d, record in labels.items() if first <= d <= last}
    return Inputs(within, delivered, reads_of(spec, view), known)


def reads_of(spec: ModelSpec, view: FeatureView) -> dict[str, list[str]]:
    """Return what a view's definition reads of an ingested day; always the key, by which rows are told apart."""
    columns = {spec.events.key, event_known_at(spec), *read_columns(spec, view)} - {spec.label.column}
    reads = {"events": sorted(columns)}
    if reads_labels(spec, view) and spec.label.files is None:
        reads["labels"] = sorted({spec.events.key, spec.label.column, "event_time"})
    return reads


def is_current(record: DayRecord, inputs: Inputs) -> bool:
    """Say whether a day's rows were made from what is in force now."""
    return dict(record.inputs) == inputs.marks(record.detail.get("reads"))
