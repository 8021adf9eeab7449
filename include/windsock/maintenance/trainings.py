"""Run folders: trainings that became no version, what was left of their work, and rows that can be made again.

A run folder is a training from its request on (``assemble`` writes it last), so the request goes first: a kill leaves
what no step takes for a training, and the next cleaning goes on with it. What is written to while it goes stays.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta

from windsock import version_index
from windsock.days import utc_now
from windsock.ledger import Ledger
from windsock.listing import Listed, listed
from windsock.living_versions import versions_needed
from windsock.maintenance.cleaning import Cleaning
from windsock.runs.contract import CANDIDATES, CHECKPOINTS
from windsock.runs.run_folder import METRICS, OLDER, REQUEST, TRAIN

log = logging.getLogger(__name__)


def remove_trainings(cleaning: Cleaning) -> None:
    """Remove what ``retention.run_days`` lets go of run folders, and checkpoints of those whose model is chosen.

    Nothing of a version that is or was just in force, or waits, is touched, but for its checkpoints.

    Raises:
        DamagedRecord: A version or promotion cannot be read: then it is not known which trainings are needed.
    """
    spec, limit = cleaning.spec, timedelta(days=cleaning.spec.retention.run_days)
    runs: dict[str, dict[str, Listed]] = defaultdict(dict)
    for file in cleaning.areas["runs"]:
        run, _, inner = file.name.removeprefix(f"runs/{spec.name}/").partition("/")
        runs[run][inner] = file
    idle = {run: files for run, files in runs.items() if not _is_at_work(cleaning, files)}
    for files in idle.values():
        if METRICS in files:
            left = [file for inner, file in files.items() if f"/{CHECKPOINTS}/" in inner]
            cleaning.remove("checkpoints", left, "the model of its run is chosen")
    old = {
        run: files
        for run, files in idle.items()
        if min(map(cleaning.age, files.values())) >= limit and (TRAIN in files or METRICS not in files)
    }
    versions = _versions_of(cleaning, set(old)) if old else {}
    needed = set(_needed(cleaning)) if old else set()
    for run, files in sorted(old.items()):
        if run not in versions:
            _remove_whole(cleaning, run, files)
        elif versions[run] not in needed:
            again = [file for inner, file in files.items() if inner in (TRAIN, OLDER) or _is_bulk_of_candidate(inner)]
            cleaning.remove("runs", again, f"version {versions[run]} is not in use, and this can be made again")


def remove_notes(cleaning: Cleaning) -> None:
    """Remove what runs of Airflow left for their own next tries: their facts, days that trainings chose, pods' results.

    What says that a drift was asked about stays.
    """
    model, limit = cleaning.spec.name, timedelta(days=cleaning.spec.retention.run_days)
    folders = (f"{model}/trainings/", f"{model}/started/")
    own = [f for f in cleaning.areas["tables"] if f.name.startswith(folders) and "/started/retrain/" not in f.name]
    results = listed(cleaning.store, f"steps/{model}")
    cleaning.remove("notes", cleaning.older([*own, *results], limit), "its run is long over")


def _is_at_work(cleaning: Cleaning, files: Mapping[str, Listed]) -> bool:
    return min(map(cleaning.age, files.values())) < cleaning.retention


def _is_bulk_of_candidate(inner: str) -> bool:
    return inner.startswith(f"{CANDIDATES}/") and inner.rsplit("/", 1)[-1] not in (REQUEST, METRICS)


def _needed(cleaning: Cleaning) -> list[str]:
    """List the versions that are in force, were within ``serving.rollback_days``, or wait."""
    ingested = Ledger(cleaning.store, cleaning.spec.name, "ingest").days()[-1:]
    return [v for day in (utc_now().date(), *ingested) for v in versions_needed(cleaning.settings, cleaning.spec, day)]


def _versions_of(cleaning: Cleaning, runs: set[str]) -> dict[str, str]:
    """Return run to version for those of the runs that became one."""
    found: dict[str, str] = {}
    for version in reversed(version_index.list_versions(cleaning.settings, cleaning.spec)):
        if found.keys() >= runs:  # the newest first: trainings that are just old enough are found soon
            break
        info = version_index.version_info(cleaning.settings, cleaning.spec, version)
        if info.run in runs:
            found[info.run] = version
    return found


def _remove_whole(cleaning: Cleaning, run: str, files: Mapping[str, Listed]) -> None:
    """Remove a training that became no version."""
    why, folder = "its training became no version", f"runs/{cleaning.spec.name}/{run}"
    marks = [files[name] for name in (METRICS, REQUEST) if name in files]
    # The requests of its candidates before what they lead to.
    rest = sorted((f for f in files.values() if f not in marks), key=lambda f: not f.name.endswith(f"/{REQUEST}"))
    cleaning.remove("runs", marks, why)
    if not cleaning.dry and any(cleaning.age(f) < cleaning.retention for f in listed(cleaning.store, folder)):
        log.warning("%s: somebody has begun run %s anew, so the rest of it stays", cleaning.spec.name, run)
        return
    cleaning.remove("runs", rest, why)
    if not cleaning.dry:  # who began it anew only now finds it begun, never complete with parts missing
        cleaning.store.remove(f"{folder}/{REQUEST}")
