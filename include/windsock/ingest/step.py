"""Ingest one day: fetch, keep raw, conform, validate, set aside, write, publish.

Everything before :meth:`Ledger.publish` may be killed and run again: readers find rows only
through the record. A day that was published stays as it is when a later delivery of it is
refused, or is empty.
"""

import logging
from collections.abc import Mapping
from datetime import date
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from windsock import staleness, tables
from windsock.days import last_instant
from windsock.errors import DayRejected, SpecError, UpstreamUnavailable
from windsock.ingest import history
from windsock.ingest.conform import Conformed, conform
from windsock.ingest.labels import inline_labels
from windsock.ingest.records import NO_SOURCE, detail_of, keep_raw, record_refusal, source_of, step_result
from windsock.ingest.sources import Delivery, NotDelivered, fetch
from windsock.ingest.validation import ValidatedDelivery, validate_delivery
from windsock.ledger import DayRecord, Ledger, Output, Status
from windsock.spec import ModelSpec
from windsock.spec.columns import declared_columns
from windsock.steps import StepContext
from windsock.validate import docs

log = logging.getLogger(__name__)


def run(ctx: StepContext) -> dict[str, Any]:
    """Ingest the day that the context names.

    Options: ``no_delivery`` (true): the day will never be delivered; record it as rejected, so that
    later days need not wait for it. ``allow_empty`` (true): an empty delivery may replace a published day.

    Returns:
        ``status``, ``rows``, ``quarantined`` (rows set aside), ``by_rule``, ``warnings``, ``reasons``,
        ``changed`` (whether the day's rows are others than before) and ``refresh`` (later days made stale).

    Raises:
        DayRejected: The delivery was refused; the message holds every reason.
        UpstreamUnavailable: The delivery is not there, or its source cannot be reached.
        SpecError: The key, the spec or the suite cannot be used.
    """
    spec, day = ctx.spec, ctx.day
    previous = Ledger.of(ctx.settings, spec.name, "ingest").get(day)
    if ctx.options.get("no_delivery"):
        return _give_up(ctx, previous)
    try:
        delivery = fetch(spec, day)
    except NotDelivered as absent:
        if ctx.live:
            raise  # it may come later today
        # A replay asks for days that are long over, and waiting would keep the rest of a backfill out.
        raise UpstreamUnavailable(str(absent)) from absent
    raw = keep_raw(ctx.store, spec, delivery)
    source = source_of(delivery, raw)
    if delivery.rows is None:
        problem = delivery.problem or f"{delivery.name}: cannot be read."
        rule = "Rule: a delivery is a readable table; all its columns and rows are affected."
        return _refuse(ctx, previous, delivery, [f"{problem} {rule}"], ())
    conformed = conform(delivery.rows, declared_columns(spec), ignore=spec.events.ignore, key=spec.events.key)
    if conformed.rows is None:
        return _refuse(ctx, previous, delivery, list(conformed.problems), conformed.warnings)
    if conformed.rows.num_rows == 0:
        return _empty(ctx, previous, delivery, conformed, source)
    valid = validate_delivery(ctx.settings, spec, day, conformed.rows, conformed)
    if valid.reasons:
        return _refuse(ctx, previous, delivery, list(valid.reasons), valid.warnings)
    return _publish(ctx, previous, delivery.rows, valid, source)


def _publish(
    ctx: StepContext, previous: DayRecord | None, delivered: pa.Table, valid: ValidatedDelivery, source: dict[str, Any]
) -> dict[str, Any]:
    spec, day = ctx.spec, ctx.day
    events = with_known_at(spec, day, valid.rows)
    wanted = {"events": events}
    if spec.label.files is None:
        wanted["labels"] = inline_labels(spec, valid.rows)
    quarantined = valid.quarantine.table(delivered, spec.events.key)
    if quarantined.num_rows:
        wanted["quarantine"] = quarantined
    outputs = {
        name: tables.write_day(ctx.store, spec.name, name, day, table, previous=previous)
        for name, table in wanted.items()
    }
    detail = detail_of(
        source,
        delivered=delivered.num_rows,
        published=events.num_rows,
        quarantined=valid.quarantine.counts,
        warnings=valid.warnings,
    )
    detail["stats"] = history.stats_of(spec, events)
    alarms = history.alarms(ctx.settings, spec, day, events, detail["stats"])
    return _settle(ctx, previous, _record(ctx, "published", source, detail, outputs), alarms)


def with_known_at(spec: ModelSpec, day: date, rows: pa.Table) -> pa.Table:
    """Return table ``events``: the declared columns and when each event became known, without the label."""
    events = rows.select(list(spec.events.columns))
    end = pa.scalar(last_instant(day), pa.timestamp("us"))
    if spec.events.delivered_at is not None:
        known_at = pc.fill_null(events.column(spec.events.delivered_at), end)
    else:
        known_at = pa.chunked_array([pa.repeat(end, events.num_rows)])
    return events.append_column(pa.field("known_at", pa.timestamp("us")), known_at)


