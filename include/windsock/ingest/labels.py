"""The ``labels`` step, and when each label became known: the one place where the delay is applied.

A label that comes with its event is hidden until ``delay_days`` after the event. A label from a
file was known when it was delivered: not before the day of delivery, whatever time it claims,
because a backfill must not know earlier what live runs learned later. Null labels are not
stored: unknown is not "no".

The key of a run is the day of delivery. Its labels may be for any event of the last
``label.files.horizon_days``, so those days must be settled first; a label for no published event,
or whose key several of them have, is set aside, and the day of delivery is run again when such an event
is published later (see ``windsock.completeness``). An event may be labelled again by a later delivery: readers take the
latest label that was known by their day.

An event that comes late (``events.late_days``) may come after its label: the day of the label's delivery is run again
then, and the label counts as known once its event is.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from windsock import completeness, tables
from windsock.column_types import arrow_schema, to_pandas
from windsock.completeness import UNKNOWN_EVENT, settled_days
from windsock.days import end_of, last_instant, start_of
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.ingest import label_history
from windsock.ingest.appended import adds, with_earlier
from windsock.ingest.conform import DUPLICATE, Conformed, Quarantine, RowFault, conform
from windsock.ingest.records import NO_SOURCE, detail_of, keep_raw, refuse, settle, write_tables
from windsock.ingest.redelivery import compare, how_to_accept
from windsock.ingest.sources.delivery import Delivery, NotDelivered, NotWhole
from windsock.ingest.sources.files import fetch_daily
from windsock.ingest.sources.local_days import last_day_over
from windsock.ledger import LATE, DayRecord, Ledger
from windsock.spec import ModelSpec
from windsock.spec.columns import event_known_at, label_columns, label_type, label_values
from windsock.spec.data import LabelFiles
from windsock.steps import StepContext
from windsock.validate.sentences import show

SEVERAL_EVENTS = "key of one event"
"""Rule of labels whose key several events of the horizon have, as where ids begin anew each day: whose are they?"""
_EVENT_TIME, _EVENT_KNOWN, _SEVERAL = "\0event time", "\0event known", "\0several events"
"""What is found out about each label, beside the columns of its file: none can be called so."""


def run(ctx: StepContext) -> dict[str, Any]:
    """Store the labels that were delivered on the day that the context names.

    Options: ``no_delivery`` (true): no label file will come for this day; record it as empty. ``accept_worse`` (true),
    with ``reason`` and ``by``: a file may replace a published one although it is worse.

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
    later = Ledger.of(ctx.settings, spec.name, "ingest").between(
        day + timedelta(days=1), day + timedelta(days=spec.events.late_days)
    )
    late_in = [*events.values(), *(r for r in later.values() if r.rows(f"{LATE}events"))]
    inputs = {f"ingest/{r.ds}": r.data_hash for r in late_in}
    previous = Ledger.of(ctx.settings, spec.name, "labels").get_if_whole(day)
    if ctx.options.get("no_delivery"):
        return _none(ctx, previous, inputs, "a person said that nothing will be")
    try:
        delivery = fetch_labels(spec, day)
    except NotDelivered as absent:
        named = _day_of_file(files, day)
        before = named < spec.first_day  # of a local day: its file is read, if there is one, but not waited for
        is_coming = (files.missing == "wait" and not before) or isinstance(absent, NotWhole)
        if is_coming and ctx.live:
            raise
        if is_coming:
            raise UpstreamUnavailable(str(absent)) from absent  # of a day that is long over, it will not come
        why = f"{named} is before the model's first_day" if before else "label.files.missing is 'empty'"
        return _none(ctx, previous, inputs, f"{why} ({absent})")
    if adds(files):
        delivery = with_earlier(ctx, "labels", delivery, [spec.label.delivered_as, files.key])
    source = keep_raw(ctx, delivery)
    inputs["source"] = delivery.content_hash or ""
    if delivery.rows is None:
        raise refuse(
            ctx, "labels", previous, delivery, inputs, [delivery.problem or f"{delivery.name}: cannot be read."]
        )
    conformed = conform_labels(spec, delivery.rows, delivery.zone)
    if conformed.rows is None:
        raise refuse(ctx, "labels", previous, delivery, inputs, conformed.problems)
    columns = [spec.events.key, spec.events.time, event_known_at(spec)]
    keys = tables.read_events(ctx.store, spec, events.values(), columns, late_in=late_in)
    rows, quarantine, warnings = _match(spec, day, conformed.rows, conformed.faults, keys)
    # Labels for unknown events lose nothing and do not count.
    harmless = quarantine.counts.get(UNKNOWN_EVENT, 0)
    if reasons := quarantine.over_budget(spec.validation.quarantine_budget, "labels", harmless=harmless):
        raise refuse(ctx, "labels", previous, delivery, inputs, reasons)
    wanted = {"labels": rows}
    if quarantine.counts:
        wanted["label_quarantine"] = quarantine.table(delivery.rows, files.key)
    detail = detail_of(
        source,
        delivered=delivery.rows.num_rows,
        published=rows.num_rows,
        quarantined=quarantine.counts,
        warnings=[*conformed.warnings, *warnings],
    )
    lost, accepted = compare(ctx, None if adds(files) else previous, detail)
    if lost:
        raise refuse(ctx, "labels", previous, delivery, inputs, lost, warnings, how_to_accept(ctx, "labels"))
    detail |= accepted
    detail["stats"] = label_history.stats_of(spec, rows)
    record = DayRecord(day.isoformat(), "published", write_tables(ctx, wanted, previous), inputs, detail)
    return _settle(ctx, previous, record, label_history.alarms(ctx, record, [UNKNOWN_EVENT]))


