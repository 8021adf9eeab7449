"""What an edit of the events' columns means: who reads them, and what stored days hold."""

from collections.abc import Iterator, Sequence

from windsock.column_types import ARROW_TYPES, widens
from windsock.dataset.columns import gaps_between
from windsock.dataset.step import ingested_windows
from windsock.days import spans
from windsock.errors import SpecError
from windsock.features.definition import read_columns, row_columns
from windsock.ingest.gaps import ColumnGap
from windsock.ingest.kept import kept_columns
from windsock.ledger import Ledger
from windsock.plan.change import NEXT_TRAINING, NO_EFFECT, Change
from windsock.plan.standing import Standing
from windsock.settings import Settings
from windsock.spec import ModelSpec

FROM_NOW_ON = "days from now on"


def column_changes(
    base: ModelSpec, spec: ModelSpec, standing: Standing, gaps: Sequence[ColumnGap], delivered: Sequence[str] = ()
) -> Iterator[Change]:
    """Yield what differs between what two specs say of the events and their columns, and days that lack some.

    ``delivered`` are the columns of the newest kept delivery; none: it is not known.
    """
    before, after = base.events.columns, spec.events.columns
    lacking = {gap.column: gap for gap in gaps}
    for name, kind in after.items():
        part, readers = f"events.columns.{name}", readers_of(spec, name)
        if name not in before:
            gap = lacking.pop(name, None)
            refused = _refused(gap) or _undelivered(spec, name, standing, delivered)
            yield Change("+", part, "", kind, FROM_NOW_ON, (_read_by(readers), *_told(gap)), refused=refused)
        elif before[name] != kind:
            yield _retyped(part, spec.events.sources[name], before[name], kind, readers, standing)
        yield from _declared_otherwise(part, base, spec, standing, delivered)
    for gap in lacking.values():
        yield Change("~", f"events.columns.{gap.column}", "", "", NEXT_TRAINING, _told(gap), refused=_refused(gap))
    for name, kind in before.items():
        if name in after:
            continue
        notes = ["days that are stored keep it"]
        if standing.own is not None and standing.champion is not None and (readers := readers_of(standing.own, name)):
            notes.append(
                f"champion {standing.champion.version} reads it in {', '.join(readers)} as long as it is in force: "
                "deliveries must go on holding it until then"
            )
        yield Change("-", f"events.columns.{name}", kind, "", FROM_NOW_ON, tuple(notes))
    for field in ("key", "time"):
        was, now = getattr(base.events, field), getattr(spec.events, field)
        if was != now:
            yield Change(
                "~", f"events.{field}", was, now, "every day", refused=another_model(f"events.{field}", spec, standing)
            )


def readers_of(spec: ModelSpec, column: str) -> list[str]:
    """List the views and row features that read a column."""
    found = [f"view {view.name}" for view in spec.features.views if column in _reads(spec, view.name)]
    for name in spec.features.row:
        try:
            if column in row_columns(spec, name):
                found.append(f"row feature {name}")
        except SpecError:  # it does not parse, which lint says
            continue
    return found


def column_gaps(settings: Settings, spec: ModelSpec) -> list[ColumnGap]:
    """Find the columns that a training as of the newest ingested day reads and some of its days do not have.

    Raises:
        NotReady: Nothing can be trained on yet.
        DataContractError: There is too little history.
        SpecError: A view does not run.
    """
    windows = ingested_windows(settings, spec, None)
    return gaps_between(settings, spec, windows.days[0], windows.holdout[-1])


def newest_delivery(settings: Settings, spec: ModelSpec, standing: Standing) -> tuple[str, ...]:
    """Return the columns of the newest kept delivery; none if there is none."""
    ledger = Ledger.of(settings, spec.name, "ingest")
    record = ledger.get(standing.newest_day) if standing.newest_day is not None else None
    return kept_columns(ledger.store, record) if record is not None else ()


