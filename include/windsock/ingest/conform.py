"""Bringing a delivery into the declared form: names first, then types, column by column.

A file whose columns do not fit is refused whole, with one sentence per fault. Single values
that cannot be read (``"n/a"`` in a CSV's amount) are faults of their rows: these are set
aside, and the quarantine budget decides about the file. How single columns are read stands in
``casts``; what the values must be, in ``windsock.validate``.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from windsock.column_types import arrow_schema
from windsock.errors import did_you_mean
from windsock.ingest.casts import ColumnTypeError, cast_column, is_text


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
    """Declared columns in the spec's order, then the inline label; None if refused."""
    problems: tuple[str, ...] = ()
    faults: tuple[RowFault, ...] = ()
    warnings: tuple[str, ...] = ()


def conform(delivered: pa.Table, columns: dict[str, str], *, ignore: Iterable[str] = (), key: str) -> Conformed:
    """Pick the declared columns out of a delivery and give them their declared types.

    Args:
        delivered: The rows as they came, columns in any order.
        columns: Name to declared type of every column that must be there.
        ignore: Columns that may be there and are dropped without a word.
        key: Key column, for examples in messages.
    """
    schema = arrow_schema(columns.items())
    problems = _name_problems(delivered.schema.names, columns)
    extra = [n for n in dict.fromkeys(delivered.schema.names) if n not in columns and n not in set(ignore)]
    warnings = _extra_warning(extra, delivered) if extra else ()
    if problems:
        return Conformed(None, tuple(problems), (), warnings)
    if delivered.num_rows == 0:  # an empty file's types say nothing: writers guess them from values
        return Conformed(schema.empty_table(), (), (), warnings)
    text = all(is_text(delivered.schema.field(name).type) for name in columns)
    arrays, faults = [], []
    for name, kind in columns.items():
        try:
            array, broken = cast_column(delivered.column(name), kind, from_text=text)
        except ColumnTypeError as err:
            problems.append(
                f"{name}: declared {kind}, delivered as {err.found}: {err.count:,} of {delivered.num_rows:,} values "
                f"cannot be taken, e.g. {err.example!r} in row {err.row}. {err.advice}"
            )
            continue
        arrays.append(array)
        if len(broken):
            faults.append(_cast_fault(delivered, name, kind, key, broken))
    if problems:
        return Conformed(None, tuple(problems), (), warnings)
    return Conformed(pa.table(arrays, schema=schema), (), tuple(faults), warnings)


def _name_problems(names: list[str], columns: dict[str, str]) -> list[str]:
    """Name every declared column that is missing or stands there more than once."""
    problems = []
    counts = Counter(names)
    others = [n for n in counts if n not in columns]
    for name, kind in columns.items():
        if counts[name] > 1:
            problems.append(
                f"{name}: the column stands in the delivery {counts[name]} times, expected once, so nobody can tell "
                "which one is meant. Ask the sender to keep one."
            )
        if counts[name] == 0:
            same = [n for n in others if n.strip().casefold() == name.casefold()]
            near = f" Did you mean {same[0]!r}?" if same else did_you_mean(name, others)
            problems.append(
                f"{name}: the declared column ({kind}) is missing; rule: every declared column is delivered; "
                f"1 of {len(columns)} columns affected, e.g. the delivery holds {_listed(names)}.{near} "
                "Ask the sender for it, or change events.columns in model.yaml."
            )
    return problems


def _extra_warning(extra: list[str], delivered: pa.Table) -> tuple[str, ...]:
    name = extra[0]
    first = delivered.column(delivered.schema.names.index(name))
    values = (first.slice(n, 1)[0].as_py() for n in range(min(len(first), 1000)))
    example = next((v for v in values if v is not None), None)
    return (
        f"{', '.join(extra)}: {len(extra)} column{'s' if len(extra) > 1 else ''} that the spec does not declare "
        f"{'were' if len(extra) > 1 else 'was'} dropped and never reach a model (rule: only declared columns are "
        f"kept), e.g. {name} = {example!r}. Declare them under events.columns, or under events.ignore to silence this.",
    )


def _cast_fault(delivered: pa.Table, name: str, kind: str, key: str, broken: np.ndarray) -> RowFault:
    row = int(broken[0])
    value = delivered.column(name)[row].as_py()
    where = f"row {row}"
    if key != name:
        where += f", {key} {delivered.column(key)[row].as_py()}"
    rule = f"{name} is {kind}"
    share = f"{len(broken):,} of {delivered.num_rows:,} values"
    return RowFault(rule, f"{name}: {share} break the rule 'is {kind}', e.g. {value!r} ({where}).", broken)


def _listed(names: list[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else (shown or "no column")
