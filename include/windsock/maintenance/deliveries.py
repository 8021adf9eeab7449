"""Deliveries: those kept as they came, as long as the spec says, and refused ones."""

from collections import defaultdict
from datetime import timedelta

from windsock.days import parse_day
from windsock.errors import SpecError
from windsock.ledger import Ledger
from windsock.listing import Listed, listed
from windsock.maintenance.cleaning import Cleaning

_REASONS = "reasons.json"


def remove_deliveries(cleaning: Cleaning) -> None:
    """Remove deliveries that were kept as they came for ``retention.raw_days``; without that, none."""
    days = cleaning.spec.retention.raw_days
    if days is not None:
        old = cleaning.older(cleaning.areas["raw"], timedelta(days=days))
        cleaning.remove("raw", old, f"retention.raw_days is {days}")


def remove_refused(cleaning: Cleaning) -> None:
    """Remove refused deliveries after ``retention.quarantine_days``, but none that a record in force names.

    Raises:
        DamagedRecord: The record of such a day cannot be read.
    """
    limit = timedelta(days=cleaning.spec.retention.quarantine_days)
    folders: dict[str, list[Listed]] = defaultdict(list)
    for file in cleaning.areas["quarantine"]:
        folders[file.name.rpartition("/")[0]].append(file)
    for folder, files in sorted(folders.items()):
        if min(map(cleaning.age, files)) < limit or _is_named(cleaning, folder):
            continue
        files = listed(cleaning.store, folder)  # it may have been refused again since
        if min(map(cleaning.age, files), default=timedelta(0)) >= limit:
            # Reasons first: who finds them finds the file beside them.
            files.sort(key=lambda file: not file.name.endswith(f"/{_REASONS}"))
            cleaning.remove("quarantine", files, "another delivery of its day is in force")


def _is_named(cleaning: Cleaning, folder: str) -> bool:
    try:
        day = parse_day(folder.split("/")[2])
    except (IndexError, SpecError):  # nothing of ours
        return True
    records = (Ledger(cleaning.store, cleaning.spec.name, stage).get(day) for stage in ("ingest", "labels"))
    return any(r is not None and r.detail.get("source", {}).get("raw") == folder for r in records)
