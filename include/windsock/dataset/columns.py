"""Columns that a training reads and that some of its days do not have."""

from datetime import date

from windsock.completeness import lookback
from windsock.errors import NotReady, SpecError
from windsock.features.definition import columns_read
from windsock.ingest.gaps import ColumnGap, find_gaps
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec


def gaps_between(settings: Settings, spec: ModelSpec, first: date, last: date) -> list[ColumnGap]:
    """Return the columns that features of some days read, and that days of these or of their lookback do not have."""
    ledger = Ledger.of(settings, spec.name, "ingest")
    oldest = max(spec.first_day, lookback(first, spec.features.lookback_days)[0])
    return find_gaps(ledger.store, spec, ledger.between(oldest, last).values(), columns_read(spec))


def require_no_gaps(spec: ModelSpec, found: list[ColumnGap]) -> None:
    """Refuse to learn that what was not there was unknown.

    Raises:
        SpecError: A column was not delivered on some of the days, and the spec does not say so.
        NotReady: It was, and these days have to be ingested again.
    """
    if unexplained := [str(gap) for gap in found if gap.unexplained]:
        raise SpecError(f"{spec.folder / 'model.yaml'}: " + "\n".join(unexplained))
    if found:
        raise NotReady(f"{spec.name}: " + "\n".join(map(str, found)))
