"""Ingest one day: fetch, keep raw, conform, validate, set aside, write, publish.

Everything before :meth:`Ledger.publish` may be killed and run again: readers find rows only
through the record. A day that was published stays as it is when a later delivery of it is
refused, or is empty.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from windsock import completeness
from windsock.days import last_instant
from windsock.errors import DayRejected, SpecError, UpstreamUnavailable
from windsock.faults import fault_behind
from windsock.ingest import history, lasting
from windsock.ingest.appended import adds, with_earlier
from windsock.ingest.conform import Conformed
from windsock.ingest.held import held
from windsock.ingest.judge import conform_events, judge
from windsock.ingest.kept import kept_delivery, recoverable_columns
from windsock.ingest.labels import inline_labels
from windsock.ingest.late import is_late, late_by_day, late_tables
from windsock.ingest.records import IN_FORCE, NO_SOURCE, detail_of, keep_raw, refuse, settle, write_tables
from windsock.ingest.redelivery import compare, how_to_accept
from windsock.ingest.sources.delivery import Delivery, NotDelivered, fetch
from windsock.ingest.undeclared import extra_columns, undeclared_columns
from windsock.ledger import DayRecord, Ledger, Output, Status
from windsock.spec import ModelSpec
from windsock.spec.columns import event_known_at, needed_sources
from windsock.steps import StepContext
from windsock.validate import docs, profile

log = logging.getLogger(__name__)


def run(ctx: StepContext) -> dict[str, Any]:
    """Ingest the day that the context names.

    Options: ``no_delivery`` (true): the day will never be delivered; record it as rejected, so that
    later days need not wait for it. ``accept_worse`` (true), with ``reason`` and ``by``: a delivery may replace a
    published day although it is worse, an empty one too, and a broken one is let in.

    Returns:
        ``status``, ``rows``, ``quarantined`` (rows set aside), ``by_rule``, ``warnings``, ``reasons``,
        ``changed`` (whether the day's rows are others than before), ``refresh`` (later days made stale), ``relabel``
        (days of labels made stale) and, with ``events.late_days``, ``late`` (earlier day to rows that came for it).

    Raises:
        DayRejected: The delivery was refused; the message holds every reason.
        UpstreamUnavailable: The delivery is not there, or its source cannot be reached.
        SpecError: The key, the spec or the suite cannot be used.
    """
    spec, day = ctx.spec, ctx.day
    previous = Ledger.of(ctx.settings, spec.name, "ingest").get_if_whole(day)
    if ctx.options.get("no_delivery"):
        return _give_up(ctx, previous)
    try:
        if not ctx.live and (derived := rederive(ctx, day)) is not None:
            return derived
    except DayRejected as refused:
        log.warning("%s Its source is asked.", refused)
    try:
        delivery = fetch(spec, day)
    except (NotDelivered, UpstreamUnavailable) as absent:
        if ctx.live and (derived := rederive(ctx, day)) is not None:
            return derived
        if ctx.live or not isinstance(absent, NotDelivered):
            raise  # it may come, or answer, later today
        # A replay asks for days that are long over, and waiting would keep the rest of a backfill out.
        raise UpstreamUnavailable(str(absent)) from absent
    if adds(spec.source):
        delivery = with_earlier(ctx, "ingest", delivery, needed_sources(spec, day))
    return _take(ctx, previous, delivery)


def rederive(ctx: StepContext, day: date) -> dict[str, Any] | None:
    """Derive a published day again from the delivery that was kept, if that has a declared column that the rows lack.

    Its source is not asked. The day is validated by today's rules, and replaced as by a new delivery.

    Returns:
        What :func:`run` returns, with the columns that were taken in as ``recovered``; None: there was nothing to do.

    Raises:
        DayRejected: Today's rules refuse the day; it stays as it was.
    """
    previous = Ledger.of(ctx.settings, ctx.spec.name, "ingest").get_if_whole(day)
    recovered = [] if previous is None else recoverable_columns(ctx.store, ctx.spec, previous)
    if previous is None or not recovered or (delivery := kept_delivery(ctx.store, previous)) is None:
        return None
    names = ", ".join(recovered)
    log.info("%s %s: taken in from the delivery that was kept: %s", ctx.spec.name, day, names)
    return {**_take(replace(ctx, key=day.isoformat()), previous, delivery), "recovered": recovered}


def _take(ctx: StepContext, previous: DayRecord | None, delivery: Delivery) -> dict[str, Any]:
    """Publish a day from its delivery, or refuse it; ``previous`` is the record in force."""
    spec, day = ctx.spec, ctx.day
    source = keep_raw(ctx, delivery)
    if delivery.rows is None:
        problem = delivery.problem or f"{delivery.name}: cannot be read."
        rule = "Rule: a delivery is a readable table; all its columns and rows are affected."
        raise _refusal(ctx, previous, delivery, [f"{problem} {rule}"])
    conformed = conform_events(spec, day, delivery.rows, undeclared_columns(ctx, previous), delivery.zone)
    if conformed.rows is None:
        raise _refusal(ctx, previous, delivery, conformed.problems, conformed.warnings)
    if conformed.rows.num_rows == 0:
        return _empty(ctx, previous, delivery, conformed, source)
    _refuse_late_since(spec, day, conformed.rows)
    quarantine, warnings, reasons, result = judge(ctx.settings, spec, day, conformed.rows, conformed)
    if result:
        docs.keep_result(ctx.settings, spec, day, result)
    if reasons:
        raise _refusal(ctx, previous, delivery, reasons, warnings)
    order = [(spec.events.time, "ascending"), (spec.events.key, "ascending")]
    rows = conformed.rows.filter(pa.array(quarantine.kept())).sort_by(order)
    came_late = is_late(spec, day, rows)
    rows, late = rows.filter(pa.array(~came_late)), rows.filter(pa.array(came_late))
    events = with_known_at(spec, day, rows)
    wanted = {"events": events}
    if spec.label.files is None:
        wanted["labels"] = inline_labels(spec, rows)
    wanted |= late_tables(spec, day, late, with_known_at(spec, day, late))
    if quarantine.counts:
        wanted["quarantine"] = quarantine.table(delivery.rows, spec.events.sources[spec.events.key])
    detail = detail_of(
        source,
        delivered=delivery.rows.num_rows,
        published=events.num_rows,
        quarantined=quarantine.counts,
        warnings=warnings,
    )
    if late.num_rows:
        detail["late"] = late_by_day(spec, late)
    detail["stats"] = history.stats_of(spec, events)
    labels = wanted["labels"].num_rows if "labels" in wanted else None
    gone = {*spec.events.columns, *extra_columns(ctx)} - {*events.column_names}
    replaced = None if adds(spec.source) else previous
    lost, accepted = compare(ctx, replaced, detail, labels, gone, held(ctx, previous, detail, events))
    if lost:
        raise _refusal(ctx, previous, delivery, lost, warnings, how_to_accept(ctx, "ingest"))
    detail |= accepted
    alarms = lasting.alarms(ctx, detail, conformed.rows)
    alarms += history.alarms(ctx.settings, spec, day, events, detail["stats"])
    alarms += profile.alarms(ctx.settings, spec, day, events)
    return _settle(ctx, previous, "published", detail, write_tables(ctx, wanted, previous), alarms)


def with_known_at(spec: ModelSpec, day: date, rows: pa.Table) -> pa.Table:
    """Return table ``events``: the day's columns and when each event became known, without the label."""
    events = rows.select([name for name in rows.column_names if name != spec.label.column])
    end = pa.scalar(last_instant(day), pa.timestamp("us"))
    if spec.events.delivered_at in events.column_names:
        known_at = pc.fill_null(events.column(spec.events.delivered_at), end)
    else:
        known_at = pa.chunked_array([pa.repeat(end, events.num_rows)])
    return events.append_column(pa.field(event_known_at(spec), pa.timestamp("us")), known_at)


def _refuse_late_since(spec: ModelSpec, day: date, rows: pa.Table) -> None:
    """Raise SpecError if a column has values on a day on which it was not delivered yet, by the spec."""
    for name, column in spec.events.declared.items():
        if column.since is None or day >= column.since or name not in rows.column_names:
            continue
        if valid := len(rows) - rows.column(name).null_count:
            raise SpecError(
                f"{spec.name}: events.columns.{name} is delivered since {column.since}, says model.yaml, but {valid:,} "
                f"of {len(rows):,} rows of {day} have a value there. Write since: {day}, or an earlier day."
            )


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
    if spec.validation.empty_day == "reject":
        raise _refusal(ctx, previous, delivery, [sentence], conformed.warnings)
    detail = detail_of(source, warnings=(*conformed.warnings, sentence))
    lost, accepted = compare(ctx, previous, detail)
    if lost:
        raise _refusal(ctx, previous, delivery, [sentence, *lost], conformed.warnings, how_to_accept(ctx, "ingest"))
    return _settle(ctx, previous, "empty", detail | accepted)


def _give_up(ctx: StepContext, previous: DayRecord | None) -> dict[str, Any]:
    """Record that a day was never delivered, because a person said so."""
    if previous is not None and previous.status in IN_FORCE["ingest"]:
        raise SpecError(
            f"{ctx.spec.name}: {ctx.day} was delivered and is {previous.status}, so option no_delivery does not fit. "
            "Run the step without it."
        )
    reason = (
        f"{ctx.spec.events.key}: 0 rows were delivered for {ctx.day} (rule 'a day is delivered'), given up by hand."
    )
    return _settle(ctx, previous, "rejected", detail_of(NO_SOURCE, reasons=[reason]))


def _settle(
    ctx: StepContext,
    previous: DayRecord | None,
    status: Status,
    detail: dict[str, Any],
    outputs: Mapping[str, Output] | None = None,
    alarms: Sequence[str] = (),
) -> dict[str, Any]:
    """Publish a day's record and say what follows from it."""
    record = DayRecord(ctx.day.isoformat(), status, outputs or {}, {"source": detail["source"]["hash"] or ""}, detail)
    result = settle(ctx, "ingest", previous, record, alarms)
    if result["warnings"]:
        _show(ctx)
    if ctx.spec.events.late_days:
        result["late"] = dict(detail.get("late", {}))
        log.info("%s %s: rows that came for earlier days: %s", ctx.spec.name, ctx.day, result["late"] or "none")
    return result | {
        # Also when nothing changed now: an earlier attempt may have been killed after it published.
        "refresh": [d.isoformat() for d in completeness.stale_days(ctx.settings, ctx.spec, ctx.day)],
        "relabel": [d.isoformat() for d in completeness.stale_label_days(ctx.settings, ctx.spec, ctx.day)],
    }


def _refusal(
    ctx: StepContext,
    previous: DayRecord | None,
    delivery: Delivery,
    reasons: Sequence[str],
    warnings: Sequence[str] = (),
    advice: str = "",
) -> DayRejected:
    inputs = {"source": delivery.content_hash or ""}
    refusal = refuse(ctx, "ingest", previous, delivery, inputs, reasons, warnings, advice)
    _show(ctx)
    return refusal


def _show(ctx: StepContext) -> None:
    """Add the day's page to Data Docs, if it is live; a page that cannot be built is no reason to fail a day."""
    if not ctx.live:
        return
    try:
        page = docs.add_day(ctx.settings, ctx.spec, ctx.day)
    except Exception as err:
        about, fault = "%s %s: the Data Docs page could not be built: %s", fault_behind(err)
        log.warning(about, ctx.spec.name, ctx.day, fault or err, exc_info=fault is None)
        return
    if page is not None:
        log.info("%s %s: Data Docs: %s", ctx.spec.name, ctx.day, page)
