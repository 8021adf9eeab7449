"""Days that a reader of a column needs and that do not have it, with the line that would say so in the spec.

A column that a day lacks reads as NULL. That is the truth only if nobody delivered it then, which is for a person to
say: ``since`` in ``events.columns``. Who trains over such days without it would learn that the value was unknown.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from windsock.days import spans
from windsock.ingest.kept import delivered_since, lacking_columns, recoverable_columns
from windsock.ledger import DayRecord
from windsock.spec import ModelSpec
from windsock.store import Store


@dataclass(frozen=True)
class ColumnGap:
    """A column that some published days do not have, although the spec does not say that it was not there yet."""

    column: str
    days: tuple[date, ...]
    """The days that do not have it, ascending."""
    recoverable: tuple[date, ...]
    """Those of them whose kept delivery has it: :func:`windsock.ingest.step.rederive` takes it in."""
    line: str | None
    """What to write under ``events.columns``; None: no delivery has it up to the newest published day."""

    @property
    def unexplained(self) -> tuple[date, ...]:
        """The days that only the spec can explain."""
        return tuple(day for day in self.days if day not in self.recoverable)

    def __str__(self) -> str:
        sentence = f"events.columns.{self.column}: the rows of {spans(self.days)} do not have it."
        if self.recoverable:
            sentence += f" It was delivered on {spans(self.recoverable)}: ingest these days again to take it in."
        if not self.unexplained:
            return sentence
        sentence += f" It was not delivered on {spans(self.unexplained)}, and the spec does not say so:"
        if self.line is None:
            return f"{sentence} no delivery has it so far. Wait until it is delivered, and say `since:` which day."
        return f"{sentence} write `{self.line}` under events.columns, or leave these days out."


def find_gaps(store: Store, spec: ModelSpec, records: Iterable[DayRecord], columns: Iterable[str]) -> list[ColumnGap]:
    """Find the declared columns that days to be read do not have, and that the spec says were delivered.

    Args:
        store: Where the days and their deliveries are kept.
        spec: Says which columns there are, and since when.
        records: Records of ingest of the days that are read.
        columns: Names of the columns that are read.

    Returns:
        One gap per column that has any, in the order of ``columns``.
    """
    lacking: dict[str, dict[date, DayRecord]] = {name: {} for name in columns if name in spec.events.columns}
    for record in sorted(records, key=lambda r: r.ds):
        for name in lacking_columns(store, spec, record):
            since = spec.events.declared[name].since
            if name in lacking and (since is None or record.day >= since):
                lacking[name][record.day] = record
    return [_gap(store, spec, name, days) for name, days in lacking.items() if days]


def _gap(store: Store, spec: ModelSpec, name: str, days: dict[date, DayRecord]) -> ColumnGap:
    recoverable = tuple(day for day, record in days.items() if name in recoverable_columns(store, spec, record))
    first = delivered_since(store, spec, name)
    line = None
    if first is not None:
        column = spec.events.declared[name].model_copy(update={"since": first})
        fields = column.model_dump(mode="json")
        line = f"{name}: {{{', '.join(f'{field}: {value}' for field, value in fields.items())}}}"
    return ColumnGap(name, tuple(days), recoverable, line)
