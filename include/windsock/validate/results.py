"""Validation results, one file per day, where Great Expectations looks for them.

GX's own store writes in place; a reader that builds Data Docs meanwhile would find half a file.
So the file is put in place in one step, under the name that GX gives it.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from windsock.files import replace_file
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.validate.context import output_folder
from windsock.validate.suites import suite_name

BATCH = "deliveries-day"


def run_time(day: date) -> datetime:
    """Return the time that a day's validation is filed under: the day itself, so that a rerun replaces it."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def result_path(settings: Settings, spec: ModelSpec, day: date) -> Path:
    """Return the file of a day's validation result."""
    folder = output_folder(settings) / "validations" / suite_name(spec) / day.isoformat()
    return folder / run_time(day).strftime("%Y%m%dT%H%M%S.%fZ") / f"{BATCH}.json"


def keep_result(settings: Settings, spec: ModelSpec, day: date, result: dict[str, Any]) -> Path:
    """Keep a day's validation result for Data Docs, replacing an earlier one."""
    path = result_path(settings, spec, day)
    when = run_time(day).isoformat()
    meta = {
        **result.get("meta", {}),
        "run_id": {"run_name": day.isoformat(), "run_time": when},
        "validation_time": when,
        "batch_markers": {},
    }
    replace_file(path, json.dumps({**result, "meta": meta}, sort_keys=True).encode())
    return path
