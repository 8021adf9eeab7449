"""The ``features`` step: one day of every view, published in one commit."""

import logging
from datetime import date
from typing import Any

from windsock import tables
from windsock.completeness import lookback
from windsock.errors import UpstreamUnavailable
from windsock.features.inputs import FeatureInputs, current_fingerprint, feature_inputs
from windsock.features.view_sql import compute_view, table_name
from windsock.ledger import DayRecord, Ledger, Output, Status
from windsock.steps import StepContext

log = logging.getLogger(__name__)

_ROUNDS = 3


def run(ctx: StepContext) -> dict[str, Any]:
    """Compute and publish the features of ``ctx.day``.

    Returns:
        ``status``, ``rows`` per view, ``warm`` and ``changed`` (whether anything new was published).

    Raises:
        NotReady: A day of the lookback is neither published nor recorded as rejected or empty.
        SpecError: A view's SQL does not run.
    """
    day = ctx.day
    ledger = Ledger.of(ctx.settings, ctx.spec.name, "features")
    before = ledger.get(day)
    for _ in range(_ROUNDS):
        inputs = feature_inputs(ctx.settings, ctx.spec, day)
        current = ledger.get(day)
        if current is not None and dict(current.inputs) == dict(inputs.fingerprint):
            record = current
        else:
            record = ledger.publish(_compute(ctx, day, inputs, current), origin=ctx.origin)
        # A day of the lookback may have been replaced while this ran; then what was published is
        # stale already, and the replacing run may have looked before it stood there.
        if dict(record.inputs) == current_fingerprint(ctx.settings, ctx.spec, day):
            break
        log.info("%s: the lookback of %s changed while its features were computed; once more", ctx.spec.name, day)
    else:
        raise UpstreamUnavailable(
            f"{ctx.spec.name}: days in the lookback of {day} were replaced {_ROUNDS} times while its features were "
            "computed. Run the step again when ingestion is quiet."
        )
    return {
        "status": record.status,
        "rows": {view.name: record.rows(table_name(view.name)) for view in ctx.spec.features.views},
        "warm": record.detail["warm"],
        "changed": before is None or before.data_hash != record.data_hash,
        "data_hash": record.data_hash,
    }


def _compute(ctx: StepContext, day: date, inputs: FeatureInputs, previous: DayRecord | None) -> DayRecord:
    spec, store = ctx.spec, ctx.store
    outputs: dict[str, Output] = {}
    own = inputs.events[day]
    status: Status = own.status if own.status in ("empty", "rejected") else "published"
    for view in spec.features.views if status == "published" else ():
        first, last = lookback(day, view.lookback_days)
        events = tables.read(store, (r for d, r in inputs.events.items() if first <= d <= last), "events")
        # Labels by files are stored by day of delivery, so every day of the lookback may hold some.
        labels = tables.read(store, (r for d, r in inputs.labels.items() if first <= d <= last), "labels")
        rows = compute_view(spec, view, events, labels, day)
        name = table_name(view.name)
        outputs[name] = tables.write_day(store, spec.name, name, day, rows, previous=previous)
        log.info("%s %s: %s, %d rows", spec.name, day, view.name, rows.num_rows)
    warm = day >= spec.first_warm_day  # the whole lookback lies within the model's days
    return DayRecord(day.isoformat(), status, outputs, dict(inputs.fingerprint), {"warm": warm})
