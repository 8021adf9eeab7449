"""Which days are still missing, and which a changed day makes out of date.

A day counts as settled once its ledger has a record: published, empty or rejected. Days before the model's first day
need no record, and a day whose delivery was rejected needs none in later stages: nothing of it goes on.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

from windsock.days import day_range, spans
from windsock.errors import NotReady
from windsock.ledger import LATE, DayRecord, Ledger, stages_of
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

FEATURES = "features"
"""What the names of the ledger stages of features begin with."""

UNKNOWN_EVENT = "unknown event"
"""Rule of labels for which no event was published."""

Reads = Mapping[str, Sequence[str]]
"""Table of the ingested day to the columns of it that are read."""


def settled_days(settings: Settings, spec: ModelSpec, stage: str, first: date, last: date) -> dict[date, DayRecord]:
    """Return the records of a stage from ``first`` to ``last``, once every one of those days is settled.

    Raises:
        NotReady: Some of the days have no record yet; the message lists them.
    """
    needed = day_range(max(first, spec.first_day), last)
    records = Ledger.of(settings, spec.name, stage).between(max(first, spec.first_day), last)
    missing = [day for day in needed if day not in records]
    if stage not in ("ingest", "labels"):
        refused = rejected_days(settings, spec, missing)
        missing = [day for day in missing if day not in refused]
    if missing:
        raise NotReady(
            f"{spec.name}: {stage} of {len(missing)} of {len(needed)} needed days is still missing: {spans(missing)}. "
            f"This waits until they are settled; if nobody runs them, backfill {spec.name}_ingest over these days.",
            stage=stage,
            days=missing,
        )
    return records


def rejected_days(settings: Settings, spec: ModelSpec, days: Iterable[date]) -> set[date]:
    """Return those of the days whose delivery was rejected and has not been mended."""
    ledger = Ledger.of(settings, spec.name, "ingest")
    return {day for day in days if (record := ledger.get(day)) is not None and record.status == "rejected"}


def lookback(day: date, days: int) -> tuple[date, date]:
    """Return first and last day that features of ``day`` may read."""
    return day - timedelta(days=days), day


def input_mark(record: DayRecord, reads: Reads | None) -> str:
    """Return what names the content of an ingested day for a reader of some columns; None: of all, as version 0.1."""
    return record.data_hash if reads is None else record.data_hash_of(reads)


def feature_stages(store: Store, model: str) -> list[str]:
    """List the ledger stages of features, one for each definition that has days."""
    stages = [f"{FEATURES}/{name}" for name in store.folders(model, "ledger", FEATURES) if "@" in name]
    return stages or [FEATURES]  # version 0.1 kept one for all


def stale_days(settings: Settings, spec: ModelSpec, day: date, *, itself: bool = False) -> list[date]:
    """List the days whose features were made from something else than ``day`` holds now.

    ``itself`` looks at ``day`` too: ingest announces its own day in any case; a delivery of labels must not,
    or each day would be computed twice, unless that day's features stand already.
    """
    store, stale = Store.of(settings), set[date]()
    delivered = ("ingest",) if spec.label.files is None else ("ingest", "labels")
    in_force = {f"{stage}/{day}": Ledger(store, spec.name, stage).get(day) for stage in delivered}
    for stage in feature_stages(store, spec.name):
        ledger = Ledger(store, spec.name, stage)
        for later in (d for d in ledger.days() if d >= day):
            made = ledger.get(later)
            if made is None or not _may_read(made, day):
                break
            if later == day and not itself:
                continue
            for name, now in in_force.items():
                if name.startswith("labels/") and not {"known", name} & set(made.inputs):
                    continue  # it reads no labels
                reads = made.detail.get("reads") if name.startswith("ingest/") else None
                if made.inputs.get(name) != (input_mark(now, reads) if now is not None else None):
                    stale.add(later)
    return sorted(stale)


def _may_read(made: DayRecord, day: date) -> bool:
    """Say whether features of a day may read another day, which may have come only after they were made."""
    if (reach := made.detail.get("lookback_days")) is not None:
        return made.day <= day + timedelta(days=int(reach))
    return f"ingest/{day}" in made.inputs


def stale_label_days(settings: Settings, spec: ModelSpec, day: date) -> list[date]:
    """List the days of delivery whose labels were matched with other events than ``day`` has delivered by now.

    Events that came late with ``day`` may be those of labels that had come before it.
    """
    if spec.label.files is None:
        return []
    current = Ledger.of(settings, spec.name, "ingest").get(day)
    now = current.data_hash if current is not None else None
    late = current is not None and current.rows(f"{LATE}events") > 0
    first, last = day - timedelta(days=spec.events.late_days), day + timedelta(days=spec.label.files.horizon_days)
    reach = Ledger.of(settings, spec.name, "labels").between(first, last)
    name = f"ingest/{day}"

    def asks(made: DayRecord) -> bool:
        waits = name in made.inputs or UNKNOWN_EVENT in made.detail.get("quarantined", {})
        return made.day >= day or (late and waits)

    return [d for d, made in reach.items() if made.inputs.get(name) != (now if asks(made) else None)]


def made_from(settings: Settings, spec: ModelSpec, stage: str, day: date) -> dict[str, list[date]]:
    """List, by stage, the days whose records name a day of a stage as one that they were made from."""
    store, files = Store.of(settings), spec.label.files
    reach = (spec.features.lookback_days, spec.monitoring.window_days, files.horizon_days if files is not None else 0)
    last = day + timedelta(days=max(reach))
    found = {}
    for other in stages_of(store, spec.name):
        ledger = Ledger(store, spec.name, other)
        near = (record for d in ledger.days() if day <= d <= last and (record := ledger.get(d)) is not None)
        if days := [record.day for record in near if f"{stage}/{day}" in record.inputs]:
            found[other] = days
    return found
