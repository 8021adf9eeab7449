"""Files of tables that no record names, and definitions whose days nobody needs.

A file goes only if no record, present or past, names it (so every pinned training can be rebuilt), and it is older than
the retention (so no writer in flight is disturbed; who writes such a file's rows anew gives it another name). What was
examined once needs no second look: records stay, so what one names is named for good. A note says how far that is.
"""

import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from windsock.completeness import feature_stages
from windsock.errors import SpecError
from windsock.features.demand import demanded
from windsock.ledger import Ledger
from windsock.listing import Listed
from windsock.maintenance.cleaning import Cleaning
from windsock.runs.run_folder import LINEAGE

log = logging.getLogger(__name__)

NOTE = "maintained.json"
"""Says up to when files of tables have been examined; without it, all are."""
_MARGIN = timedelta(days=30)
"""By how much more is examined: clocks differ, and a store may have been put back from a backup."""
_OF_DAY = re.compile(r"/ds=(\d{4}-\d{2}-\d{2})/")


def end_definitions(cleaning: Cleaning) -> list[str]:
    """Give up the days of definitions that nobody needs: no spec, version or training of the model.

    Their records go, their files go like any that no record names, and any day can be computed again. A definition
    whose days were computed a short while ago stays: it may be computed ahead of the spec that will name it.
    """
    store, settings, spec, retention = cleaning.store, cleaning.settings, cleaning.spec, cleaning.retention
    days = Ledger(store, spec.name, "ingest").days()
    try:
        needed = {each.table.name for each in demanded(settings, spec, days[-1] if days else spec.first_day)}
    except SpecError as err:
        log.warning(
            "%s: what is needed is not known while a view does not run, so all features stay: %s", spec.name, err
        )
        return []
    unneeded = {stage for stage in feature_stages(store, spec.name) if "@" in stage} - needed
    if unneeded:  # only then is each training asked
        trained = (file.name for file in cleaning.areas["runs"] if file.name.endswith(f"/{LINEAGE}"))
        unneeded -= {stage for name in trained for stage in store.read_json(name).get("pins", {})}
    ended = []
    for stage in sorted(unneeded):
        folder = f"{spec.name}/ledger/{stage}/"
        records = [file for file in cleaning.areas["tables"] if file.name.startswith(folder)]
        ages = [cleaning.age(file) for file in records if "/" not in file.name[len(folder) :]]
        if min(ages, default=retention) < retention:
            continue
        log.info("%s: no spec, version or training needs %s any more", spec.name, stage)
        ended.append(stage)
        # What is in force first: a record whose copy in the history is gone could not be pinned.
        cleaning.remove("records", sorted(records, key=lambda f: "/history/" in f.name), "its definition has ended")
    return ended


def remove_unrecorded(cleaning: Cleaning) -> int:
    """Remove the files of tables that no record names.

    Returns:
        How many were looked at and stay.

    Raises:
        DamagedRecord: A record that had to be read cannot be: then nothing is removed.
    """
    store, model = cleaning.store, cleaning.spec.name
    since = _examined_until(cleaning)
    cut = cleaning.now - cleaning.retention
    files = [f for f in cleaning.areas["tables"] if f.name.endswith(".parquet") or "/_delta_log/" in f.name]
    # Of a definition that ended, perhaps just now, there are files and no records.
    stages = set(feature_stages(store, model))
    ended = {table for file in files if "@" in (table := _table_of(file, model)) and table not in stages}
    looked_at = [f for f in files if since is None or f.written > since or _table_of(f, model) in ended]
    old = [file for file in looked_at if file.written <= cut]
    recorded = _recorded_files(cleaning, None if since is None else {_day_of(file) for file in old})
    gone = [file for file in old if file.name not in recorded]
    cleaning.remove("tables", gone, "no record names it")
    if not cleaning.dry:
        store.write_json({"examined_until": cut.isoformat()}, model, NOTE)
    return len(looked_at) - len(gone)


def _examined_until(cleaning: Cleaning) -> datetime | None:
    try:
        note = cleaning.store.read_json(cleaning.spec.name, NOTE, mend="Remove it: then every file is examined.")
        return datetime.fromisoformat(note["examined_until"]).astimezone(UTC) - _MARGIN
    except (FileNotFoundError, KeyError):
        return None


def _table_of(file: Listed, model: str) -> str:
    return file.name.removeprefix(f"{model}/").partition("/ds=")[0]


def _day_of(file: Listed) -> str | None:
    found = _OF_DAY.search(file.name)
    return found[1] if found is not None else None


def _recorded_files(cleaning: Cleaning, days: set[str | None] | None) -> set[str]:
    """Return every file that a record of some days names, in force or in its history; None: of all days."""
    store, keep = cleaning.store, set[str]()
    names = (file.name for file in cleaning.areas["tables"])
    for name in _records(names, cleaning.spec.name):
        day = name.rsplit("/", 2)[-2] if "/history/" in name else name.rsplit("/", 1)[-1].removesuffix(".json")
        if days is not None and day not in days:
            continue
        try:
            record = store.read_json(name)
        except FileNotFoundError:  # of a definition that has just ended
            continue
        for output in record.get("outputs", {}).values():
            keep.update(output["files"])
    return keep


def _records(names: Iterable[str], model: str) -> Iterable[str]:
    return (
        name
        for name in names
        if name.startswith(f"{model}/ledger/")
        and name.endswith(".json")
        and not name.rsplit("/", 1)[-1].startswith(".")
    )