def another_model(field: str, spec: ModelSpec, standing: Standing) -> tuple[str, ...]:
    """Refuse to change what every stored record of a model rests on."""
    if not standing.ingested:
        return ()
    days = f"{len(standing.ingested)} days are stored under the old one"
    return (
        f"{field}: {days}, and nothing of them would fit: that is another model. Leave it as it was, and make a folder "
        f"with another name beside {spec.name} for the new one.",
    )


def _retyped(part: str, source: str, before: str, kind: str, readers: list[str], standing: Standing) -> Change:
    if not widens(ARROW_TYPES[before], ARROW_TYPES[kind]) and standing.ingested:
        column = part.rpartition(".")[2]
        why = (
            f"{part}: {len(standing.ingested)} days hold {before}, which cannot be read as {kind} without loss. Write "
            f"`{column}_{kind}: {{type: {kind}, from: {source}}}` in its place: a column of another type has a name of "
            "its own."
        )
        return Change("~", part, before, kind, "every day", (_read_by(readers),), refused=(why,))
    note = "stored days stay as they are and are read as the wider type; " + _read_by(readers)
    return Change("~", part, before, kind, NEXT_TRAINING if readers else NO_EFFECT, (note,))


def _declared_otherwise(
    part: str, base: ModelSpec, spec: ModelSpec, standing: Standing, delivered: Sequence[str]
) -> Iterator[Change]:
    """Yield what differs in how a column of both specs is delivered."""
    name = part.rpartition(".")[2]
    if name not in base.events.declared:
        return
    before, after = base.events.declared[name], spec.events.declared[name]
    if before.since != after.since:
        was, now = ("" if column.since is None else str(column.since) for column in (before, after))
        note = "days before it have NULL there, days from then on without it are refused"
        yield Change("~", f"{part}.since", was, now, FROM_NOW_ON, (note,))
    if before.source != after.source:
        was, now = before.source or name, after.source or name
        notes = ["days that are stored stay as they are", _read_by(readers_of(spec, name), "")]
        if standing.own is not None and standing.champion is not None and (readers := readers_of(standing.own, name)):
            champion = f"champion {standing.champion.version}"
            notes.append(
                f"{champion} reads it in {', '.join(readers)}: it is fed what {now} holds from the next day on"
            )
        if {was, now} <= set(delivered):
            notes.append(
                f"the newest delivery has {was} as well: if {now} is another quantity, give it a name of its own"
            )
        refused = _undelivered(spec, name, standing, delivered)
        yield Change("~", f"{part}.from", was, now, FROM_NOW_ON, tuple(filter(None, notes)), refused=refused)


def _undelivered(spec: ModelSpec, name: str, standing: Standing, delivered: Sequence[str]) -> tuple[str, ...]:
    """Refuse a column that the newest delivery does not have: the next day would be refused for want of it."""
    column, source, newest = spec.events.declared[name], spec.events.sources[name], standing.newest_day
    if not delivered or source in delivered or newest is None or (column.since is not None and column.since > newest):
        return ()
    return (
        f"events.columns.{name}: the delivery of {newest} has no column {source!r}, and a day without it is refused: "
        f"nothing of it is scored. Write the first day that will have it: `{name}: {{type: "
        f"{spec.events.columns[name]}, since: YYYY-MM-DD}}`, or declare it on that day.",
    )


def _told(gap: ColumnGap | None) -> tuple[str, ...]:
    if gap is None or gap.unexplained:
        return ()
    days = f"{len(gap.days)} days are taken in from their kept deliveries"
    return (f"{days} before the next training: {spans(gap.days)}",)


def _refused(gap: ColumnGap | None) -> tuple[str, ...]:
    return (str(gap),) if gap is not None and gap.unexplained else ()


def _read_by(readers: list[str], nobody: str = "read by nobody: no definition changes") -> str:
    return f"read by {', '.join(readers)}" if readers else nobody


def _reads(spec: ModelSpec, view_name: str) -> dict[str, str]:
    view = next(view for view in spec.features.views if view.name == view_name)
    try:
        return read_columns(spec, view)
    except SpecError:
        return {}
