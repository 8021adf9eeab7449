"""Pages for people: drift reports in the store, and the results of validation with their pages on this machine."""

import logging
from datetime import timedelta

from windsock.maintenance.cleaning import Cleaning

log = logging.getLogger(__name__)


def remove_reports(cleaning: Cleaning) -> None:
    """Remove drift reports after ``retention.report_days``; what they found stays in the records of the monitor."""
    days = cleaning.spec.retention.report_days
    old = cleaning.older(cleaning.areas["reports"], timedelta(days=days))
    cleaning.remove("reports", old, f"retention.report_days is {days}")


def rebuild_docs(cleaning: Cleaning) -> bool:
    """Remove old validation results and rebuild Data Docs; they are for people, so trouble is told and stops nothing.

    Returns:
        Whether they were rebuilt.
    """
    try:
        from windsock.validate import docs

        limit = timedelta(days=cleaning.spec.retention.report_days)
        for size in docs.remove_results(cleaning.settings, cleaning.spec, cleaning.now - limit, dry=cleaning.dry):
            cleaning.count("docs", size)
        if cleaning.dry:
            return False
        docs.build(cleaning.settings)
    except Exception:
        log.warning("The Data Docs could not be rebuilt; the rest has been cleaned all the same", exc_info=True)
        return False
    return True
