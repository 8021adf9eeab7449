"""The ``features`` step: one day of every definition that somebody needs, each with a record of its own.

A record names each of its inputs by content. Equal inputs, equal features; others than those in force mean that the
day is stale. What the day's champion needs must succeed. What else is needed and cannot be had is told, stops no
scoring, and stops the training that needs it.
"""

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

from windsock import tables
from windsock.completeness import settled_days
from windsock.errors import NotReady, SpecError, UpstreamUnavailable
from windsock.features.definition_checks import check_definition
from windsock.features.demand import NEXT_TRAINING, Demanded, demanded
from windsock.features.feature_tables import FeatureTable
from windsock.features.frozen import require_columns
from windsock.features.inputs import Inputs, Seen, is_current, settled_inputs
from windsock.features.view_sql import compute_view
from windsock.ledger import DayRecord, Output, Status
from windsock.steps import StepContext

log = logging.getLogger(__name__)

_ROUNDS = 3


@dataclass(frozen=True)
class Published:
    """What became of one definition of a day."""

    rows: int
    changed: bool
    warnings: list[str]


def run(ctx: StepContext) -> dict[str, Any]:
    """Compute and publish the features of ``ctx.day``.

    Returns:
        ``status``, ``rows`` per table, ``warm``, ``changed`` (whether anything new was published), ``warnings`` and
        ``refused``: what could not be computed and is not needed by the champion of the day.

    Raises:
        NotReady: A day of the lookback is neither published nor recorded as rejected or empty.
        SpecError: A view that the day's champion needs (before the first champion: one of the spec) does not run, or
            may not be computed: it looks ahead, say.
    """
    settings, spec, day = ctx.settings, ctx.spec, ctx.day
    status = settled_days(settings, spec, "ingest", day, day)[day].status
    done, refused = dict[str, Published](), list[str]()
    wanted = demanded(settings, spec, day)
    seen = Seen.of(settings, spec, day, max((each.view.lookback_days for each in wanted), default=0))
    for each in wanted:
        try:
            if each.table.name not in done:
                done[each.table.name] = publish_day(ctx, each, seen)
        except (SpecError, NotReady) as err:
            if each.required:
                raise
            whose = " and ".join(each.by)
            refused.append(f"{whose}: {err}")
            log.error("%s %s: no features for %s: %s", spec.name, day, whose, err)
    return {
        "status": status if status in ("empty", "rejected") else "published",
        "rows": {name: each.rows for name, each in done.items()},
        "warm": day >= spec.first_warm_day,  # the whole lookback lies within the model's days
        "changed": any(each.changed for each in done.values()),
        "warnings": [warning for each in done.values() for warning in each.warnings],
        "refused": refused,
    }


def publish_day(ctx: StepContext, wanted: Demanded, seen: Seen | None = None) -> Published:
    """Compute a definition of ``ctx.day`` unless it stands already, and publish it.

    ``seen`` are records of its inputs that were read just before.

    Raises:
        NotReady: A day of the lookback is not settled.
        SpecError: The view does not run, or may not be computed.
    """
    table, day = wanted.table, ctx.day
    ledger = table.ledger(ctx.store)
    before = ledger.get_if_whole(day)
    warnings: list[str] = []
    for _ in range(_ROUNDS):
        inputs = settled_inputs(ctx.settings, wanted.spec, wanted.view, day, seen)
        read, seen, record = seen, None, ledger.get_if_whole(day)
        if record is not None and is_current(record, inputs):
            break
        made, warnings = _compute(ctx, wanted, table, inputs, record)
        record = ledger.publish(made, origin=ctx.origin)
        # A day of the lookback may have been replaced while this ran; then what was published is
        # stale already, and the replacing run may have looked before it stood there.
        if (read is not None and read.still_stand(ctx.settings, ctx.spec)) or is_current(
            record, settled_inputs(ctx.settings, wanted.spec, wanted.view, day)
        ):
            break
        log.info("%s: the lookback of %s changed while its features were computed; once more", table.model, day)
    else:
        raise UpstreamUnavailable(
            f"{table.model}: days in the lookback of {day} were replaced {_ROUNDS} times while its features were "
            "computed. Run the step again when ingestion is quiet."
        )
    changed = before is None or before.data_hash != record.data_hash
    return Published(record.rows(table.name), changed, warnings)


def _compute(
    ctx: StepContext, wanted: Demanded, table: FeatureTable, inputs: Inputs, previous: DayRecord | None
) -> tuple[DayRecord, list[str]]:
    started, spec, view, store, day = time.monotonic(), wanted.spec, wanted.view, ctx.store, ctx.day
    outputs: dict[str, Output] = {}
    warnings: list[str] = []
    own = inputs.events[day].status
    status: Status = own if own in ("empty", "rejected") else "published"
    if status == "published":
        if spec is not ctx.spec:
            require_columns(store, spec, inputs.events[day], " and ".join(wanted.by))
        events, labels = inputs.read(store, spec)
        rows = compute_view(spec, view, events, labels, day)
        in_use = wanted.by != (NEXT_TRAINING,)
        warnings = check_definition(ctx, spec, view, table, events, labels, in_use=in_use)
        outputs[table.name] = tables.write_day(store, spec.name, table.name, day, rows, previous=previous)
        log.info("%s %s: %s, %d rows, for %s", spec.name, day, table.name, rows.num_rows, " and ".join(wanted.by))
    for warning in warnings:
        log.warning("%s %s: %s", spec.name, day, warning)
    detail = {"definition": table.definition, "lookback_days": view.lookback_days, "reads": inputs.reads}
    made = DayRecord(day.isoformat(), status, outputs, inputs.marks(inputs.reads), detail)
    return replace(made, seconds=round(time.monotonic() - started, 3)), warnings
