"""What the store says of a model before an edit: its days, its champion, who waits, what is dated wrongly."""

from dataclasses import dataclass
from datetime import date

from windsock import promotions
from windsock.days import utc_now
from windsock.errors import SpecError
from windsock.features.frozen import spec_of_version
from windsock.ledger import Ledger, records_after
from windsock.promotion.rollback_step import stack_of
from windsock.promotions import Promotion
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.version_index import list_versions


@dataclass(frozen=True)
class Standing:
    """What there is; nothing where the store could not be read."""

    unread: str = ""
    """Why the store could not be read."""
    ingested: tuple[date, ...] = ()
    champion: Promotion | None = None
    own: ModelSpec | None = None
    """The spec with the definitions of the champion."""
    challenger: str | None = None
    """The newest version, if it was never promoted."""
    earlier: str | None = None
    """The version that a rollback would bring back."""
    notes: tuple[str, ...] = ()

    @property
    def newest_day(self) -> date | None:
        """The newest day that is ingested and over."""
        today = utc_now().date()
        return max((day for day in self.ingested if day < today), default=None)


def read_standing(settings: Settings, spec: ModelSpec) -> Standing:
    """Return what the store says of a model; ``unread`` says why, where it cannot be read.

    Raises:
        SpecError: The store is of a format that this version does not know.
    """
    store = Store.of(settings)
    try:
        if not store.exists():
            return Standing(f"there is no store at {store.url()}")
        return _standing(settings, spec, store)
    except SpecError:
        raise
    except Exception as err:  # every kind of store has errors of its own for a missing key or network
        return Standing(f"the store {store.url()} cannot be read ({type(err).__name__}: {' '.join(str(err).split())})")


def _standing(settings: Settings, spec: ModelSpec, store: Store) -> Standing:
    notes: list[str] = []
    entries = promotions.history(settings, spec)
    champion, own = entries[-1] if entries else None, None
    if champion is not None:
        try:
            own = spec_of_version(settings, spec, champion.version)
        except SpecError as err:
            notes.append(f"the definitions of champion {champion.version} are not known: {err}")
    newest = next(iter(list_versions(settings, spec)[-1:]), None)
    stack = stack_of(entries)
    return Standing(
        ingested=tuple(Ledger(store, spec.name, "ingest").days()),
        champion=champion,
        own=own,
        challenger=newest if newest not in {entry.version for entry in entries} else None,
        earlier=stack[-2] if len(stack) > 1 else None,
        notes=(*notes, *_after_today(store, spec.name, entries)),
    )


def _after_today(store: Store, model: str, entries: list[Promotion]) -> list[str]:
    """Say what is dated after today, which nothing may be."""
    today = utc_now().date()
    said = [
        f"{stage} of {day} is dated after today ({today}, UTC): windsock void {model} {stage} {day} --reason ..."
        for stage, day in records_after(store, model, today)
    ]
    said += [
        f"promotion {entry.seq} (version {entry.version}) takes force on {entry.in_force_from}, after today: "
        f"windsock correct-promotion {model} --reason ..."
        for entry in entries
        if entry.in_force_from > today
    ]
    return said
