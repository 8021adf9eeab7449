"""A suite for a model that has none of its own: profiled from its first good days, frozen, and only ever a warning.

It is made once, when the model's first seven published days are there without a gap since ``first_day``, lies in the
store as a GX suite at ``<model>/profile.json``, and names the days it was made from by their hashes: the same days give
the same bytes. It holds what a person would write down first: constant columns, categories, ranges, null rates, numbers
of distinct values. Its findings depend on days before, so they are told and never stand in a day's record; its results
are a suite of their own in Data Docs. A model's own suite replaces it; to have it made anew, remove the file.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windsock import tables
from windsock.days import ONE_DAY
from windsock.format_numbers import numbered, taken
from windsock.ledger import DayRecord, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.validate import docs
from windsock.validate.engine import check
from windsock.validate.suites import find_suite, profile_name

DAYS = 7
_FILE = "profile.json"
_MOSTLY = 0.99
_FEW = 20
"""Distinct values up to which each of them is listed."""
_NULLS = 0.05
"""Share of nulls beyond twice the highest of the first days that is still usual."""
_NAMESPACE = uuid.UUID("2f0c1c52-77bb-4a0f-9f0e-70726f66696c")
_WHY = f"So it was on the model's first {DAYS} days (a profile; a suite of the model's own replaces it)."


def alarms(settings: Settings, spec: ModelSpec, day: date, events: pa.Table) -> list[str]:
    """Compare a day's valid events with the model's profile, and keep GX's result of it for Data Docs.

    Returns:
        One sentence per expectation that is not met; none for a model with a suite of its own, before there is a
        profile, and for the days that it was made from.
    """
    if find_suite(settings, spec) is not None or (suite := find_profile(settings, spec)) is None:
        return []
    if day.isoformat() in suite["meta"]["days"]:
        return []
    same = {name for name, kind in spec.events.columns.items() if suite["meta"]["types"].get(name) == kind}
    expectations = [e for e in suite["expectations"] if e["kwargs"]["column"] in same & {*events.column_names}]
    rows = events.select([name for name in spec.events.columns if name in events.column_names])
    broken, result = check(settings, spec, day, rows, expectations, profile_name(spec))
    docs.keep_result(settings, spec, day, result, profile_name(spec))
    return [each.sentence for each in broken]


def find_profile(settings: Settings, spec: ModelSpec) -> dict[str, Any] | None:
    """Return a model's profile, made now if its days have just become complete; None if they are not yet."""
    store, parts = Store.of(settings), (spec.name, _FILE)
    try:
        made = store.read_json(*parts)
    except FileNotFoundError:
        records = _first_days(settings, spec)
        if len(records) < DAYS:
            return None
        store.write_json(numbered("profile", _profile(store, spec, records)), *parts)
        made = store.read_json(*parts)
    return taken("profile", made, store.url(*parts))


def _first_days(settings: Settings, spec: ModelSpec) -> list[DayRecord]:
    """Return the model's first published days, up to the first day that is not done."""
    ledger, day, found = Ledger.of(settings, spec.name, "ingest"), spec.first_day, list[DayRecord]()
    while len(found) < DAYS and (record := ledger.get_if_whole(day)) is not None:
        if record.status == "published":
            found.append(record)
        day += ONE_DAY
    return found


def _profile(store: Store, spec: ModelSpec, records: Sequence[DayRecord]) -> dict[str, Any]:
    expectations = []
    for name, kind in spec.events.columns.items():
        if name in (spec.events.key, spec.events.time, spec.events.delivered_at):
            continue
        days = [tables.read_events(store, spec, [record], [name]).column(0) for record in records]
        for of_kind, kwargs in _of_column(kind, days, entity=name in spec.entities.values()):
            given = {"type": of_kind, "kwargs": {"column": name, **kwargs}, "severity": "info", "meta": {"why": _WHY}}
            text = json.dumps(given, sort_keys=True)
            expectations.append({**given, "id": str(uuid.uuid5(_NAMESPACE, f"{spec.name} {text}"))})
    days_read = {record.ds: record.outputs["events"].hash for record in records}
    meta = {"days": days_read, "types": dict(spec.events.columns)}
    return {"name": profile_name(spec), "expectations": expectations, "meta": meta}


def _of_column(kind: str, days: Sequence[pa.ChunkedArray], *, entity: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield type and further arguments of what held for a column on each of some days."""
    nulls = max(day.null_count / len(day) for day in days)
    if nulls == 1:
        return
    yield "expect_column_values_to_not_be_null", {"mostly": round(max(1 - 2 * nulls - _NULLS, 0), 4)}
    counts = [pc.count_distinct(day).as_py() for day in days]
    distinct = "expect_column_unique_value_count_to_be_between"
    if entity:  # there may be more every day, and new ones are told apart
        yield distinct, {"min_value": min(counts) // 2}
        return
    values: list[Any] = []
    if max(counts) <= _FEW and kind not in ("timestamp", "date"):
        values = sorted({value for day in days for value in pc.unique(day).to_pylist()} - {None})
    if values and len(values) <= (_FEW if kind in ("string", "bool") else 1):
        yield "expect_column_values_to_be_in_set", {"value_set": values, "mostly": _MOSTLY}
    elif kind == "string":
        yield distinct, {"min_value": min(counts) // 2, "max_value": 2 * max(counts)}
    elif kind in ("int64", "double") and (bounds := _range(days)) is not None:
        yield "expect_column_values_to_be_between", {"min_value": bounds[0], "max_value": bounds[1], "mostly": _MOSTLY}


def _range(days: Sequence[pa.ChunkedArray]) -> tuple[float, float] | None:
    """Return bounds half as wide again on both sides as the values of some days; None if those move with time."""
    each = [pc.min_max(day).as_py() for day in days if day.null_count < len(day)]
    steps = {(np.sign(b["min"] - a["min"]), np.sign(b["max"] - a["max"])) for a, b in pairwise(each)}
    if steps in ({(1, 1)}, {(-1, -1)}):
        return None
    low, high = min(e["min"] for e in each), max(e["max"] for e in each)
    room = (high - low) / 2
    return (low - room if low < 0 else max(low - room, 0)), high + room
