"""Data Docs: Great Expectations' own site over the suites and every day's validation result.

Rendering is slow next to validating, so a backfill only keeps results; the site is built from
them afterwards (``build``), or a single day's page is added (``add_day``). One builder at a time.
"""

from __future__ import annotations

import logging
from datetime import date
from pathlib import Path
from typing import Any

from windsock.files import locked
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.validate.context import open_context, output_folder
from windsock.validate.results import BATCH, result_path, run_time
from windsock.validate.suites import suite_name

log = logging.getLogger(__name__)

SITE = "local_site"


def index_path(settings: Settings) -> Path:
    """Return the site's first page."""
    return output_folder(settings) / "data_docs" / SITE / "index.html"


def page_path(settings: Settings, spec: ModelSpec, day: date) -> Path:
    """Return the page of one day's validation, built or not."""
    result = result_path(settings, spec, day)
    inner = result.relative_to(output_folder(settings) / "validations").with_suffix(".html")
    return index_path(settings).parent / "validations" / inner


def build(settings: Settings) -> Path:
    """Build the whole site from the suites and the results that are there.

    Returns:
        The site's first page.
    """
    with locked(output_folder(settings) / ".data_docs.lock"):
        open_context(settings).build_data_docs(site_names=[SITE])
    return index_path(settings)


def add_day(settings: Settings, spec: ModelSpec, day: date) -> Path | None:
    """Build one day's page and the index.

    Returns:
        The page, or None if the day has no validation result (it was refused before its rows were looked at).
    """
    if not result_path(settings, spec, day).is_file():
        return None
    with locked(output_folder(settings) / ".data_docs.lock"):
        open_context(settings).build_data_docs(site_names=[SITE], resource_identifiers=[_identifier(spec, day)])
    return page_path(settings, spec, day)


def _identifier(spec: ModelSpec, day: date) -> Any:
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    run = RunIdentifier(run_name=day.isoformat(), run_time=run_time(day))
    return ValidationResultIdentifier(ExpectationSuiteIdentifier(suite_name(spec)), run, BATCH)
