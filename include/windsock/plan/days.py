"""Days that the next training and its gate would lack, and about how long they take to compute."""

from collections.abc import Iterable
from contextlib import suppress
from statistics import median

from windsock.completeness import feature_stages
from windsock.dataset.lacking import Lacking, lacking_for
from windsock.dataset.step import ingested_windows
from windsock.errors import DataContractError, NotReady, SpecError
from windsock.features.feature_tables import feature_tables
from windsock.ledger import Ledger
from windsock.plan.change import Days
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

_RECENT = 10
"""Records that say how long a day takes."""


def days_to_compute(settings: Settings, spec: ModelSpec, base: ModelSpec | None) -> list[Days]:
    """Return what a training as of the newest ingested day lacks.

    Raises:
        NotReady: Nothing can be trained on yet.
        DataContractError: There is too little history.
        SpecError: A view does not run.
    """
    after = _lacking(settings, spec)
    before: dict[str, Lacking] = {}
    with suppress(NotReady, DataContractError, SpecError):
        if base is not None and {each.table.name for each in after} & {table.name for table in feature_tables(base)}:
            before = {each.table.name: each for each in _lacking(settings, base)}
    replaced = {view.name: view for view in base.features.views} if base is not None else {}
    found = []
    for each in after:
        known = before.get(each.table.name)
        seconds = _seconds_of_a_day(settings, spec, each.view.name if each.view.name in replaced else None)
        days = Days(
            each.table.short_name,
            each.missing,
            each.stale,
            round(seconds * len(each.days), 1) if seconds is not None else None,
            standing=len(set(each.days) & set(known.days)) if known is not None else 0,
        )
        found.append(days)
    return found


def _lacking(settings: Settings, spec: ModelSpec) -> list[Lacking]:
    return lacking_for(settings, spec, ingested_windows(settings, spec, None), carry=False)


def _seconds_of_a_day(settings: Settings, spec: ModelSpec, view: str | None) -> float | None:
    """Return how long a day of a view took lately, or else one of any view of the model; None: nobody knows."""
    store = Store.of(settings)
    stages = feature_stages(store, spec.name)
    own = [stage for stage in stages if view is not None and stage.partition("/")[2].startswith(f"{view}@")]
    for some in (own, stages):
        took = [seconds for stage in some for seconds in _seconds(Ledger(store, spec.name, stage))]
        if took:
            return median(took)
    return None


def _seconds(ledger: Ledger) -> list[float]:
    recent = (ledger.get(day) for day in ledger.days()[-_RECENT:])
    return [record.seconds for record in recent if record is not None and record.seconds > 0]


def total_seconds(days: Iterable[Days]) -> float | None:
    """Return about how long all of them take; None: nothing is known of some."""
    each = [d.seconds for d in days]
    return sum(s for s in each if s is not None) if each and None not in each else None
