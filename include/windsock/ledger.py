"""The ledger: which days are done, from what, and where their rows lie.

Every stage writes its rows to files first and then one small record per day. The record is the commit:
readers find rows only through records, so a step that writes three tables becomes visible in one atomic replacement,
and a kill before it leaves the old state. Records are also kept by content hash, so a training run pins exact days.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from windsock.copies import read_records
from windsock.days import day_range, utc_now
from windsock.errors import DamagedRecord, SpecError
from windsock.format_numbers import numbered
from windsock.settings import Settings
from windsock.step_clock import seconds_so_far
from windsock.store import Store, damaged, to_json

log = logging.getLogger(__name__)

DECISIONS = "decisions"  # the stage of the governor's records
LATE = "late_"
"""How the names of tables begin that hold rows of earlier days than their record's, which came with its delivery."""

Status = Literal["published", "empty", "rejected", "no_champion", "void"]
"""``void`` stands in the history alone: it says why what was recorded before was taken out, and is never in force."""


@dataclass(frozen=True)
class Output:
    """One table's rows of one day."""

    rows: int
    hash: str
    """SHA-256 of the rows, order and types included."""
    files: tuple[str, ...]
    """Parquet files, relative to the store's root."""
    columns: tuple[tuple[str, str], ...] = ()
    """Each column with the name of its Arrow type, in order; none in records of version 0.1."""
    column_hashes: Mapping[str, str] = field(default_factory=dict)
    """Column to SHA-256 of its values in the rows' order; only of what ingest stores, and none in earlier records."""


def columns_hash(output: Output, names: Iterable[str]) -> str:
    """Return a SHA-256 of some columns of a day's rows: another only if one of these, or their order, is another.

    Which row is which is told by these columns alone: name the key too where it matters. A column that the day lacks
    counts as lacking. Rows whose record knows no columns' hashes have that of the whole table.
    """
    if not output.column_hashes:
        return output.hash
    named = {name: output.column_hashes.get(name) for name in names}
    return hashlib.sha256(to_json({"rows": output.rows, "columns": named})).hexdigest()


@dataclass(frozen=True)
class DayRecord:
    """What one stage did for one day of one model."""

    ds: str
    status: Status
    outputs: Mapping[str, Output] = field(default_factory=dict)
    """Table name to its rows."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What it was made from: name to content hash (for instance ``ingest/2026-03-01``)."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Counts, warnings, reasons: plain JSON, nothing of the clock."""
    recorded_at: str = ""
    """Run time, for people; never used to choose data and not part of the hash."""
    origin: str = ""
    """The run that wrote it; not part of the hash."""
    seconds: float = 0.0
    """How long it took to compute, for estimates; not part of the hash."""

    @property
    def day(self) -> date:
        """The day as a date."""
        return date.fromisoformat(self.ds)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over what the rows are and say, not over where or when they were written."""
        content = {
            "ds": self.ds,
            "status": self.status,
            "outputs": {name: [o.rows, o.hash] for name, o in self.outputs.items()},
            "detail": dict(self.detail),
        }
        return hashlib.sha256(to_json(content)).hexdigest()

    @property
    def data_hash(self) -> str:
        """SHA-256 over the rows alone: what later days depend on; warnings and counts leave it as it is."""
        content = {
            "status": self.status,
            "outputs": {n: o.hash for n, o in self.outputs.items() if not n.endswith("quarantine")},
        }
        return hashlib.sha256(to_json(content)).hexdigest()

    def data_hash_of(self, columns: Mapping[str, Iterable[str]]) -> str:
        """Return :attr:`data_hash` for a reader of some columns: table name to their names; see :func:`columns_hash`.

        Who reads a table reads what came late for it, too.

        It is ``data_hash`` itself if any of these tables' rows has no columns' hashes, as in earlier records.
        """
        tables = {name: self.outputs[name] for name in self.outputs if name.removeprefix(LATE) in columns}
        if not all(output.column_hashes for output in tables.values()):
            return self.data_hash
        hashes = {name: columns_hash(output, columns[name.removeprefix(LATE)]) for name, output in tables.items()}
        return hashlib.sha256(to_json({"status": self.status, "outputs": hashes})).hexdigest()

    def rows(self, table: str) -> int:
        """Return how many rows a table got, 0 if none."""
        return self.outputs[table].rows if table in self.outputs else 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, with the hash written beside."""
        return numbered("day record", {**to_jsonable_python(self), "content_hash": self.content_hash})


