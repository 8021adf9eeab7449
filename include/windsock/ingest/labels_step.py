"""Labels that come as files of their own: match one day's delivery with the events it is for.

The key of a run is the day of delivery. Its labels may be for any event of the last
``label.files.horizon_days``, so those days must be settled first; a label for no published event
is set aside, and the day of delivery is run again when such an event is published later
(see ``windsock.staleness``). An event may be labelled again by a later delivery: readers take the
latest label that was known by their day.
"""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from windsock import staleness, tables
from windsock.completeness import settled_days
from windsock.errors import DayRejected, UpstreamUnavailable
from windsock.ingest.conform import conform
from windsock.ingest.labels import UNKNOWN_EVENT, FileLabels, file_columns, match_labels
from windsock.ingest.records import NO_SOURCE, detail_of, keep_raw, record_refusal, source_of, step_result
from windsock.ingest.sources import Delivery, NotDelivered, fetch_labels, label_files
from windsock.ledger import DayRecord, Ledger
from windsock.spec import ModelSpec
from windsock.steps import StepContext

log = logging.getLogger(__name__)


def run(ctx: StepContext) -> dict[str, Any]:
    """Store the labels that were delivered on the day that the context names.

    Options: ``no_delivery`` (true): no label file will come for this day; record it as empty.

    Returns:
        ``status``, ``rows``, ``quarantined``, ``by_rule``, ``warnings``, ``reasons``, ``changed`` and
        ``refresh`` (days whose features are out of date, this one included), as the ingest step does.

    Raises:
        NotReady: Days of events that the labels may be for are not settled yet.
        UpstreamUnavailable: The file is not there yet, or cannot be reached.
        DayRejected: The file was refused; the refusal is recorded.
        SpecError: The model's labels are a column of its events.
    """
    spec, day = ctx.spec, ctx.day
    files = label_files(spec)
    first = day - timedelta(days=files.horizon_days)
    events = settled_days(ctx.settings, spec, "ingest", first, day)
    inputs = {f"ingest/{r.ds}": r.data_hash for r in events.values()}
    previous = Ledger.of(ctx.settings, spec.name, "labels").get(day)
    if ctx.options.get("no_delivery"):
        return _none(ctx, previous, inputs, "a person said that nothing will be")
    try:
        delivery = fetch_labels(spec, day)
    except NotDelivered as absent:
        if files.missing == "wait" and ctx.live:
            raise
        if files.missing == "wait":
            raise UpstreamUnavailable(str(absent)) from absent  # of a day that is long over, it will not come
        return _none(ctx, previous, inputs, f"label.files.missing is 'empty' ({absent})")
    raw = keep_raw(ctx.store, spec, delivery)
    inputs["source"] = delivery.content_hash or ""
    source = source_of(delivery, raw)
    if delivery.rows is None:
        return _refuse(ctx, previous, delivery, inputs, [delivery.problem or f"{delivery.name}: cannot be read."])
    conformed = conform(delivery.rows, file_columns(spec), key=files.key)
    if conformed.rows is None:
        return _refuse(ctx, previous, delivery, inputs, list(conformed.problems))
    keys = tables.read(ctx.store, events.values(), "events", [spec.events.key, spec.events.time])
    found = match_labels(spec, day, conformed.rows, conformed.faults, keys)
    reasons = _over_budget(spec, found)
    if reasons:
        return _refuse(ctx, previous, delivery, inputs, reasons)
    warnings = [*conformed.warnings, *(f"{s} Set aside." for s in found.quarantine.sentences(copies=True))]
    if found.nulls:
        warnings.append(
            f"{spec.label.column}: {found.nulls:,} of {delivery.rows.num_rows:,} labels are null (rule 'a label is "
            f"known'), e.g. {files.key} {found.null_example}. They were left out: unknown is not 'no'."
        )
    wanted = {"labels": found.rows}
    if found.quarantine.counts:
        wanted["label_quarantine"] = found.quarantine.table(delivery.rows, files.key)
    outputs = {
        name: tables.write_day(ctx.store, spec.name, name, day, table, previous=previous)
        for name, table in wanted.items()
    }
    detail = detail_of(
        source,
        delivered=delivery.rows.num_rows,
        published=found.rows.num_rows,
        quarantined=found.quarantine.counts,
        warnings=warnings,
    )
    return _settle(ctx, previous, DayRecord(day.isoformat(), "published", outputs, inputs, detail))


def _over_budget(spec: ModelSpec, found: FileLabels) -> list[str]:
    """Say why too many labels are faulty; labels for unknown events lose nothing and do not count."""
    budget, total = spec.validation.quarantine_budget, found.quarantine.total
    faulty = found.quarantine.faulty - found.quarantine.counts.get(UNKNOWN_EVENT, 0)
    if faulty <= budget * total:
        return []
    return [
        f"{faulty:,} of {total:,} labels ({faulty / total:.2%}) break a rule, more than "
        f"validation.quarantine_budget ({budget:.2%}) allows. {sentence}"
        for sentence in found.quarantine.sentences()
    ]


def _none(ctx: StepContext, previous: DayRecord | None, inputs: dict[str, str], why: str) -> dict[str, Any]:
    """Settle a day on which no label file came."""
    spec = ctx.spec
    if previous is not None and previous.status == "published":
        raise UpstreamUnavailable(
            f"{spec.name} {ctx.day}: no label file is there now, but {previous.rows('labels'):,} labels were published "
            "from an earlier one. They stay in force; deliver the file again to replace them."
        )
    sentence = f"{spec.label.column}: 0 labels were delivered on {ctx.day}; taken as an empty day, because {why}."
    record = DayRecord(ctx.day.isoformat(), "empty", {}, inputs, detail_of(NO_SOURCE, warnings=[sentence]))
    return _settle(ctx, previous, record)


def _settle(ctx: StepContext, previous: DayRecord | None, record: DayRecord) -> dict[str, Any]:
    Ledger.of(ctx.settings, ctx.spec.name, "labels").publish(record, origin=ctx.origin)
    for warning in record.detail["warnings"]:
        log.warning("%s labels of %s: %s", ctx.spec.name, ctx.day, warning)
    return step_result(previous, record, record.detail["warnings"]) | {
        "refresh": [d.isoformat() for d in staleness.stale_days(ctx.settings, ctx.spec, ctx.day, itself=True)],
    }


def _refuse(
    ctx: StepContext, previous: DayRecord | None, delivery: Delivery, inputs: Mapping[str, str], reasons: list[str]
) -> dict[str, Any]:
    """Record a refusal and raise it; labels published before stay in force."""
    spec, day = ctx.spec, ctx.day
    stays = previous is not None and previous.status == "published"
    place = record_refusal(ctx, "labels", delivery, inputs, reasons, in_force=stays)
    kept = f"The labels published for {day} stay in force. " if stays else ""
    faults = "\n".join(f"  - {reason}" for reason in reasons)
    raise DayRejected(
        f"{spec.name} {day}: label file {delivery.name} was rejected:\n{faults}\n{kept}A copy with the reasons lies in "
        f"the store at {place}. Have it corrected and delivered again, then run the labels of {day} again."
    )
