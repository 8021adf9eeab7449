"""Deciding which rows of a delivery of events stay, which are set aside, and whether it is refused whole.

Exact copies are dropped first and cost nothing of the budget: nothing is lost with them. Rows that
share a key and differ are all set aside, since nobody can tell which of them is true. That a key
stands in another day already is not looked for here: it would mean reading every day.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from windsock.column_types import to_pandas
from windsock.ingest.conform import DUPLICATE, Conformed, Quarantine, RowFault, conform
from windsock.ingest.late import is_late, none_of_its_day
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.columns import declared_columns, delivered_names, label_values
from windsock.validate.engine import validate


def conform_events(
    spec: ModelSpec,
    day: date,
    delivered: pa.Table,
    extra: Mapping[str, str] = MappingProxyType({}),
    zone: str | None = None,
) -> Conformed:
    """Bring a day's delivery of events into the form that the spec declares; the rest as for :func:`conform`."""
    events = spec.events
    return conform(
        delivered,
        declared_columns(spec),
        sources=delivered_names(spec),
        may_lack=[n for n, column in events.declared.items() if column.since is not None and day < column.since],
        extra=extra,
        ignore=events.ignore,
        values=label_values(spec),
        zone=zone,
        key=events.key,
    )


def judge(
    settings: Settings, spec: ModelSpec, day: date, rows: pa.Table, conformed: Conformed
) -> tuple[Quarantine, list[str], list[str], dict[str, Any]]:
    """Decide which of a day's rows (some, in declared form) stay.

    Returns:
        What is set aside, what to warn of, why the delivery is refused whole, if it is, and the suite's result.
    """
    quarantine, warnings, reasons = Quarantine(rows.num_rows), list(conformed.warnings), list[str]()
    copies = np.flatnonzero(to_pandas(rows).duplicated(keep="first").to_numpy())
    if len(copies):
        example = rows.column(spec.events.key)[int(copies[0])].as_py()
        sentence = (
            f"{spec.events.key}: {len(copies):,} of {rows.num_rows:,} rows are exact copies of other rows (rule "
            f"'{DUPLICATE}'), e.g. {example}. Each is counted once."
        )
        quarantine.add(RowFault(DUPLICATE, sentence, copies))
        warnings.append(sentence)
    for fault in conformed.faults:
        quarantine.add(replace(fault, rows=np.setdiff1d(fault.rows, copies)))
        warnings.append(f"{fault.sentence} Set aside.")
    once = np.setdiff1d(np.arange(rows.num_rows), copies)
    came_late = is_late(spec, day, rows)[once]
    once, late = once[~came_late], once[came_late]
    if not len(once):
        return quarantine, warnings, [none_of_its_day(spec, day, rows.take(pa.array(late)))], {}
    found, result = validate(settings, spec, day, rows.take(pa.array(once)))
    checked = [(broken, once) for broken in found]
    if len(late):
        found, _ = validate(settings, spec, day, rows.take(pa.array(late)), spec.oldest_day_in(day))
        checked += [(broken, late) for broken in found if broken.rows is not None]  # the rest is about a whole day
    for broken, places in checked:
        if broken.severity == "critical":
            reasons.append(broken.sentence)
        elif broken.severity == "warning" and broken.rows is not None:
            quarantine.add(RowFault(broken.rule, broken.sentence, places[broken.rows]))
            warnings.append(f"{broken.sentence} Set aside.")
        else:
            warnings.append(broken.sentence)
    reasons += quarantine.over_budget(spec.validation.quarantine_budget, "rows", least_valid=1)
    return quarantine, warnings, reasons, result