@dataclass(frozen=True)
class Ledger:
    """The day records of one stage (``ingest``, ``labels``, ``features``, ``score``, ``monitor``) of one model."""

    store: Store
    model: str
    stage: str

    @classmethod
    def of(cls, settings: Settings, model: str, stage: str) -> Ledger:
        """Return a stage's ledger in the settings' store."""
        return cls(Store.of(settings), model, stage)

    def _parts(self, *parts: str) -> tuple[str, ...]:
        return (self.model, "ledger", self.stage, *parts)

    def _read(self, ds: str, *parts: str, data: bytes | None = None) -> DayRecord:
        """Return the record of a day that lies at a place, once it says of itself what its place says.

        ``data`` are the bytes there, if they have been read already.
        """
        where, mend = self._parts(*parts), self._mend(ds)
        raw = self.store.as_json(self.store.read_bytes(*where) if data is None else data, *where, mend=mend)
        record = self.store.as_record("day record", DayRecord, raw, *where, mend=mend)
        name = parts[-1].removesuffix(".json")
        if record.ds != ds or (name != ds and name != record.content_hash):  # a hash costs more than the comparison
            fault = f"it holds the record of {record.ds} with content {record.content_hash[:12]}"
            raise damaged(self.store.url(*where), fault, mend)
        return record

    def _mend(self, ds: str) -> str:
        step = f"windsock step {self.stage.partition('/')[0]} --model {self.model} --key {ds}"
        again = f"{step} -o rescore=true" if self.stage == "score" else step
        history = self.store.url(*self._parts("history", ds))
        return f"Run '{again}', which records the day anew, or put back the copy that was in force from {history}."

    def get(self, day: date) -> DayRecord | None:
        """Return the current record of a day, or None.

        Raises:
            DamagedRecord: There is one that cannot be read.
        """
        try:
            return self._read(str(day), f"{day}.json")
        except FileNotFoundError:
            return None

    def get_if_whole(self, day: date) -> DayRecord | None:
        """Return what :meth:`get` does, and None for a damaged record: who records the day anew mends it."""
        try:
            return self.get(day)
        except DamagedRecord as err:
            log.warning("Passed over here: %s", err)
            return None

    def between(self, first: date, last: date) -> dict[date, DayRecord]:
        """Return the current records from ``first`` to ``last``, both included, in order of days."""
        return self.records(day_range(first, last))

    def days(self) -> list[date]:
        """List the days that have a record, in order.

        Raises:
            DamagedRecord: Something else lies among them.
        """
        return [self._day(name) for name in self.store.json_names(*self._parts())]

    def _day(self, name: str) -> date:
        try:
            return date.fromisoformat(name)
        except ValueError as err:
            where = self.store.url(*self._parts(f"{name}.json"))
            raise damaged(where, "it is not named by a day", "Move it out of the ledger.") from err

    def all(self) -> dict[date, DayRecord]:
        """Return every current record, in order of days."""
        return self.records(self.days())

    def records(self, days: Iterable[date]) -> dict[date, DayRecord]:
        """Return the current records of those of the days that have one."""
        names = {day: "/".join(self._parts(f"{day}.json")) for day in days}
        found = read_records(self.store, names.values())
        return {
            day: self._read(str(day), f"{day}.json", data=found[name]) for day, name in names.items() if name in found
        }

    def publish(self, record: DayRecord, *, origin: str = "") -> DayRecord:
        """Make a day visible in one step; publishing equal content and inputs again changes nothing.

        Returns:
            The record now in force: the old one if nothing changed.
        """
        current = self.get_if_whole(record.day)
        if current is not None and current.content_hash == record.content_hash and current.inputs == record.inputs:
            return current
        # History first: a kill in between leaves an unreferenced copy, never a pin without its record.
        stamped = self._keep(record, origin)
        self.store.write_json(stamped.to_json(), *self._parts(f"{record.ds}.json"))
        return stamped

    def void(self, day: date, reason: str, *, origin: str = "") -> DayRecord | None:
        """Take a day's record out in one step: for every reader the day is as if the stage had never done it.

        The history keeps the record, so pins find it as before, and beside it one of status ``void`` that says why.

        Returns:
            The record that was in force, or None if there was none.
        """
        current = self.get(day)
        if current is not None:
            detail = {"reason": reason, "instead_of": current.content_hash}
            self._keep(DayRecord(current.ds, "void", detail=detail), origin)
            self.store.remove(*self._parts(f"{day}.json"))
        return current

    def last_void(self, day: date) -> DayRecord | None:
        """Return what says why a day's record was last taken out, or None if that never happened."""
        folder = ("history", day.isoformat())
        kept = (self._read(str(day), *folder, f"{name}.json") for name in self.store.json_names(*self._parts(*folder)))
        return max((record for record in kept if record.status == "void"), key=lambda r: r.recorded_at, default=None)

    def history(self, day: date) -> list[DayRecord]:
        """Return every record that a day had, as it was last recorded, oldest first; damaged ones are passed over."""
        found, folder = list[DayRecord](), ("history", day.isoformat())
        for name in self.store.json_names(*self._parts(*folder)):
            try:
                found.append(self._read(str(day), *folder, f"{name}.json"))
            except DamagedRecord as err:
                log.warning("Passed over here: %s", err)
        return sorted(found, key=lambda record: record.recorded_at)

    def _keep(self, record: DayRecord, origin: str) -> DayRecord:
        """Keep a record in the history, and return it with its time and origin."""
        at = utc_now().isoformat(timespec="seconds")
        stamped = replace(record, recorded_at=at, origin=origin, seconds=record.seconds or seconds_so_far())
        self.store.write_json(stamped.to_json(), *self._parts("history", record.ds, f"{record.content_hash}.json"))
        return stamped

    def pins(self, days: Iterable[date]) -> dict[str, str]:
        """Return day to content hash, for the days that have a record: the data version of a training run."""
        return {record.ds: record.content_hash for record in self.records(days).values()}

    def pinned(self, pins: Mapping[str, str]) -> dict[date, DayRecord]:
        """Return exactly the records that were pinned, also if their days have changed since.

        Raises:
            SpecError: A pinned record is gone from the store.
        """
        records = {}
        for ds, content_hash in sorted(pins.items()):
            try:
                records[date.fromisoformat(ds)] = self._read(ds, "history", ds, f"{content_hash}.json")
            except FileNotFoundError as err:
                raise SpecError(
                    f"{self.model}: {self.stage} of {ds} with content {content_hash[:12]} is gone from the store: "
                    "it cannot be rebuilt. Check that maintenance keeps pinned versions."
                ) from err
        return records


def stages_of(store: Store, model: str) -> list[str]:
    """List the stages that have recorded days of a model, or had, in order of their names."""
    files = (file.partition("/history/") for file in store.files(model, "ledger"))
    return sorted({stage if kept else stage.rpartition("/")[0] for stage, kept, _ in files} - {""})


def records_after(store: Store, model: str, day: date) -> list[tuple[str, date]]:
    """List the stages and days of a model's records that are dated after a day."""
    stages = stages_of(store, model)
    return [(stage, found) for stage in stages for found in Ledger(store, model, stage).days() if found > day]
