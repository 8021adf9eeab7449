"""The ``prepare`` step: lay the windows of a training, and name the days whose features it lacks.

Before that, days that lack a column which is read now are derived again from the deliveries that were kept. The DAG
announces the named days on the model's ``events`` asset, so that they are computed by ordinary runs of ``features``,
which people can see; ``assemble`` waits for them. Options are those of ``assemble``.
"""

import logging
from dataclasses import replace
from typing import Any

from windsock.dataset.columns import gaps_between, require_no_gaps
from windsock.dataset.lacking import lacking_for
from windsock.dataset.step import asked_windows, with_overrides
from windsock.days import spans
from windsock.ingest.step import rederive
from windsock.steps import StepContext

log = logging.getLogger(__name__)


def run(ctx: StepContext) -> dict[str, Any]:
    """Find out what a training lacks.

    Returns:
        ``as_of``; ``days`` to be computed, and ``lacking``: table to the days that are ``missing`` or ``stale``, in
        words; ``live`` (False: these days are replayed).

    Raises:
        NotReady: Nothing has been ingested yet, or days are missing.
        DataContractError: There is too little history.
        SpecError: ``as_of`` is no day or lies in the future, a view does not run, or a column was not there on some
            of the days and the spec does not say so.
        DayRejected: A kept delivery breaks today's rules.
    """
    spec = with_overrides(ctx.spec, ctx.options)
    windows = asked_windows(ctx, spec)
    first, last = windows.days[0], windows.holdout[-1]
    for day in sorted({day for gap in gaps_between(ctx.settings, spec, first, last) for day in gap.recoverable}):
        rederive(replace(ctx, spec=spec, key=str(day), live=False), day)
    require_no_gaps(spec, gaps_between(ctx.settings, spec, first, last))
    found = lacking_for(ctx.settings, spec, windows)
    for each in found:
        log.info(
            "%s: %s: %s missing, %s out of date", spec.name, each.table.name, spans(each.missing), spans(each.stale)
        )
    return {
        "as_of": windows.as_of.isoformat(),
        "days": [day.isoformat() for day in sorted({day for each in found for day in each.days})],
        "lacking": {t.table.name: {"missing": spans(t.missing), "stale": spans(t.stale)} for t in found},
        "live": False,
    }
