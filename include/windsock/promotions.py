"""The promotions of a model: an append-only log with a true compare-and-set.

Each entry is one object, ``<model>/promotions/<seq>.json``. An entry is added by creating the object with the next
number, which the file system (a hard link) or the object store (a conditional PUT) lets exactly one writer do.
Whoever comes second has compared with a champion that is no longer in force, and is told so.

The MLflow alias ``champion`` is derived from this log (see ``registry.versions``), never the other way round, so that
scoring neither needs MLflow nor follows a hand-set alias.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from windsock.days import ONE_DAY, utc_now
from windsock.errors import ChampionChanged, DamagedRecord
from windsock.format_numbers import numbered
from windsock.ledger import Ledger
from windsock.listing import Listed, listed
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store, damaged, to_json

log = logging.getLogger(__name__)

FOLDER = "promotions"
_NOTE, _FEW = "promotions.json", 4
CHOSEN_BY = "champion of the day"
"""What the record of a scored day says of its version, if nobody asked for another one."""
_MEND = "Put the file back from a backup: nothing is scored or promoted as long as it is unknown who is champion."


@dataclass(frozen=True)
class Promotion:
    """One change of champion."""

    seq: int
    """1 for the first; dense."""
    kind: Literal["promote", "rollback", "correct"]
    """``correct`` repeats the entry before it, in force from an earlier day that nobody has scored."""
    version: str
    """Model version now in force."""
    run: str
    """Run folder's name, ``runs/<model>/<run>``: the unit, whole."""
    previous: str | None
    """Version it replaced."""
    in_force_from: date
    """First day of events that it scores."""
    as_of: date
    """Day that its training knew."""
    reason: str
    gate_summary: Mapping[str, Any] = field(default_factory=dict)
    by: str = "manual"
    """The person, or the run, that decided it."""
    origin: str = "manual"
    """The run that recorded it: by this a retried run finds its own entry."""
    recorded_at: str = ""
    """Run time, for people; never used to choose a champion."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return numbered("promotion", to_jsonable_python(self))


def history(settings: Settings, spec: ModelSpec) -> list[Promotion]:
    """Return every promotion, rollback and correction, in order.

    Raises:
        DamagedRecord: An entry is lost or cannot be read, or contradicts the others: then nobody knows the champion.
    """
    store, found = Store.of(settings), list[Promotion]()
    files = _entry_files(store, spec)
    known = _noted(store, spec) if len(files) > _FEW else {}
    for file in files:
        name, parts = file.name.rsplit("/", 1)[-1].removesuffix(".json"), _parts(spec, len(found) + 1)
        if f"{name}.json" != parts[-1]:
            if not name.isdecimal():
                where = store.url(spec.name, FOLDER, f"{name}.json")
                raise damaged(where, "it is not named by a number", "Move it out of the folder of promotions.")
            raise damaged(store.url(*parts), f"it is lost, and {name}.json follows it", _MEND)
        raw = known.get(_signature(file)) or store.read_json(*parts, mend=_MEND)
        entry = store.as_record("promotion", Promotion, raw, *parts, mend=_MEND)
        if fault := _contradiction(entry, found):
            raise damaged(store.url(*parts), fault, _MEND)
        found.append(entry)
    return found


def note_history(settings: Settings, spec: ModelSpec) -> None:
    """Note all entries in one object beside them, so that who reads the log reads one, and not each.

    An entry counts as noted only as long as its file has the size and the time that it had then.
    """
    history(settings, spec)  # raises if anything is wrong with them
    store = Store.of(settings)
    files, known = _entry_files(store, spec), _noted(store, spec)
    if len(files) > _FEW and {_signature(file) for file in files} != known.keys():
        content = {_signature(f): known.get(_signature(f)) or store.read_json(f.name, mend=_MEND) for f in files}
        store.write_json(content, spec.name, _NOTE)


def _entry_files(store: Store, spec: ModelSpec) -> list[Listed]:
    folder = f"{spec.name}/{FOLDER}"
    inner = ((file, file.name[len(folder) + 1 :]) for file in listed(store, folder))
    return [file for file, name in inner if name.endswith(".json") and "/" not in name and not name.startswith(".")]


def _signature(file: Listed) -> str:
    return f"{file.name.rsplit('/', 1)[-1]} {file.size} {file.written.isoformat()}"


def _noted(store: Store, spec: ModelSpec) -> dict[str, Any]:
    """Return what is noted of entries; nothing if it cannot be read, as the entries themselves can."""
    try:
        return store.read_json(spec.name, _NOTE)
    except FileNotFoundError:
        return {}
    except DamagedRecord as err:
        log.warning("Passed over: %s", err)
        return {}


def _contradiction(entry: Promotion, before: Sequence[Promotion]) -> str | None:
    """Say how an entry contradicts those before it, or itself; None: it does not."""
    last = before[-1] if before else None
    replaced, stands = (entry.version, entry.previous) if entry.kind == "correct" else (entry.previous, None)
    champion = last.version if last is not None else None
    if entry.seq != len(before) + 1:
        return f"it says that it is number {entry.seq}"
    if replaced != champion or (entry.kind == "correct" and (last is None or stands != last.previous)):
        return f"it follows version {replaced or 'none'}, but version {champion or 'none'} was champion before it"
    if entry.kind == "rollback" and all(entry.version != other.version for other in before):
        return f"it goes back to version {entry.version}, which was never champion before it"
    if other := next((p for p in before if p.version == entry.version and p.run != entry.run), None):
        return f"it calls run {entry.run} version {entry.version}, which is run {other.run} in number {other.seq}"
    return None


def current(settings: Settings, spec: ModelSpec) -> Promotion | None:
    """Return the entry now in force, or None before the first promotion; raises as :func:`history` does."""
    entries = history(settings, spec)
    return entries[-1] if entries else None


def champion_on(settings: Settings, spec: ModelSpec, day: date) -> Promotion | None:
    """Return the entry that is in force for a day of events, or None: then nobody scores that day."""
    return champion_of(history(settings, spec), day)


def champion_of(entries: Sequence[Promotion], day: date) -> Promotion | None:
    """Return which of all entries is in force for a day of events, or None."""
    return next((p for p in reversed(entries) if p.in_force_from <= day), None)


def verified_history(settings: Settings, spec: ModelSpec) -> list[Promotion]:
    """Return :func:`history`, once it agrees with the newest scored day: what stood at its end may be lost, too.

    Raises:
        DamagedRecord: As there; or that day was scored by a champion of which the log does not know.
    """
    entries, today = history(settings, spec), utc_now().date()
    ledger = Ledger.of(settings, spec.name, "score")
    for day in reversed([day for day in ledger.days() if day <= today]):
        record = ledger.get_if_whole(day)
        if record is not None and record.status == "no_champion":
            break
        if record is None or record.detail.get("chosen_by") != CHOSEN_BY:
            continue
        champion, version = champion_of(entries, day), record.detail["model_version"]
        if champion is None or champion.version != version:
            raise damaged(
                Store.of(settings).url(spec.name, FOLDER),
                f"{f'version {champion.version}' if champion else 'no version'} is champion on {day} by its entries, "
                f"but that day was scored by champion {version}: the last entries are lost",
                f"{_MEND} If the score is what should not be, take it out: windsock void {spec.name} score {day}",
            )
        break
    return entries


def first_day_in_force(settings: Settings, spec: ModelSpec, as_of: date) -> date:
    """Return the first day that a version promoted now scores; the clock may refuse a day here, and chooses none.

    It is the day after everything that has arrived and after everything its training knew, and never before the entry
    in force today: no past day changes its champion. What is dated after today cannot be so, and moves nothing; nor do
    days that came ahead of a history which is still to be brought, as the first ones by the clock do.
    """
    today = utc_now().date()
    entries, known = verified_history(settings, spec), [as_of]
    for stage in ("ingest", "score"):
        days = [day for day in Ledger.of(settings, spec.name, stage).days() if day <= today]
        # Whom a champion has scored must not get another one; before the first, no day has been scored by any.
        known += (
            days[-1:] if stage == "score" and entries else _connected(days, as_of, spec.schedule.catch_up_days)[-1:]
        )
    first, champion = max(known) + ONE_DAY, champion_of(entries, today)
    return first if champion is None else max(first, champion.in_force_from)


def _connected(days: Sequence[date], since: date, longest_gap: int) -> list[date]:
    """Keep, of days in order, those after one that follow it without a gap that nobody closes by itself."""
    found, last = list[date](), since
    for day in (day for day in days if day > since):
        if (day - last).days > max(longest_gap, 1):
            break
        found.append(last := day)
    return found


def first_day_not_scored(settings: Settings, spec: ModelSpec, entry: Promotion) -> date:
    """Return the earliest day from which an entry could be in force without changing any scored day's champion.

    It is the day after all that its training knew and after every day that has been scored before the entry took force.
    Scores dated after today cannot be so, and do not count.
    """
    ledger, end = Ledger.of(settings, spec.name, "score"), min(entry.in_force_from, utc_now().date() + ONE_DAY)
    before = reversed([day for day in ledger.days() if day < end])
    scored = next((d for d in before if (record := ledger.get(d)) is not None and record.status == "published"), None)
    return max(entry.as_of, scored or entry.as_of) + ONE_DAY


def append(settings: Settings, spec: ModelSpec, entry: Promotion, *, after: Promotion | None) -> Promotion:
    """Add an entry, with its number, its time and the version that it replaces, if the log still ends with ``after``.

    Returns:
        The entry as recorded.

    Raises:
        ChampionChanged: Another writer added an entry meanwhile.
    """
    seq = 1 if after is None else after.seq + 1
    stamped = replace(entry, seq=seq, recorded_at=utc_now().isoformat(timespec="seconds"))
    if entry.kind != "correct":
        stamped = replace(stamped, previous=after.version if after is not None else None)
    store = Store.of(settings)
    try:
        store.create_bytes(to_json(stamped.to_json()), *_parts(spec, seq))
    except FileExistsError as err:
        other = current(settings, spec)
        raise ChampionChanged(
            f"{spec.name}: version {entry.version} was to follow version {after.version if after else 'none'}, but "
            f"version {other.version if other else '?'} became champion meanwhile "
            f"(by {other.by if other else 'somebody else'}). Judge it against that one."
        ) from err
    log.info("%s: %s %d: version %s in force from %s", spec.name, entry.kind, seq, entry.version, entry.in_force_from)
    return stamped


def _parts(spec: ModelSpec, seq: int) -> tuple[str, str, str]:
    return spec.name, FOLDER, f"{seq:06d}.json"