def fetch_labels(spec: ModelSpec, day: date) -> Delivery:
    """Fetch the label file delivered on one day: of local days, the newest one that was over by its end."""
    files = label_files(spec)
    return fetch_daily(spec, files, _day_of_file(files, day))


def _day_of_file(files: LabelFiles, day: date) -> date:
    return day if files.timezone is None else last_day_over(day, files.timezone)


def label_files(spec: ModelSpec) -> LabelFiles:
    """Return what the spec says of a model's label files.

    Raises:
        SpecError: Its labels come as a column of the events.
    """
    if spec.label.files is None:
        raise SpecError(
            f"Model {spec.name!r} has no label files: its labels are the column {spec.label.column!r} of the events. "
            "There is nothing to fetch; give label.files in its model.yaml if labels come as files of their own."
        )
    return spec.label.files


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


def _settle(
    ctx: StepContext, previous: DayRecord | None, record: DayRecord, alarms: Sequence[str] = ()
) -> dict[str, Any]:
    result = settle(ctx, "labels", previous, record, alarms)
    stale = completeness.stale_days(ctx.settings, ctx.spec, ctx.day, itself=True)
    return result | {"refresh": [d.isoformat() for d in stale]}


def inline_labels(spec: ModelSpec, rows: pa.Table) -> pa.Table:
    """Return table ``labels`` for valid events, in their final order, that carry their label."""
    known = rows.filter(pc.is_valid(rows.column(spec.label.column)))
    time = known.column(spec.events.time)
    columns = [known.column(spec.events.key), known.column(spec.label.column), time, tables.label_known_at(spec, time)]
    return pa.table(columns, schema=arrow_schema(label_columns(spec).items()))


def conform_labels(spec: ModelSpec, delivered: pa.Table, zone: str | None = None) -> Conformed:
    """Bring a label file into the form that the spec declares."""
    return conform(
        delivered,
        label_file_columns(spec),
        sources={spec.label.column: spec.label.delivered_as},
        values=label_values(spec),
        zone=zone,
        key=label_files(spec).key,
    )


def label_file_columns(spec: ModelSpec) -> dict[str, str]:
    """Return name to type of what a label file must hold."""
    files = label_files(spec)
    columns: dict[str, str] = {files.key: spec.events.columns[spec.events.key], spec.label.column: label_type(spec)}
    return columns if files.time is None else {**columns, files.time: "timestamp"}


