"""The ``maintain`` step: clean up after a model, without ever losing what something refers to.

A file of a table goes only if no ledger record, present or past, names it (so every pinned training can be rebuilt),
and it is older than the retention (so no writer in flight is disturbed). So do the logs of Delta tables, which
version 0.1 kept beside its files.

Options: ``retention_days`` (at least 7), ``dry_run``.
"""

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from windsock.completeness import feature_stages
from windsock.days import utc_now
from windsock.errors import SpecError
from windsock.features.demand import demanded
from windsock.ledger import Ledger
from windsock.runs.run_folder import LINEAGE
from windsock.settings import Settings
from windsock.steps import StepContext
from windsock.store import Store

log = logging.getLogger(__name__)

LEAST_RETENTION_DAYS = 7
_TEMPORARY_AGE = timedelta(days=1)


def run(ctx: StepContext) -> dict[str, Any]:
    """Clean up one model's tables and temporary files, and rebuild the Data Docs.

    Returns:
        Counts: ``deleted``, ``freed_bytes``, ``kept``, ``temporary``; ``definitions``, the tables of features whose
        days were given up; ``docs`` says whether they were rebuilt; ``dry_run``.

    Raises:
        SpecError: The retention is shorter than a week.
        DamagedRecord: A record cannot be read: then nothing is deleted.
    """
    retention = int(ctx.options.get("retention_days") or LEAST_RETENTION_DAYS)
    if retention < LEAST_RETENTION_DAYS:
        raise SpecError(
            f"{ctx.spec.name}: retention_days is {retention}; at least {LEAST_RETENTION_DAYS} are needed, so that no "
            "file of a run that is still going on, or is about to be repeated, is deleted."
        )
    dry = bool(ctx.options.get("dry_run"))
    store, model = ctx.store, ctx.spec.name
    ended = _end_definitions(ctx, timedelta(days=retention), dry=dry)
    recorded = _recorded_files(store, model)
    deleted = freed = kept = 0
    for file in store.files(model):
        if not file.endswith(".parquet") and "/_delta_log/" not in file:
            continue
        name = f"{model}/{file}"
        # What is recorded is not asked for its age: in a bucket that is a request for each file.
        if name in recorded or (age := _age(store, name)) < timedelta(days=retention):
            kept += 1
            continue
        log.info("%s: %s is referred to by nothing and %d days old", model, name, age.days)
        deleted += 1
        freed += int(store.fs.size(store.path(name)))
        if not dry:
            store.fs.rm_file(store.path(name))
    return {
        "deleted": deleted,
        "freed_bytes": freed,
        "kept": kept,
        "definitions": ended,
        "temporary": _remove_temporary(store, model, dry=dry),
        "docs": False if dry else _rebuild_docs(ctx.settings),
        "dry_run": dry,
    }


def _end_definitions(ctx: StepContext, retention: timedelta, *, dry: bool) -> list[str]:
    """Give up the days of definitions that nobody needs: no spec, version or training of the model.

    Their records go, their files go like any that no record names, and any day can be computed again. A definition
    whose days were computed a short while ago stays: it may be computed ahead of the spec that will name it.
    """
    store, settings, spec = ctx.store, ctx.settings, ctx.spec
    days = Ledger(store, spec.name, "ingest").days()
    try:
        needed = {each.table.name for each in demanded(settings, spec, days[-1] if days else spec.first_day)}
    except SpecError as err:
        log.warning(
            "%s: what is needed is not known while a view does not run, so all features stay: %s", spec.name, err
        )
        return []
    trained = (name for name in store.files("runs", spec.name) if name.endswith(f"/{LINEAGE}"))
    pinned = {stage for name in trained for stage in store.read_json("runs", spec.name, name).get("pins", {})}
    ended = []
    for stage in feature_stages(store, spec.name):
        ledger = Ledger(store, spec.name, stage)
        if "@" not in stage or stage in needed | pinned:
            continue
        ages = [_age(store, f"{spec.name}/ledger/{stage}/{day}.json") for day in ledger.days()]
        if min(ages, default=retention) < retention:
            continue
        log.info("%s: no spec, version or training needs %s any more", spec.name, stage)
        ended.append(stage)
        if not dry:
            store.fs.rm(store.path(spec.name, "ledger", stage), recursive=True)
    return ended


def _recorded_files(store: Store, model: str) -> set[str]:
    """Return every file that a ledger record of the model names, in force or in its history."""
    keep: set[str] = set()
    for path in store.files(model, "ledger"):
        if path.endswith(".json") and not path.rsplit("/", 1)[-1].startswith("."):
            for output in store.read_json(model, "ledger", path).get("outputs", {}).values():
                keep.update(output["files"])
    return keep


def _age(store: Store, name: str) -> timedelta:
    """Return how long ago a file was written; zero for one that is gone, as its writer has just finished."""
    try:
        written: datetime = store.fs.modified(store.path(name))
    except FileNotFoundError:
        return timedelta(0)
    return utc_now() - (written if written.tzinfo is not None else written.replace(tzinfo=UTC))


def _remove_temporary(store: Store, model: str, *, dry: bool) -> int:
    """Remove what killed atomic writes left beside their targets; an object store has no such files."""
    if not store.is_local:
        return 0
    removed = 0
    for folder in (model, *(f"{kind}/{model}" for kind in ("runs", "raw", "reports", "quarantine"))):
        for name in (f"{folder}/{file}" for file in store.files(folder)):
            last = name.rsplit("/", 1)[-1]
            if last.startswith(".") and last.endswith(".tmp") and _age(store, name) >= _TEMPORARY_AGE:
                removed += 1
                if not dry:
                    with suppress(FileNotFoundError):
                        store.fs.rm_file(store.path(name))
    return removed


def _rebuild_docs(settings: Settings) -> bool:
    """Rebuild the Data Docs; they are for people, so trouble is told and stops nothing."""
    try:
        from windsock.validate.docs import build

        build(settings)
    except Exception:
        log.warning("The Data Docs could not be rebuilt; the tables have been cleaned all the same", exc_info=True)
        return False
    return True
