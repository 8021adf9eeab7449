"""What features of a day are made from, and its fingerprint.

The fingerprint names each input by content. Equal fingerprint, equal features; another
fingerprint than a published day's means that the day is stale.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from windsock.completeness import lookback, settled_days
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec


@dataclass(frozen=True)
class FeatureInputs:
    """The records that features of one day read."""

    events: Mapping[date, DayRecord]
    labels: Mapping[date, DayRecord]
    fingerprint: Mapping[str, str]


def feature_inputs(settings: Settings, spec: ModelSpec, day: date) -> FeatureInputs:
    """Return the inputs of a day's features, once the whole lookback is settled.

    Raises:
        NotReady: A day of the lookback is still missing.
    """
    first, last = lookback(day, spec.features.lookback_days)
    events = settled_days(settings, spec, "ingest", first, last)
    if spec.label.files is None:
        labels: Mapping[date, DayRecord] = events
    else:
        # A label of the oldest event may have been delivered on any later day.
        labels = settled_days(settings, spec, "labels", first, last)
    return FeatureInputs(events, labels, _fingerprint(spec, events, labels))


def current_fingerprint(settings: Settings, spec: ModelSpec, day: date) -> dict[str, str]:
    """Return the fingerprint that a day's features would have if computed now, complete or not."""
    first, last = lookback(day, spec.features.lookback_days)
    first = max(first, spec.first_day)
    events = Ledger.of(settings, spec.name, "ingest").between(first, last)
    labels = events if spec.label.files is None else Ledger.of(settings, spec.name, "labels").between(first, last)
    return _fingerprint(spec, events, labels)


def _fingerprint(spec: ModelSpec, events: Mapping[date, DayRecord], labels: Mapping[date, DayRecord]) -> dict[str, str]:
    marks = {f"ingest/{r.ds}": r.data_hash for r in events.values()}
    if spec.label.files is not None:
        marks |= {f"labels/{r.ds}": r.data_hash for r in labels.values()}
    for view in spec.features.views:
        marks[f"sql/{view.name}"] = hashlib.sha256(spec.sql_of(view).encode()).hexdigest()
    return marks
