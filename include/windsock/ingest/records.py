"""What a day's delivery leaves behind: its raw copy, its record, and what the step says of it.

Raw copies are kept by content, so that the same file is kept once.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from windsock.ingest.sources import Delivery
from windsock.ledger import DayRecord, Ledger
from windsock.spec import ModelSpec
from windsock.steps import StepContext
from windsock.store import Store

NO_SOURCE: Mapping[str, Any] = MappingProxyType({"name": None, "hash": None, "origin": "", "raw": None})
"""``source`` of a day for which nothing was delivered."""


def keep_raw(store: Store, spec: ModelSpec, delivery: Delivery) -> str | None:
    """Keep a delivery's bytes at ``raw/<model>/<sha256>.<ending>``, unless they are there.

    Returns:
        The path within the store, or None if the delivery has no bytes of its own.
    """
    if delivery.raw is None or delivery.content_hash is None:
        return None
    parts = ("raw", spec.name, f"{delivery.content_hash}{_ending(delivery.name)}")
    if not store.exists(*parts):
        store.write_bytes(delivery.raw, *parts)
    return "/".join(parts)


def _ending(name: str) -> str:
    """Return a file's endings, two at most: ``.csv.gz``."""
    pieces = name.split(".")[1:]
    return "".join(f".{p}" for p in pieces[-2:] if p.isalnum() and len(p) <= 8)


def source_of(delivery: Delivery, kept_at: str | None) -> dict[str, Any]:
    """Return what a record says of where its rows came from."""
    return {"name": delivery.name, "hash": delivery.content_hash, "origin": delivery.origin, "raw": kept_at}


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


def record_refusal(
    ctx: StepContext,
    stage: str,
    delivery: Delivery,
    inputs: Mapping[str, str],
    reasons: Sequence[str],
    warnings: Sequence[str] = (),
    *,
    in_force: bool,
) -> str:
    """Keep a refused delivery with its reasons at ``quarantine/<model>/<day>/<sha256>/`` and record the refusal.

    ``in_force`` says that earlier content of the day stays in force; then its record stays too.

    Returns:
        The folder within the store.
    """
    store, spec, day = ctx.store, ctx.spec, ctx.day
    parts = ("quarantine", spec.name, day.isoformat(), delivery.content_hash or "unreadable")
    # Reasons last: who finds them finds the file beside them.
    if delivery.raw is not None and not store.exists(*parts, delivery.name):
        store.write_bytes(delivery.raw, *parts, delivery.name)
    entry = {"reasons": list(reasons), "origin": delivery.origin, "name": delivery.name}
    store.write_json(entry, *parts, "reasons.json")
    folder = "/".join(parts)
    if not in_force:
        rows = delivery.rows.num_rows if delivery.rows is not None else 0
        detail = detail_of(source_of(delivery, folder), delivered=rows, warnings=warnings, reasons=reasons)
        record = DayRecord(day.isoformat(), "rejected", {}, inputs, detail)
        Ledger.of(ctx.settings, spec.name, stage).publish(record, origin=ctx.origin)
    return folder


def step_result(previous: DayRecord | None, record: DayRecord, warnings: Sequence[str]) -> dict[str, Any]:
    """Return the part of the result that ingest and labels share; ``warnings`` may go beyond the record's own."""
    by_rule = dict(record.detail["quarantined"])
    return {
        "status": record.status,
        "rows": record.detail["published"],
        "quarantined": sum(by_rule.values()),
        "by_rule": by_rule,
        "warnings": list(warnings),
        "reasons": list(record.detail["reasons"]),
        "changed": previous is None or previous.data_hash != record.data_hash,
    }
