"""The ``void`` step: a day's record is taken out again, because it should never have been made.

Afterwards the day counts as not done for everybody: who needs it waits, its rows are read by nobody, and what was
made from it is out of date. What stood there stays in the ledger's history, so trainings that pinned it can be rebuilt,
and a later run of the stage records the day anew. The key is the day and may lie in the future: keys are mistyped so.

Options: ``stage``, ``reason``, ``by``.
"""

import logging
from datetime import date
from typing import Any

from windsock.completeness import made_from
from windsock.days import parse_day, spans
from windsock.errors import SpecError
from windsock.ledger import Ledger, stages_of
from windsock.steps import StepContext

log = logging.getLogger(__name__)

_NEARBY = 2


def run(ctx: StepContext) -> dict[str, Any]:
    """Take out what a stage has recorded for a day.

    ``stage`` may name a group of them: ``features`` stands for ``features/<view>``, each of which is a step by itself.

    Returns:
        ``voided``: stage to ``status`` and ``origin`` of the record that was in force; ``made_from_it``: stage to the
        days whose records name it among their inputs, and which are out of date.

    Raises:
        SpecError: No reason is given, there is no such stage, or it has no record of the day.
    """
    settings, spec, day = ctx.settings, ctx.spec, parse_day(ctx.key, what="day")
    reason = str(ctx.options.get("reason") or "").strip()
    if not reason:
        raise SpecError(f"{spec.name}: say why {day} is taken out. Give the option 'reason'.")
    stages = _stages(ctx, str(ctx.options.get("stage") or ""))
    by = str(ctx.options.get("by") or ctx.origin)
    voided: dict[str, dict[str, str]] = {}
    later: dict[str, set[date]] = {}
    for stage in stages:
        record = Ledger.of(settings, spec.name, stage).void(day, reason, origin=by)
        if record is not None:
            voided[stage] = {"status": record.status, "origin": record.origin}
            log.info(
                "%s: %s of %s, %s by %s, is taken out: %s", spec.name, stage, day, record.status, record.origin, reason
            )
            for other, days in made_from(settings, spec, stage, day).items():
                later.setdefault(other, set()).update(days)
    if not voided:
        raise SpecError(" ".join(_absent(Ledger.of(settings, spec.name, stage), day) for stage in stages))
    return {
        "voided": voided,
        "made_from_it": {stage: [d.isoformat() for d in sorted(days)] for stage, days in later.items()},
    }


def _stages(ctx: StepContext, asked: str) -> list[str]:
    known = stages_of(ctx.store, ctx.spec.name)
    found = [stage for stage in known if stage == asked or stage.startswith(f"{asked}/")]
    if not found:
        raise SpecError.unknown(
            f"stage of model {ctx.spec.name!r} with records", asked, {stage.partition("/")[0] for stage in known}
        )
    return found


def _absent(ledger: Ledger, day: date) -> str:
    """Say that a stage has no record of a day, and which days nearby have one."""
    days = ledger.days()
    before, after = [d for d in days if d < day][-_NEARBY:], [d for d in days if d > day][:_NEARBY]
    gone = ledger.last_void(day)
    why = (
        f": it was taken out at {gone.recorded_at} by {gone.origin} ({gone.detail['reason']})"
        if gone is not None
        else ""
    )
    nearby = spans([*before, *after])
    return f"{ledger.model}: {ledger.stage} has no record of {day}{why}. Days nearby that have one: {nearby or 'none'}."
