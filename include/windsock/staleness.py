"""Which days a changed day makes out of date."""

from datetime import date, timedelta

from windsock.days import day_range
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec


def stale_days(settings: Settings, spec: ModelSpec, day: date, *, itself: bool = False) -> list[date]:
    """List the later days whose published features were made from something else than ``day`` holds now.

    ``itself`` looks at ``day`` too: ingest announces its own day in any case; a delivery of labels must not,
    or each day would be computed twice, unless that day's features stand already.

    Returns:
        Days within the lookback after ``day``, in order.
    """
    in_force = {}
    for stage in ("ingest",) if spec.label.files is None else ("ingest", "labels"):
        if (record := Ledger.of(settings, spec.name, stage).get(day)) is not None:
            in_force[f"{stage}/{day}"] = record.data_hash
    first = day if itself else day + timedelta(days=1)
    reach = day_range(first, day + timedelta(days=spec.features.lookback_days))
    features = Ledger.of(settings, spec.name, "features")
    found = (features.get(later) for later in reach)
    return [
        record.day
        for record in found
        if record is not None and any(record.inputs.get(mark) != now for mark, now in in_force.items())
    ]


def stale_label_days(settings: Settings, spec: ModelSpec, day: date) -> list[date]:
    """List the days of delivery whose labels were matched with other events of ``day`` than are in force now."""
    if spec.label.files is None:
        return []
    current = Ledger.of(settings, spec.name, "ingest").get(day)
    now = current.data_hash if current is not None else None
    ledger = Ledger.of(settings, spec.name, "labels")
    reach = ledger.between(day, day + timedelta(days=spec.label.files.horizon_days))
    return [d for d, record in reach.items() if record.inputs.get(f"ingest/{day}") != now]
