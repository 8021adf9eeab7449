"""What is set aside: rows with the rule each one broke, and refused files with their reasons.

A row stands in quarantine once, under the first rule it broke; its reason names them all.
Rows are kept as delivered, also with the columns that the spec drops.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from windsock.ingest.sources import Delivery
from windsock.spec import ModelSpec
from windsock.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

DUPLICATE = "duplicate copy"
"""Rule of rows that say exactly what another row says: nothing is lost with them."""


@dataclass
class Aside:
    """The rows of one delivery that are set aside, collected rule by rule."""

    total: int
    """Rows in the delivery."""
    _rules: dict[int, list[str]] = field(default_factory=dict)
    _reasons: dict[int, list[str]] = field(default_factory=dict)

    def add(self, rule: str, reason: str, rows: np.ndarray) -> None:
        """Set rows aside for breaking a rule; a row may break several."""
        for row in rows.tolist():
            self._rules.setdefault(row, []).append(rule)
            self._reasons.setdefault(row, []).append(reason)

    @property
    def counts(self) -> dict[str, int]:
        """Rows per rule, each row under its first rule only."""
        return dict(sorted(Counter(rules[0] for rules in self._rules.values()).items()))

    @property
    def faulty(self) -> int:
        """Rows that are lost to the day: all but the exact copies."""
        return sum(1 for rules in self._rules.values() if rules != [DUPLICATE])

    def sentences(self, *, copies: bool = False) -> list[str]:
        """Return one sentence per rule that rows broke; about exact copies only if asked to."""
        found = {
            rule: reason
            for place in sorted(self._rules)
            for rule, reason in zip(self._rules[place], self._reasons[place], strict=True)
            if copies or rule != DUPLICATE
        }
        return [found[rule] for rule in sorted(found)]

    def keep(self) -> np.ndarray:
        """Return which rows stay, shape ``(total,)``, boolean."""
        import numpy as np

        mask = np.ones(self.total, dtype=bool)
        mask[list(self._rules)] = False
        return mask

    def table(self, delivered: pa.Table, key: str) -> pa.Table:
        """Return the rows for table ``quarantine``, in an order that does not depend on the delivery's."""
        import pyarrow as pa

        order = sorted(self._rules)
        rows = _as_json(delivered.take(pa.array(order, pa.int64())))
        keys = delivered.column(key).take(pa.array(order, pa.int64())).to_pylist() if order else []
        entries = [
            (
                self._rules[place][0],
                _sentence(self._rules[place], self._reasons[place]),
                None if value is None or value != value else str(value),
                row,
            )
            for place, value, row in zip(order, keys, rows, strict=True)
        ]
        entries.sort(key=lambda e: (e[0], e[2] or "", e[3]))
        columns = list(zip(*entries, strict=True)) if entries else [(), (), (), ()]
        names = ("rule", "reason", "key", "row")
        return pa.table({n: pa.array(list(c), pa.string()) for n, c in zip(names, columns, strict=True)})


def keep_refused(store: Store, spec: ModelSpec, day: date, delivery: Delivery, reasons: Sequence[str]) -> str:
    """Copy a refused delivery to ``quarantine/<model>/<day>/<sha256>/`` with its reasons.

    Returns:
        The folder within the store.
    """
    folder = ("quarantine", spec.name, day.isoformat(), delivery.content_hash or "unreadable")
    # Reasons last: who finds them finds the file beside them.
    if delivery.raw is not None and not store.exists(*folder, delivery.name):
        store.write_bytes(delivery.raw, *folder, delivery.name)
    entry = {"reasons": list(reasons), "origin": delivery.origin, "name": delivery.name}
    store.write_json(entry, *folder, "reasons.json")
    return "/".join(folder)


def _sentence(rules: list[str], reasons: list[str]) -> str:
    also = f" Also broken: {'; '.join(rules[1:])}." if len(rules) > 1 else ""
    return reasons[0] + also


def _as_json(rows: pa.Table) -> list[str]:
    return [json.dumps({k: _plain(v) for k, v in row.items()}, sort_keys=True, default=str) for row in rows.to_pylist()]


def _plain(value: Any) -> Any:
    no_json = isinstance(value, float) and not math.isfinite(value)
    return str(value) if no_json else value
