"""The ``maintain`` step: clean up after a model, without ever losing what something refers to.

What may go is said by what needs it (``day_files``, ``trainings``) and by the spec's ``retention`` (``deliveries``,
``pages``). Each file goes in one step and in an order that leaves nothing that looks whole and is not, so a kill
anywhere costs nothing: the next run goes on.

Options: ``retention_days`` (at least 7), what is younger stays whatever it is; ``dry_run``.
"""

import logging
from datetime import timedelta
from typing import Any

from windsock import promotions
from windsock.days import utc_now
from windsock.errors import SpecError
from windsock.maintenance.cleaning import Cleaning
from windsock.maintenance.day_files import end_definitions, remove_unrecorded
from windsock.maintenance.deliveries import remove_deliveries, remove_refused
from windsock.maintenance.pages import rebuild_docs, remove_reports
from windsock.maintenance.studies import remove_studies
from windsock.maintenance.trainings import remove_notes, remove_trainings
from windsock.outbox import Outbox
from windsock.steps import StepContext

log = logging.getLogger(__name__)

LEAST_RETENTION_DAYS = 7
_TEMPORARY_AGE = timedelta(days=1)


def run(ctx: StepContext) -> dict[str, Any]:
    """Clean up after one model, and rebuild the Data Docs.

    Returns:
        ``removed``, kind to files and bytes; ``freed_bytes``, all of these; ``deleted`` and ``kept``, files of tables;
        ``temporary``; ``definitions``, the tables of features whose days were given up; ``docs`` says whether they
        were rebuilt; ``dry_run``.

    Raises:
        SpecError: The retention is shorter than a week.
        DamagedRecord: A record cannot be read: then nothing that it may name is deleted.
    """
    retention = int(ctx.options.get("retention_days") or LEAST_RETENTION_DAYS)
    if retention < LEAST_RETENTION_DAYS:
        raise SpecError(
            f"{ctx.spec.name}: retention_days is {retention}; at least {LEAST_RETENTION_DAYS} are needed, so that no "
            "file of a run that is still going on, or is about to be repeated, is deleted."
        )
    cleaning = Cleaning(ctx.settings, ctx.spec, timedelta(days=retention), bool(ctx.options.get("dry_run")), utc_now())
    if not cleaning.dry:
        promotions.note_history(ctx.settings, ctx.spec)
    ended = end_definitions(cleaning)
    kept = remove_unrecorded(cleaning)
    deleted = cleaning.files["tables"]
    remove_trainings(cleaning)
    remove_studies(cleaning)
    remove_notes(cleaning)
    remove_deliveries(cleaning)
    remove_refused(cleaning)
    remove_reports(cleaning)
    cleaning.remove("temporary", cleaning.older(cleaning.temporary, _TEMPORARY_AGE), "a killed writer left it")
    if not cleaning.dry:
        Outbox(cleaning.store).prune()
    docs = rebuild_docs(cleaning)
    removed = {kind: {"files": n, "bytes": cleaning.bytes[kind]} for kind, n in sorted(cleaning.files.items())}
    freed = cleaning.bytes.total()
    parts = ", ".join(f"{kind} {each['files']} ({each['bytes']:,} bytes)" for kind, each in removed.items())
    would = "would free" if cleaning.dry else "freed"
    log.info("%s: %s %s bytes; files: %s", ctx.spec.name, would, f"{freed:,}", parts or "none")
    return {
        "removed": removed,
        "freed_bytes": freed,
        "deleted": deleted,
        "kept": kept,
        "definitions": ended,
        "temporary": cleaning.files["temporary"],
        "docs": docs,
        "dry_run": cleaning.dry,
    }
