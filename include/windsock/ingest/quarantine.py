"""Rows that are set aside, each with the rules that it broke.

A row stands in quarantine once, under the first rule it broke; its reason names them all.
Rows are kept as delivered, also with the columns that the spec drops.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

DUPLICATE = "duplicate copy"
"""Rule of rows that say exactly what another row says: nothing is lost with them."""

_SCHEMA = pa.schema([(name, pa.string()) for name in ("rule", "reason", "key", "row")])


@dataclass
class Quarantine:
    """The rows of one delivery that are set aside, collected rule by rule."""

    total: int
    """Rows in the delivery."""
    _faults: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    """Position of a row to the rules it broke, each with its reason."""

    def add(self, rule: str, reason: str, rows: np.ndarray) -> None:
        """Set rows aside for breaking a rule; a row may break several."""
        for row in rows.tolist():
            self._faults.setdefault(row, []).append((rule, reason))

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

    def kept(self) -> np.ndarray:
        """Return which rows stay, shape ``(total,)``, boolean."""
        mask = np.ones(self.total, dtype=bool)
        mask[list(self._faults)] = False
        return mask

    def table(self, delivered: pa.Table, key: str) -> pa.Table:
        """Return the rows for table ``quarantine``, in an order that does not depend on the delivery's."""
        places = sorted(self._faults)
        rows = delivered.take(pa.array(places, pa.int64())).to_pylist()
        keys = delivered.column(key).take(pa.array(places, pa.int64())).to_pylist()
        entries = []
        for place, value, row in zip(places, keys, rows, strict=True):
            (rule, reason), *others = self._faults[place]
            if others:
                reason += f" Also broken: {'; '.join(name for name, _ in others)}."
            shown = None if value is None or value != value else str(value)
            entries.append({"rule": rule, "reason": reason, "key": shown, "row": _as_json(row)})
        entries.sort(key=lambda e: (e["rule"], e["key"] or "", e["row"]))
        return pa.Table.from_pylist(entries, _SCHEMA)


def _as_json(row: dict[str, Any]) -> str:
    return json.dumps({name: _plain(value) for name, value in row.items()}, sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    no_json = isinstance(value, float) and not math.isfinite(value)
    return str(value) if no_json else value
