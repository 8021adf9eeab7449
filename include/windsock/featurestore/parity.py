"""The parity check: what the online store serves equals what the tables hold.

After a day is materialized, a sample of its entities is looked up. Each must be served
the day's own row or a newer one; and whatever is served must equal the row of the same
entity and time in the tables. A day may be recomputed at this very moment, so rows of
other days are compared with the version that was materialized and with the one in force.
"""

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from windsock.errors import ParityError, SpecError
from windsock.featurestore.cells import Entity
from windsock.featurestore.feature_tables import STAGE, FeatureTable
from windsock.featurestore.online_db import OnlineRow, online_rows
from windsock.featurestore.sinks import Sink
from windsock.ledger import DayRecord, Ledger
from windsock.store import Store

SAMPLE = 100
"""Entities looked up per view and day."""
_OTHER_DAYS = 4
"""Days beside the materialized one whose rows are read for comparison."""


@dataclass(frozen=True)
class Mismatch:
    """One entity that is served something else than the tables hold."""

    view: str
    entity: Entity
    online: OnlineRow | None
    offline: OnlineRow | None
    features: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        whom = f"entity {self.entity!r}" if self.entity is not None else "the view's only row"
        return (
            f"view {self.view!r}, {whom}: {self.why}; online {_shown(self.online, self.features)}, "
            f"offline {_shown(self.offline, self.features)}"
        )


@dataclass
class Parity:
    """The outcome for some views."""

    checked: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)

    def require(self, model: str, day: date) -> None:
        """Stop here if anything differs.

        Raises:
            ParityError: At least one sampled entity is served something else than the tables hold.
        """
        if not self.mismatches:
            return
        raise ParityError(
            f"{model} {day}: {len(self.mismatches)} of {self.checked} sampled entities are served something else than "
            f"the tables hold. First: {self.mismatches[0]}. "
            "If the tables are right, materialize with correct=True to make online equal to them: "
            f"windsock materialize {model} {day} --correct."
        )


def check_view(
    store: Store,
    sink: Sink,
    table: FeatureTable,
    record: DayRecord,
    rows: Mapping[Entity, OnlineRow],
    parity: Parity,
) -> None:
    """Compare a sample of the day's latest rows, as they were materialized, and add the outcome to ``parity``."""
    sample = _sample(rows, record.day)
    served, versions = sink.observe(table, sample)
    if versions is not None and versions.get(record.ds) != record.content_hash:
        return  # another run has materialized a newer version of the day meanwhile, and checks that one itself
    step = sink.resolution_us
    newer: dict[date, list[tuple[Entity, OnlineRow]]] = defaultdict(list)
    for entity in sample:
        offline, online = rows[entity], served.get(entity)
        if online is not None and online.micros // step > offline.micros // step:
            newer[_day_of(online.micros)].append((entity, online))
            continue
        parity.checked += 1
        why = _difference(online, offline, step)
        if why is not None:
            parity.mismatches.append(Mismatch(table.view, entity, online, offline, table.features, why))
    if versions is None:
        # Without a note of what was written, a day that is being recomputed right now would look like a mismatch.
        parity.checked += sum(map(len, newer.values()))
        return
    for day in sorted(newer, key=lambda d: (-len(newer[d]), d))[:_OTHER_DAYS]:
        _check_newer(store, table, day, newer[day], versions, parity)


def _difference(online: OnlineRow | None, offline: OnlineRow, step: int) -> str | None:
    if online is None:
        return "nothing is served"
    if online.micros // step < offline.micros // step:
        return "an older row is served"
    return "the values differ" if online.values != offline.values else None


def _check_newer(
    store: Store,
    table: FeatureTable,
    day: date,
    served: Sequence[tuple[Entity, OnlineRow]],
    versions: Mapping[str, str],
    parity: Parity,
) -> None:
    """Compare entities that are served a row of another day with that day's table."""
    entities = [entity for entity, _ in served]
    held = [
        {(entity, row.micros): row for entity, row in online_rows(table, table.read(store, [record], entities))}
        for record in _versions_of(store, table.model, day, versions)
    ]
    for entity, online in served:
        parity.checked += 1
        rows = [h[entity, online.micros] for h in held if (entity, online.micros) in h]
        if any(row.values == online.values for row in rows):
            continue
        why = "the values differ" if rows else f"the tables have no such row on {day}"
        offline = rows[0] if rows else None
        parity.mismatches.append(Mismatch(table.view, entity, online, offline, table.features, why))


def _versions_of(store: Store, model: str, day: date, versions: Mapping[str, str]) -> list[DayRecord]:
    """Return the version of a day that was materialized last and the one in force, which may await that still."""
    ledger = Ledger(store, model, STAGE)
    current = ledger.get(day)
    found = [current] if current is not None else []
    written = versions.get(day.isoformat())
    if written is not None and (current is None or current.content_hash != written):
        with suppress(SpecError):  # maintenance may have removed it since
            found.insert(0, ledger.pinned({day.isoformat(): written})[day])
    return found


def _sample(rows: Mapping[Entity, OnlineRow], day: date) -> list[Entity]:
    """Choose evenly spaced entities, others on other days, the same ones in every run of a day."""
    entities = sorted(rows, key=str)
    if len(entities) <= SAMPLE:
        return entities
    stride = len(entities) / SAMPLE
    shift = zlib.crc32(day.isoformat().encode()) % 1000 / 1000
    return [entities[int((n + shift) * stride) % len(entities)] for n in range(SAMPLE)]


def _day_of(micros: int) -> date:
    return datetime.fromtimestamp(micros // 1_000_000, UTC).date()


def _shown(row: OnlineRow | None, features: Sequence[str]) -> str:
    if row is None:
        return "nothing"
    time = datetime.fromtimestamp(row.micros // 1_000_000, UTC).replace(tzinfo=None, microsecond=row.micros % 1_000_000)
    values = ", ".join(f"{f}={v!r}" for f, v in zip(features, row.values, strict=True))
    return f"{time.isoformat(sep=' ')} ({values})"