def _match(
    spec: ModelSpec, day: date, delivered: pa.Table, faults: Sequence[RowFault], events: pa.Table
) -> tuple[pa.Table, Quarantine, list[str]]:
    """Match the labels delivered on a day, in their declared form, with the events they are for.

    ``faults`` are values that could not be read; ``events`` hold key, event time and when each became known.

    Returns:
        Table ``labels`` of the day of delivery, the rows set aside, and warnings.
    """
    files, label = label_files(spec), spec.label.column
    given = to_pandas(delivered)
    given[_EVENT_TIME], given[_SEVERAL] = _event_times(given[files.key], events, 1)
    if spec.events.late_days:
        given[_EVENT_KNOWN], _ = _event_times(given[files.key], events, 2)
    quarantine = Quarantine(len(given))
    for fault in faults:
        quarantine.add(fault)
    for rule, column, broken in _rules(spec, day, given):
        rows = broken.to_numpy(dtype=bool).nonzero()[0]
        if len(rows):
            first = int(rows[0])
            sentence = (
                f"{column}: {len(rows):,} of {len(given):,} labels break the rule '{rule}', "
                f"e.g. {show(given[column].iat[first])} ({files.key} {show(given[files.key].iat[first])})."
            )
            quarantine.add(RowFault(rule, sentence, rows))
    warnings = [f"{sentence} Set aside." for sentence in quarantine.sentences(copies=True)]
    kept = quarantine.kept()
    unlabelled = given[label].isna().to_numpy() & kept
    if unlabelled.any():
        example = show(given[files.key].to_numpy(dtype=object)[unlabelled][0])
        warnings.append(
            f"{label}: {int(unlabelled.sum()):,} of {len(given):,} labels are null (rule 'a label is known'), "
            f"e.g. {files.key} {example}. They were left out: unknown is not 'no'."
        )
    return _table(spec, day, given[kept & ~unlabelled]), quarantine, warnings


def _rules(spec: ModelSpec, day: date, given: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    """Yield rule, column and which rows break it; a row counts under the first."""
    files, label = label_files(spec), spec.label.column
    no_key = given[files.key].isna()
    yield f"{files.key} not null", files.key, no_key
    copies = given.duplicated(keep="first") & ~no_key
    yield DUPLICATE, files.key, copies
    fresh = ~no_key & ~copies
    twice = given[fresh].duplicated(subset=[files.key], keep=False)  # these share their key and are no copies
    yield "one label per event", label, twice.reindex(given.index, fill_value=False)
    yield UNKNOWN_EVENT, files.key, fresh & given[_EVENT_TIME].isna()
    yield SEVERAL_EVENTS, files.key, fresh & given[_SEVERAL]
    if spec.label.task == "binary":
        yield f"{label} one of 0, 1", label, fresh & given[label].notna() & ~given[label].isin([0, 1])
    else:
        yield f"{label} finite", label, fresh & np.isinf(pd.to_numeric(given[label]).astype("float64"))
    if files.time is not None:
        claimed = given[files.time]
        yield f"{files.time} not null", files.time, fresh & claimed.isna()
        yield f"{files.time} not before its event", files.time, fresh & (claimed < given[_EVENT_TIME])
        yield f"{files.time} not after its delivery", files.time, fresh & (claimed >= pd.Timestamp(end_of(day)))


def _event_times(keys: pd.Series, events: pa.Table, column: int) -> tuple[pd.Series, pd.Series]:
    """Return a time of each key's event, null if there is no such event, and whether several have that key."""
    known = pd.Series(events.column(column).to_pandas().to_numpy(), index=pd.Index(events.column(0).to_pandas()))
    several = known.index[known.index.duplicated()]
    return keys.map(known[~known.index.duplicated(keep="last")]), keys.isin(several)


def _table(spec: ModelSpec, day: date, valid: pd.DataFrame) -> pa.Table:
    """Return table ``labels`` for the valid rows of a label file."""
    files = label_files(spec)
    if files.time is not None:
        delivered = pd.Timestamp(start_of(day))
        known_at = valid[files.time].where(valid[files.time] >= delivered, delivered)
    else:
        known_at = pd.Series(pd.Timestamp(last_instant(day)), index=valid.index)
    if spec.events.late_days:
        known_at = known_at.where(known_at >= valid[_EVENT_KNOWN], valid[_EVENT_KNOWN])
    schema = arrow_schema(label_columns(spec).items())
    columns = (valid[files.key], valid[spec.label.column], valid[_EVENT_TIME], known_at)
    final = pd.DataFrame(dict(zip(schema.names, columns, strict=True)))
    final = final.sort_values([schema.names[2], schema.names[0]], kind="stable")
    table = pa.Table.from_pandas(final, schema, preserve_index=False, safe=False)
    return table.replace_schema_metadata(None)