def _empty(
    ctx: StepContext, previous: DayRecord | None, delivery: Delivery, conformed: Conformed, source: dict[str, Any]
) -> dict[str, Any]:
    """Settle a delivery without rows, as ``validation.empty_day`` says."""
    spec = ctx.spec
    sentence = (
        f"{spec.events.key}: the delivery {delivery.name} of {ctx.day} holds 0 rows (rule 'a day has rows', "
        f"validation.empty_day: {spec.validation.empty_day}), e.g. columns {', '.join(list(spec.events.columns)[:3])} "
        "and no value."
    )
    replaces = previous is not None and previous.status == "published" and not ctx.options.get("allow_empty")
    if replaces and previous is not None:
        sentence += (
            f" It would replace {previous.rows('events'):,} published rows; run the step with option allow_empty "
            "if that is meant."
        )
    if spec.validation.empty_day == "reject" or replaces:
        return _refuse(ctx, previous, delivery, [sentence], conformed.warnings)
    detail = detail_of(source, warnings=(*conformed.warnings, sentence))
    return _settle(ctx, previous, _record(ctx, "empty", source, detail), [])


def _give_up(ctx: StepContext, previous: DayRecord | None) -> dict[str, Any]:
    """Record that a day was never delivered, because a person said so."""
    if previous is not None and _stays(previous):
        raise SpecError(
            f"{ctx.spec.name}: {ctx.day} was delivered and is {previous.status}, so option no_delivery does not fit. "
            "Run the step without it."
        )
    reason = (
        f"{ctx.spec.events.key}: 0 rows were delivered for {ctx.day} (rule 'a day is delivered'), given up by hand."
    )
    record = _record(ctx, "rejected", NO_SOURCE, detail_of(NO_SOURCE, reasons=[reason]))
    return _settle(ctx, previous, record, [])


def _stays(previous: DayRecord | None) -> bool:
    """Say whether a day's content stays in force when a later delivery of it is refused."""
    return previous is not None and previous.status in ("published", "empty")


def _record(
    ctx: StepContext,
    status: Status,
    source: Mapping[str, Any],
    detail: dict[str, Any],
    outputs: Mapping[str, Output] | None = None,
) -> DayRecord:
    return DayRecord(ctx.day.isoformat(), status, outputs or {}, {"source": source["hash"] or ""}, detail)


def _settle(ctx: StepContext, previous: DayRecord | None, record: DayRecord, alarms: list[str]) -> dict[str, Any]:
    """Publish a day's record and say what follows from it."""
    Ledger.of(ctx.settings, ctx.spec.name, "ingest").publish(record, origin=ctx.origin)
    warnings = [*record.detail["warnings"], *alarms]
    if ctx.live and warnings:
        _show(ctx)
    for warning in warnings:
        log.warning("%s %s: %s", ctx.spec.name, ctx.day, warning)
    return step_result(previous, record, warnings) | {
        # Also when nothing changed now: an earlier attempt may have been killed after it published.
        "refresh": [d.isoformat() for d in staleness.stale_days(ctx.settings, ctx.spec, ctx.day)],
        "relabel": [d.isoformat() for d in staleness.stale_label_days(ctx.settings, ctx.spec, ctx.day)],
    }


def _show(ctx: StepContext) -> None:
    """Add the day's page to Data Docs; a page that cannot be built is no reason to fail a day."""
    try:
        page = docs.add_day(ctx.settings, ctx.spec, ctx.day)
    except Exception:
        log.exception("%s %s: the Data Docs page could not be built", ctx.spec.name, ctx.day)
        return
    if page is not None:
        log.info("%s %s: Data Docs: %s", ctx.spec.name, ctx.day, page)


def _refuse(
    ctx: StepContext, previous: DayRecord | None, delivery: Delivery, reasons: list[str], warnings: tuple[str, ...]
) -> NoReturn:
    """Record a refusal and raise it; what was published before stays in force."""
    spec, day = ctx.spec, ctx.day
    inputs = {"source": delivery.content_hash or ""}
    stays = _stays(previous)
    place = record_refusal(ctx, "ingest", delivery, inputs, reasons, warnings, in_force=stays)
    kept = f"The {previous.status} content of {day} stays in force. " if previous is not None and stays else ""
    if ctx.live:
        _show(ctx)
    faults = "\n".join(f"  - {reason}" for reason in reasons)
    raise DayRejected(
        f"{spec.name} {day}: delivery {delivery.name} was rejected for {len(reasons)} "
        f"reason{'s' if len(reasons) > 1 else ''}:\n{faults}\n{kept}A copy with the reasons lies in the store "
        f"at {place}. Have it corrected and delivered again, then run {spec.name}_ingest for {day}."
    )
