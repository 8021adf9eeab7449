"""Data Docs: Great Expectations' own site over the suites and every day's validation result.

Results are kept one file per day, under the name by which GX looks for it, each put in place in one
step: GX's own store writes in place, and whoever builds Data Docs meanwhile would find half a file.

Rendering is slow next to validating, so a backfill only keeps results; the site is built from
them afterwards (``build``), or a single day's page is added (``add_day``). One builder at a time.
"""

import html
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import cache, partial
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)
from great_expectations.render.view import view
from jinja2.bccache import Bucket

from windsock.files import locked, replace_file
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.validate.suites import open_context, output_folder, profile_name, suite_name

SITE = "local_site"
BATCH = "deliveries-day"
_FOUND = ("result", "exception_info")
"""Fields of one expectation's result that hold what was delivered."""


def keep_result(
    settings: Settings, spec: ModelSpec, day: date, result: dict[str, Any], suite: str | None = None
) -> None:
    """Keep a day's validation result for Data Docs, replacing an earlier one.

    GX puts values into its pages as they are, so what was delivered is kept escaped: it may hold a script.
    """
    when = _filed_under(day).isoformat()
    meta = {
        **result.get("meta", {}),
        "run_id": {"run_name": day.isoformat(), "run_time": when},
        "validation_time": when,
        "batch_markers": {},
    }
    found = [{**each, **{name: _escaped(each[name]) for name in _FOUND if name in each}} for each in result["results"]]
    replace_file(
        result_path(settings, spec, day, suite),
        json.dumps({**result, "results": found, "meta": meta}, sort_keys=True).encode(),
    )


def _escaped(value: Any) -> Any:
    """Return plain JSON with every text, names of fields too, fit to stand in a page."""
    if isinstance(value, dict):
        return {html.escape(name, quote=False): _escaped(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return html.escape(value) if isinstance(value, str) else value


def result_path(settings: Settings, spec: ModelSpec, day: date, suite: str | None = None) -> Path:
    """Return the file of a day's validation result, by the model's suite or another."""
    folder = output_folder(settings) / "validations" / (suite or suite_name(spec)) / day.isoformat()
    return folder / _filed_under(day).strftime("%Y%m%dT%H%M%S.%fZ") / f"{BATCH}.json"


def page_path(settings: Settings, spec: ModelSpec, day: date, suite: str | None = None) -> Path:
    """Return the page of one day's validation, built or not."""
    inner = result_path(settings, spec, day, suite).relative_to(output_folder(settings)).with_suffix(".html")
    return output_folder(settings) / "data_docs" / SITE / inner


def remove_results(settings: Settings, spec: ModelSpec, before: datetime, *, dry: bool) -> Iterator[int]:
    """Remove the validation results of a model that were written before a moment, each with its page.

    Yields:
        The bytes of each.
    """
    results, site = output_folder(settings) / "validations", output_folder(settings) / "data_docs" / SITE
    with locked(output_folder(settings) / ".data_docs.lock"):
        for result in sorted((results / suite_name(spec)).glob(f"*/*/{BATCH}.json")):
            if result.stat().st_mtime >= before.timestamp():
                continue
            page = (site / "validations" / result.relative_to(results)).with_suffix(".html")
            # The page first: it is found by the result.
            files = [file for file in (page, result) if file.is_file()]
            yield sum(file.stat().st_size for file in files)
            for file in files if not dry else ():
                file.unlink()
                with suppress(OSError):  # another run's result lies there
                    file.parent.rmdir()
                    file.parent.parent.rmdir()


def build(settings: Settings) -> Path:
    """Build the whole site from the suites and the results that are there.

    Returns:
        The site's first page.
    """
    _keep_compiled_templates()
    with locked(output_folder(settings) / ".data_docs.lock"):
        open_context(settings).build_data_docs(site_names=[SITE])
    return output_folder(settings) / "data_docs" / SITE / "index.html"


def add_day(settings: Settings, spec: ModelSpec, day: date) -> Path | None:
    """Build one day's pages, that of its profile too, and the index.

    Returns:
        The page, or None if the day has no validation result (it was refused before its rows were looked at).
    """
    if not result_path(settings, spec, day).is_file():
        return None
    run = RunIdentifier(run_name=day.isoformat(), run_time=_filed_under(day))
    suites = [s for s in (suite_name(spec), profile_name(spec)) if result_path(settings, spec, day, s).is_file()]
    results = [ValidationResultIdentifier(ExpectationSuiteIdentifier(suite), run, BATCH) for suite in suites]
    pages = [page_path(settings, spec, day, suite) for suite in suites]
    _keep_compiled_templates()
    with locked(output_folder(settings) / ".data_docs.lock"):
        try:
            open_context(settings).build_data_docs(site_names=[SITE], resource_identifiers=results)
        except OSError:
            # GX writes in place: of a page that broke off, nothing is better than half. The next build makes it.
            for half in (*pages, output_folder(settings) / "data_docs" / SITE / "index.html"):
                half.unlink(missing_ok=True)
            raise
    return pages[0]


class _CompiledTemplates(jinja2.BytecodeCache):
    """What this process has compiled of templates, by their names and contents."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        assert bucket.code is not None  # it has just been compiled
        self._code[bucket.key, bucket.checksum] = bucket.code


@cache
def _keep_compiled_templates() -> None:
    """Let GX compile each template once: it makes an environment, which has compiled none, for each kind of page."""
    vars(view)["Environment"] = partial(jinja2.Environment, bytecode_cache=_CompiledTemplates())


def _filed_under(day: date) -> datetime:
    """Return the time that a day's validation is filed under: the day itself, so that a rerun replaces it."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
