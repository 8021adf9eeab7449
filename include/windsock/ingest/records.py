"""What a delivery leaves behind, of events or of labels: raw copy, tables, record, and what the step says of it.

Raw copies are kept by content, so that the same file is kept once.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from windsock import tables
from windsock.errors import DayRejected
from windsock.ingest.sources.delivery import Delivery
from windsock.ledger import DayRecord, Ledger, Output
from windsock.redact import without_example
from windsock.steps import StepContext

log = logging.getLogger(__name__)

NO_SOURCE: Mapping[str, Any] = MappingProxyType({"name": None, "hash": None, "origin": "", "raw": None})
"""``source`` of a day for which nothing was delivered."""

IN_FORCE = {"ingest": ("published", "empty"), "labels": ("published",)}
"""Statuses of a day whose content stays in force when a later delivery of it is refused."""

SAID_ONCE = "This is said once."
"""How a warning ends that comes with one day alone and is no lesser for it: the log holds it as an error."""


def keep_raw(ctx: StepContext, delivery: Delivery) -> dict[str, Any]:
    """Keep a delivery's bytes at ``raw/<model>/<sha256>.<ending>``, unless they are there.

    Returns:
        What a record says of where its rows came from.
    """
    if delivery.raw is None:
        return _source(delivery, None)
    endings = (f".{part}" for part in delivery.name.split(".")[1:][-2:] if part.isalnum() and len(part) <= 8)
    parts = ("raw", ctx.spec.name, f"{delivery.content_hash}{''.join(endings)}")
    if not ctx.store.exists(*parts):
        ctx.store.write_bytes(delivery.raw, *parts)
    return _source(delivery, "/".join(parts))


def _source(delivery: Delivery, kept_at: str | None) -> dict[str, Any]:
    found = {"name": delivery.name, "hash": delivery.content_hash, "origin": delivery.origin, "raw": kept_at}
    return found if delivery.zone is None else {**found, "zone": delivery.zone}


def detail_of(
    source: Mapping[str, Any],
    *,
    delivered: int = 0,
    published: int = 0,
    quarantined: Mapping[str, int] = MappingProxyType({}),
    warnings: Sequence[str] = (),
    reasons: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a record's detail: rows delivered, published and quarantined by rule, warnings, reasons to refuse."""
    return {
        "source": dict(source),
        "delivered": delivered,
        "published": published,
        "quarantined": dict(quarantined),
        "warnings": list(warnings),
        "reasons": list(reasons),
    }


def write_tables(ctx: StepContext, wanted: Mapping[str, pa.Table], previous: DayRecord | None) -> dict[str, Output]:
    """Write a day of each table, with its columns' hashes; readers see it only once its record is published."""
    outputs = {}
    for name, rows in wanted.items():
        output = tables.write_day(ctx.store, ctx.spec.name, name, ctx.day, rows, previous=previous)
        outputs[name] = replace(output, column_hashes=tables.column_hashes(rows))
    return outputs


def settle(
    ctx: StepContext, stage: str, previous: DayRecord | None, record: DayRecord, alarms: Sequence[str] = ()
) -> dict[str, Any]:
    """Publish a day's record and return the part of the result that events and labels share.

    ``alarms`` are warnings that depend on other days and are kept out of the record.
    """
    Ledger.of(ctx.settings, ctx.spec.name, stage).publish(record, origin=ctx.origin)
    warnings = [*record.detail["warnings"], *alarms]
    for warning in warnings:
        level = logging.ERROR if warning.endswith(SAID_ONCE) else logging.WARNING
        log.log(level, "%s %s of %s: %s", ctx.spec.name, stage, ctx.day, warning)
    by_rule = dict(record.detail["quarantined"])
    return {
        "status": record.status,
        "rows": record.detail["published"],
        "quarantined": sum(by_rule.values()),
        "by_rule": by_rule,
        "warnings": warnings,
        "reasons": list(record.detail["reasons"]),
        "changed": previous is None or previous.data_hash != record.data_hash,
    }


def refuse(
    ctx: StepContext,
    stage: str,
    previous: DayRecord | None,
    delivery: Delivery,
    inputs: Mapping[str, str],
    reasons: Sequence[str],
    warnings: Sequence[str] = (),
    advice: str = "",
) -> DayRejected:
    """Keep a refused delivery with its reasons at ``quarantine/<model>/<day>/<sha256>/`` and record the refusal.

    If the day's earlier content stays in force, its record stays too. ``advice`` says what else a person may do.

    Returns:
        What to raise.
    """
    store, spec, day = ctx.store, ctx.spec, ctx.day
    parts = ("quarantine", spec.name, day.isoformat(), delivery.content_hash or "unreadable")
    folder = "/".join(parts)
    # Reasons last: who finds them finds the file beside them.
    if delivery.raw is not None:  # also if it is there: maintenance may be about to remove what is old
        store.write_bytes(delivery.raw, *parts, delivery.name)
    entry = {"reasons": list(reasons), "origin": delivery.origin, "name": delivery.name}
    store.write_json(entry, *parts, "reasons.json")
    kept = ""
    if previous is not None and previous.status in IN_FORCE[stage]:
        kept = f"The {previous.status} content of {day} stays in force. "
    else:
        rows = delivery.rows.num_rows if delivery.rows is not None else 0
        detail = detail_of(_source(delivery, folder), delivered=rows, warnings=warnings, reasons=reasons)
        record = DayRecord(day.isoformat(), "rejected", {}, inputs, detail)
        Ledger.of(ctx.settings, spec.name, stage).publish(record, origin=ctx.origin)
    copy = "A copy with the reasons lies" if delivery.raw is not None else "The reasons lie"
    what, again = f"delivery {delivery.name}", f"{spec.name}_ingest for {day}"
    if stage == "labels":
        what, again = f"label file {delivery.name}", f"the labels of {day} again"

    def sentence(faults: Iterable[str]) -> str:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        return (
            f"{spec.name} {day}: {what} was rejected for {len(reasons)} reason{'s' if len(reasons) > 1 else ''}:\n"
            f"{listed}\n{kept}{copy} in the store at {folder}. "
            f"Have it corrected and delivered again, then run {again}.{advice and f' {advice}'}"
        )

    return DayRejected(sentence(reasons), brief=sentence(without_example(reason) for reason in reasons))
