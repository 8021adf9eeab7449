"""Bringing a delivery into the declared form, and setting aside the rows that cannot be.

A file whose columns do not fit is refused whole, with one sentence per fault: names first, then
types, column by column (how single columns are read stands in ``casts``; what values must be, in
``windsock.validate``). Single values that cannot be read (``"n/a"`` in a CSV's amount) are faults
of their rows: these are set aside, and the quarantine budget decides about the file.

A row stands in quarantine once, under the first rule it broke; its reason names them all.
Rows are kept as delivered, also with the columns that the spec drops.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windsock.column_types import arrow_schema
from windsock.errors import did_you_mean, listed
from windsock.ingest.casts import ColumnTypeError, cast_column, is_text, map_column
from windsock.ingest.delivered_values import plain_value, shown
from windsock.ingest.zones import cast_times

DUPLICATE = "duplicate copy"
"""Rule of rows that say exactly what another row says: nothing is lost with them."""

_NOTHING = pa.array([r"\N", "NULL", "null", "NaN", "nan", "NaT", "<NA>"])
_SCHEMA = pa.schema([(name, pa.string()) for name in ("rule", "reason", "key", "row")])


@dataclass(frozen=True)
class RowFault:
    """One rule that some rows of a delivery break."""

    rule: str
    sentence: str
    rows: np.ndarray
    """Positions in the delivery, ascending, shape ``(broken rows,)``."""


@dataclass(frozen=True)
class Conformed:
    """A delivery in the declared form, or the reasons why it cannot be brought into it."""

    rows: pa.Table | None
    """The columns asked for, in their order, but for those that may lack and do; None if refused."""
    problems: tuple[str, ...] = ()
    faults: tuple[RowFault, ...] = ()
    warnings: tuple[str, ...] = ()


def conform(
    delivered: pa.Table,
    columns: Mapping[str, str],
    *,
    sources: Mapping[str, str] = MappingProxyType({}),
    may_lack: Collection[str] = (),
    extra: Mapping[str, str] = MappingProxyType({}),
    ignore: Iterable[str] = (),
    values: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
    zone: str | None = None,
    key: str,
) -> Conformed:
    """Pick columns (name to type) out of a delivery and give them their declared types.

    Args:
        delivered: The delivery, as it came.
        columns: What is asked for, by the names that it shall have.
        sources: Those names to the ones in the delivery, where they differ.
        may_lack: Columns that are left out, without a word, where the delivery does not hold them.
        extra: Further columns, which are left out where they lack, and with a warning where they are of another type.
        ignore: Delivered columns that are dropped without a word.
        values: Columns to what may stand in them, as text, and the number that it stands for.
        zone: Time zone of the times that do not say theirs; None: UTC.
        key: The key column, for examples in messages.
    """
    names, may_lack = delivered.schema.names, {*may_lack, *extra}
    wanted = {**columns, **extra}
    sources = {name: sources.get(name, name) for name in wanted}
    columns = {name: kind for name, kind in wanted.items() if sources[name] in names or name not in may_lack}
    problems = _name_problems(names, columns, sources)
    known = {*ignore, *(sources[name] for name in columns)}
    undeclared = [n for n in dict.fromkeys(names) if n not in known]
    warnings = _extra_warning(undeclared, delivered) if undeclared else ()
    if problems:
        return Conformed(None, tuple(problems), (), warnings)
    if delivered.num_rows == 0:  # an empty file's types say nothing: writers guess them from values
        return Conformed(arrow_schema(columns.items()).empty_table(), (), (), warnings)
    text = all(is_text(delivered.schema.field(sources[name]).type) for name in columns if name not in values)
    arrays, faults = {}, []
    for name, kind in columns.items():
        column = delivered.column(sources[name])
        try:
            if name in values:
                kind = f"one of {listed(map(repr, values[name]))}"
                array, broken = map_column(column, values[name])
            elif kind == "timestamp" and zone is not None:
                kind = f"timestamp in {zone}"
                array, broken, twice = cast_times(column, zone, from_text=text)
                warnings += _clocks_set_back(name, column, zone, twice)
            else:
                array, broken = cast_column(column, kind, from_text=text)
        except ColumnTypeError as err:
            sentence = (
                f"{name}: declared {kind}, delivered as {err.found}: {err.count:,} of {delivered.num_rows:,} values "
                f"cannot be taken, e.g. {shown(err.example)} in row {err.row}."
            )
            if name in extra:
                warnings += (f"{sentence} Left out: the spec does not ask for it any more.",)
            else:
                problems.append(f"{sentence} {err.advice}")
            continue
        arrays[name] = array
        if len(broken):
            of_key = delivered.column(sources[key]) if key != name else None
            faults.append(_cast_fault(column, name, kind, key, of_key, broken))
        if kind == "string":
            warnings += _words_for_nothing(name, array)
    if problems:
        return Conformed(None, tuple(problems), (), warnings)
    return Conformed(pa.table(arrays), (), tuple(faults), warnings)


def _name_problems(names: list[str], columns: Mapping[str, str], sources: Mapping[str, str]) -> list[str]:
    """Name every declared column that is missing or stands there more than once."""
    problems = []
    counts = Counter(names)
    taken = set(sources.values())
    others = [n for n in counts if n not in taken]
    for name, kind in columns.items():
        source = sources[name]
        if counts[source] > 1:
            problems.append(
                f"{name}: the column stands in the delivery {counts[source]} times, expected once, so nobody can tell "
                "which one is meant. Ask the sender to keep one."
            )
        if counts[source] == 0:
            same = [n for n in others if n.strip().casefold() == source.casefold()]
            near = f" Did you mean {same[0]!r}?" if same else did_you_mean(source, others)
            origin = f", from {source!r}" if source != name else ""
            problems.append(
                f"{name}: the declared column ({kind}{origin}) is missing; rule: every declared column is delivered; "
                f"1 of {len(columns)} columns affected, e.g. the delivery holds {_listed(names)}.{near} "
                "Ask the sender for it, or change events.columns in model.yaml: `from:` says by which name it is "
                "delivered, `since:` from which day on."
            )
    return problems


def _extra_warning(extra: list[str], delivered: pa.Table) -> tuple[str, ...]:
    name, several = extra[0], len(extra) > 1
    first = delivered.column(delivered.schema.names.index(name))
    values = (plain_value(first[n]) for n in range(min(len(first), 1000)))
    example = next((v for v in values if v is not None), None)
    return (
        f"{_listed(extra)}: {len(extra)} column{'s' if several else ''} that the spec does not declare "
        f"{'were' if several else 'was'} dropped and never {'reach' if several else 'reaches'} a model (rule: only "
        f"declared columns are kept), e.g. {_listed([name])} = {shown(example)}. "
        "Declare them under events.columns, or under events.ignore to silence this.",
    )


def _words_for_nothing(name: str, array: pa.Array) -> tuple[str, ...]:
    """Warn of text that other systems write where there is no value; a model would learn it as a category."""
    found = np.flatnonzero(pc.fill_null(pc.is_in(array, _NOTHING), False).to_numpy(zero_copy_only=False))
    if not len(found):
        return ()
    example = array[int(found[0])].as_py()
    return (
        f"{name}: {len(found):,} of {len(array):,} values are words for no value, e.g. {example!r} "
        "(rule: no value is delivered as null); they were kept as text. Have the sender leave such fields empty.",
    )


def _clocks_set_back(name: str, column: pa.ChunkedArray, zone: str, twice: np.ndarray) -> tuple[str, ...]:
    if not len(twice):
        return ()
    row = int(twice[0])
    return (
        f"{name}: {len(twice):,} of {len(column):,} times were shown twice by the clocks of {zone}, which were set "
        f"back, e.g. {shown(plain_value(column[row]))} in row {row} (rule: a time says its instant). Each was read as "
        "the first of the two. Have the sender deliver times in UTC, or with their offset.",
    )


def _cast_fault(
    column: pa.ChunkedArray, name: str, kind: str, key: str, keys: pa.ChunkedArray | None, broken: np.ndarray
) -> RowFault:
    row = int(broken[0])
    value, at_key = shown(plain_value(column[row])), f", {key} {plain_value(keys[row])}" if keys is not None else ""
    share = f"{len(broken):,} of {len(column):,} values"
    sentence = f"{name}: {share} break the rule 'is {kind}', e.g. {value} (row {row}{at_key})."
    return RowFault(f"{name} is {kind}", sentence, broken)


def _listed(names: list[str]) -> str:
    return listed(name if name and name == name.strip() else repr(name) for name in names) or "no column"


@dataclass
class Quarantine:
    """The rows of one delivery that are set aside, collected rule by rule."""

    total: int
    """Rows in the delivery."""
    _faults: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    """Position of a row to the rules it broke, each with its reason."""

    def add(self, fault: RowFault) -> None:
        """Set rows aside for breaking a rule; a row may break several."""
        for row in fault.rows.tolist():
            self._faults.setdefault(row, []).append((fault.rule, fault.sentence))

    @property
    def counts(self) -> dict[str, int]:
        """Rows per rule, each row under its first rule only."""
        return dict(sorted(Counter(faults[0][0] for faults in self._faults.values()).items()))

    @property
    def faulty(self) -> int:
        """Rows that are lost to the day: all but the exact copies."""
        return sum(1 for faults in self._faults.values() if [rule for rule, _ in faults] != [DUPLICATE])

    def sentences(self, *, copies: bool = False) -> list[str]:
        """Return one sentence per rule that rows broke; about exact copies only if asked to."""
        found = {
            rule: reason
            for row in sorted(self._faults)
            for rule, reason in self._faults[row]
            if copies or rule != DUPLICATE
        }
        return [found[rule] for rule in sorted(found)]

    def over_budget(self, budget: float, what: str, *, harmless: int = 0, least_valid: int = 0) -> list[str]:
        """Say why a larger share of rows is faulty than the budget allows, if so: one sentence per rule.

        With ``harmless`` of the faulty rows nothing is lost; ``least_valid`` rows must stay, whatever the budget.
        """
        faulty, valid = self.faulty - harmless, int(self.kept().sum())
        if valid >= least_valid and faulty <= budget * self.total:
            return []
        return [
            f"{faulty:,} of {self.total:,} {what} ({faulty / self.total:.2%}) break a rule, more than "
            f"validation.quarantine_budget ({budget:.2%}) allows; {valid:,} valid {what}. {sentence}"
            for sentence in self.sentences()
        ]

    def kept(self) -> np.ndarray:
        """Return which rows stay, shape ``(total,)``, boolean."""
        mask = np.ones(self.total, dtype=bool)
        mask[list(self._faults)] = False
        return mask

    def table(self, delivered: pa.Table, key: str) -> pa.Table:
        """Return the rows for table ``quarantine``, in an order that does not depend on the delivery's."""
        keys, names = delivered.column(key), delivered.schema.names
        entries = []
        for place in sorted(self._faults):
            (rule, reason), *others = self._faults[place]
            value = plain_value(keys[place])
            row = {name: plain_value(column[place]) for name, column in zip(names, delivered.columns, strict=True)}
            if others:
                reason += f" Also broken: {'; '.join(name for name, _ in others)}."
            shown = None if value is None or value != value else str(value)
            entries.append({"rule": rule, "reason": reason, "key": shown, "row": _as_json(row)})
        entries.sort(key=lambda e: (e["rule"], e["key"] or "", e["row"]))
        return pa.Table.from_pylist(entries, _SCHEMA)


def _as_json(row: dict[str, Any]) -> str:
    no_json = {name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
    plain = {name: str(value) if name in no_json else value for name, value in row.items()}
    return json.dumps(plain, sort_keys=True, default=str)
