"""The ``maintain`` step: clean up after a model, without ever losing what something refers to.

A Parquet file goes only if three things hold: no ledger record, present or past, names it
(so every pinned training can be rebuilt); the table's own newest version does not use it;
and it is older than the retention (so no writer in flight is disturbed). What is left are
files of writes that were killed before their record, or that a later write replaced
without ever having been recorded. Delta's own vacuum knows the second reason only, which
is why it is not used.

Options: ``retention_days`` (at least 7), ``dry_run``.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from windsock.days import utc_now
from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.steps import StepContext
from windsock.store import Store

log = logging.getLogger(__name__)

LEAST_RETENTION_DAYS = 7
_TEMPORARY_AGE = timedelta(days=1)
_CHECKPOINT_EVERY = 20
"""Delta versions between checkpoints, so that opening a table stays fast."""


def run(ctx: StepContext) -> dict[str, Any]:
    """Clean up one model's tables and temporary files, and rebuild the Data Docs.

    Returns:
        Counts: ``deleted``, ``freed_bytes``, ``kept``, ``temporary``, ``checkpoints``; ``docs`` says whether they were
        rebuilt; ``dry_run``.

    Raises:
        SpecError: The retention is shorter than a week.
    """
    from deltalake import DeltaTable

    retention = int(ctx.options.get("retention_days") or LEAST_RETENTION_DAYS)
    if retention < LEAST_RETENTION_DAYS:
        raise SpecError(
            f"{ctx.spec.name}: retention_days is {retention}; at least {LEAST_RETENTION_DAYS} are needed, so that no "
            "file of a run that is still going on, or is about to be repeated, is deleted."
        )
    dry = bool(ctx.options.get("dry_run"))
    store, model = ctx.store, ctx.spec.name
    keep = referenced_files(store, model)
    deleted = freed = kept = checkpoints = 0
    for table in delta_tables(store, model):
        active, behind = _newest_version(store, table)
        for name in _data_files(store, table):
            age = _age(store, name)
            if name in keep or name in active or age < timedelta(days=retention):
                kept += 1
                continue
            log.info("%s: %s is referred to by nothing and %d days old", model, name, age.days)
            deleted += 1
            freed += int(store.fs.size(store.path(name)))
            if not dry:
                store.fs.rm_file(store.path(name))
        if behind >= _CHECKPOINT_EVERY and not dry:
            DeltaTable(store.url(table)).create_checkpoint()
            checkpoints += 1
    return {
        "deleted": deleted,
        "freed_bytes": freed,
        "kept": kept,
        "temporary": _remove_temporary(store, model, dry=dry),
        "checkpoints": checkpoints,
        "docs": False if dry else _rebuild_docs(ctx.settings),
        "dry_run": dry,
    }


def referenced_files(store: Store, model: str) -> set[str]:
    """Return every file that a ledger record of the model names, in force or in its history.

    Raises:
        ValueError: A record cannot be read: then nothing may be deleted.
    """
    keep: set[str] = set()
    for path in _find(store, f"{model}/ledger"):
        if path.endswith(".json") and not path.rsplit("/", 1)[-1].startswith("."):
            record = store.read_json(path)
            for output in record.get("outputs", {}).values():
                keep.update(output["files"])
    return keep


def delta_tables(store: Store, model: str) -> list[str]:
    """List the model's Delta tables, relative to the store's root."""
    log_folder = "/_delta_log/"
    return sorted({path.partition(log_folder)[0] for path in _find(store, model) if log_folder in path})


def _find(store: Store, *parts: str) -> Iterator[str]:
    """Walk the files below a folder, as paths relative to the store's root."""
    root = store.path()
    folder = store.path(*parts)
    store.fs.invalidate_cache(folder)
    for path in store.fs.find(folder):
        yield str(path)[len(root.rstrip("/")) :].lstrip("/")


def _data_files(store: Store, table: str) -> list[str]:
    return [name for name in _find(store, table) if name.endswith(".parquet") and "/_delta_log/" not in name]


def _age(store: Store, name: str) -> timedelta:
    """Return how long ago a file was written; zero for one that is gone, as its writer has just finished."""
    try:
        written: datetime = store.fs.modified(store.path(name))
    except FileNotFoundError:
        return timedelta(0)
    return utc_now() - (written if written.tzinfo is not None else written.replace(tzinfo=UTC))


def _newest_version(store: Store, table: str) -> tuple[set[str], int]:
    """Return the files that the table's newest version uses, and how many versions its last checkpoint is behind."""
    from deltalake import DeltaTable

    delta = DeltaTable(store.url(table))
    active = {f"{table}/{uri.rpartition(f'{table}/')[2]}" for uri in delta.file_uris()}
    checkpoints = [p.rsplit("/", 1)[-1] for p in _find(store, f"{table}/_delta_log") if ".checkpoint" in p]
    last = max((int(p.split(".")[0]) for p in checkpoints if p.split(".")[0].isdigit()), default=0)
    return active, delta.version() - last


def _remove_temporary(store: Store, model: str, *, dry: bool) -> int:
    """Remove what killed atomic writes left beside their targets; an object store has no such files."""
    if not store.is_local:
        return 0
    removed = 0
    for folder in (model, f"runs/{model}", f"raw/{model}", f"reports/{model}", f"quarantine/{model}"):
        for name in list(_find(store, folder)):
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
