"""Which days a changed day makes out of date."""

from __future__ import annotations

from datetime import date, timedelta

from windsock.days import day_range
from windsock.features.inputs import current_fingerprint
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec


def is_stale(settings: Settings, spec: ModelSpec, record: DayRecord) -> bool:
    """Say whether a day's published features were made from something else than what is in force now."""
    return dict(record.inputs) != current_fingerprint(settings, spec, record.day)


def stale_days(settings: Settings, spec: ModelSpec, day: date) -> list[date]:
    """List the later days within the lookback whose published features no longer fit ``day``.

    Args:
        settings: This installation.
        spec: The model.
        day: The day that was just ingested (or whose labels were).
    """
    ledger = Ledger.of(settings, spec.name, "features")
    reach = day_range(day + timedelta(days=1), day + timedelta(days=spec.features.lookback_days))
    found = (ledger.get(later) for later in reach)
    return [record.day for record in found if record is not None and is_stale(settings, spec, record)]
