"""Which days of which definitions a training needs and does not have: never computed, or made from something else.

One answer for the task that asks for these days, for ``assemble``, which waits for them, and for ``windsock plan``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from windsock import promotions
from windsock.completeness import lookback
from windsock.dataset.feature_join import reach
from windsock.dataset.time_split import Windows
from windsock.days import day_range, spans, utc_now
from windsock.errors import NotReady
from windsock.features.feature_tables import FeatureTable, Records, feature_table
from windsock.features.frozen import spec_of_version
from windsock.features.inputs import inputs_of_day, is_current
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.modelling import FeatureView


@dataclass(frozen=True)
class Lacking:
    """Days of one definition."""

    spec: ModelSpec
    view: FeatureView
    table: FeatureTable
    missing: tuple[date, ...]
    """Never computed, though all that they are made from is there."""
    stale: tuple[date, ...]
    """Made from something else than is in force now."""

    @property
    def days(self) -> list[date]:
        """Both, in order."""
        return sorted({*self.missing, *self.stale})


def lacking_for(settings: Settings, spec: ModelSpec, windows: Windows, *, carry: bool = True) -> list[Lacking]:
    """Return what a training and its gate lack: definitions of the spec, and the champion's on the days of the holdout.

    The spec's go on to the newest day, as the version that is trained takes features of its first days from there.
    ``carry`` as in :func:`lacking`.

    Raises:
        SpecError: A view of the spec does not run.
    """
    today = utc_now().date()
    ingested = (day for day in Ledger.of(settings, spec.name, "ingest").days() if day < today)  # none of a mistyped key
    newest = max([windows.holdout[-1], *ingested])
    found = lacking(settings, spec, reach(spec, windows.days[0]), newest, carry=carry)
    if (champion := promotions.current(settings, spec)) is not None:
        own = spec_of_version(settings, spec, champion.version)
        found += lacking(settings, own, reach(own, windows.holdout[0]), windows.holdout[-1], carry=carry)
    return [each for each in {each.table.name: each for each in reversed(found)}.values() if each.days]


def lacking(settings: Settings, spec: ModelSpec, first: date, last: date, *, carry: bool = True) -> list[Lacking]:
    """Return for each view of a spec the days from ``first`` to ``last`` that could be computed and do not stand.

    ``carry`` finds what version 0.1 computed, which writes records; a pure read says no.

    Raises:
        SpecError: A view does not run.
    """
    store = Ledger.of(settings, spec.name, "ingest").store
    oldest = max(spec.first_day, lookback(first, spec.features.lookback_days)[0])
    events = Ledger(store, spec.name, "ingest").between(oldest, last)
    labels = Ledger(store, spec.name, "labels").between(oldest, last) if spec.label.files is not None else events
    found = []
    for view in spec.features.views:
        table = feature_table(spec, view)
        made = (table.ledger(store) if carry else Ledger(store, spec.name, table.name)).between(first, last)
        missing, stale = [], []
        for day in day_range(max(first, spec.first_day), last):
            if not _computable(spec, view, day, events, labels):
                continue
            if (record := made.get(day)) is None:
                missing.append(day)
            elif not is_current(record, inputs_of_day(spec, view, day, events, labels)):
                stale.append(day)
        found.append(Lacking(spec, view, table, tuple(missing), tuple(stale)))
    return found


def require_none(spec: ModelSpec, found: Sequence[Lacking]) -> None:
    """Wait until nothing is lacking.

    Raises:
        NotReady: Something is; the message lists it.
    """
    parts = [
        f"{each.table.name} of {spans(days)} {what}"
        for each in found
        for days, what in ((each.missing, "is still missing"), (each.stale, "was made from something else"))
        if days
    ]
    if parts:
        raise NotReady(
            f"{spec.name}: {'; '.join(parts)}. This waits until those days are computed. {spec.name}_train asks for "
            f"them by itself; by hand, run 'windsock apply {spec.name}' or {spec.name}_features for each."
        )


def _computable(spec: ModelSpec, view: FeatureView, day: date, events: Records, labels: Records) -> bool:
    """Say whether all that a day is made from is settled; a refused day has nothing to compute."""
    if day not in events or events[day].status == "rejected":
        return False
    first, last = lookback(day, view.lookback_days)
    return all(d in events and d in labels for d in day_range(max(first, spec.first_day), last))
