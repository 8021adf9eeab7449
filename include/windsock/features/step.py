"""The ``features`` step: one day of every view, published in one commit.

A day's record names each of its inputs by content. Equal inputs, equal features; others than those
in force mean that the day is stale.
"""

import logging
from typing import Any

from windsock import tables
from windsock.completeness import lookback, settled_days
from windsock.errors import UpstreamUnavailable
from windsock.features.definition_checks import check_definition, definition_hash
from windsock.features.feature_tables import STAGE, Records, table_name
from windsock.features.view_sql import compute_view
from windsock.ledger import DayRecord, Ledger, Output, Status
from windsock.steps import StepContext

log = logging.getLogger(__name__)

_ROUNDS = 3


def run(ctx: StepContext) -> dict[str, Any]:
    """Compute and publish the features of ``ctx.day``.

    Returns:
        ``status``, ``rows`` per view, ``warm``, ``changed`` (whether anything new was published) and ``warnings``.

    Raises:
        NotReady: A day of the lookback is neither published nor recorded as rejected or empty.
        SpecError: A view's SQL does not run, or may not be computed: it looks ahead, say.
    """
    spec, day = ctx.spec, ctx.day
    ledger = Ledger.of(ctx.settings, spec.name, STAGE)
    before = ledger.get(day)
    warnings: list[str] = []
    for _ in range(_ROUNDS):
        events, labels, inputs = _settled_inputs(ctx)
        record = ledger.get(day)
        if record is None or dict(record.inputs) != inputs:
            made, warnings = _compute(ctx, events, labels, inputs, record)
            record = ledger.publish(made, origin=ctx.origin)
        # A day of the lookback may have been replaced while this ran; then what was published is
        # stale already, and the replacing run may have looked before it stood there.
        if dict(record.inputs) == _settled_inputs(ctx)[2]:
            break
        log.info("%s: the lookback of %s changed while its features were computed; once more", spec.name, day)
    else:
        raise UpstreamUnavailable(
            f"{spec.name}: days in the lookback of {day} were replaced {_ROUNDS} times while its features were "
            "computed. Run the step again when ingestion is quiet."
        )
    return {
        "status": record.status,
        "rows": {view.name: record.rows(table_name(view.name)) for view in spec.features.views},
        "warm": record.detail["warm"],
        "changed": before is None or before.data_hash != record.data_hash,
        "data_hash": record.data_hash,
        "warnings": warnings,
    }


def _settled_inputs(ctx: StepContext) -> tuple[Records, Records, dict[str, str]]:
    """Return the records of events and labels that the day is made from, and each input's name and hash."""
    spec = ctx.spec
    first, last = lookback(ctx.day, spec.features.lookback_days)
    events = labels = settled_days(ctx.settings, spec, "ingest", first, last)
    inputs = {f"ingest/{r.ds}": r.data_hash for r in events.values()}
    if spec.label.files is not None:
        # A label of the oldest event may have been delivered on any later day.
        labels = settled_days(ctx.settings, spec, "labels", first, last)
        inputs |= {f"labels/{r.ds}": r.data_hash for r in labels.values()}
    for view in spec.features.views:
        inputs[f"sql/{view.name}"] = definition_hash(spec, view)
    return events, labels, inputs


def _compute(
    ctx: StepContext, events: Records, labels: Records, inputs: dict[str, str], previous: DayRecord | None
) -> tuple[DayRecord, list[str]]:
    spec, store, day = ctx.spec, ctx.store, ctx.day
    outputs: dict[str, Output] = {}
    warnings: list[str] = []
    own = events[day].status
    status: Status = own if own in ("empty", "rejected") else "published"
    for view in spec.features.views if status == "published" else ():
        first, last = lookback(day, view.lookback_days)
        # Labels by files are stored by day of delivery, so every day of the lookback may hold some.
        known_events, known_labels = (
            read(store, spec, (r for d, r in records.items() if first <= d <= last))
            for read, records in ((tables.read_events, events), (tables.read_labels, labels))
        )
        rows = compute_view(spec, view, known_events, known_labels, day)
        warnings += check_definition(ctx, view, known_events, known_labels)
        name = table_name(view.name)
        outputs[name] = tables.write_day(store, spec.name, name, day, rows, previous=previous)
        log.info("%s %s: %s, %d rows", spec.name, day, view.name, rows.num_rows)
    warm = day >= spec.first_warm_day  # the whole lookback lies within the model's days
    for warning in warnings:
        log.warning("%s %s: %s", spec.name, day, warning)
    return DayRecord(day.isoformat(), status, outputs, inputs, {"warm": warm}), warnings
