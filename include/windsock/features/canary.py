"""Does this DuckDB, and this Windsock, compute what the ones before did? One day of each living definition tells.

Definitions do not name the engine, as equal rows need no new name. So before an upgrade goes into production, a day
that is published is computed once more and compared with its record, byte for byte. Nothing is written.
"""

from dataclasses import dataclass
from datetime import date

from windsock import tables
from windsock.features.demand import demanded, usable
from windsock.features.inputs import is_current, settled_inputs
from windsock.features.view_sql import compute_view
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

_NEWEST = 14
"""Days in which a published one is looked for."""


@dataclass(frozen=True)
class Recomputed:
    """One definition's day, computed once more."""

    table: str
    day: date | None
    """None: no day of it stands that was made from what is in force now."""
    equal: bool
    rows: int


def recompute(settings: Settings, spec: ModelSpec) -> list[Recomputed]:
    """Compute the newest published day of each living definition once more.

    Raises:
        SpecError: A view that a champion needs does not run any more.
    """
    store = Store.of(settings)
    days = Ledger(store, spec.name, "ingest").days()
    found: dict[str, Recomputed] = {}
    for each in usable(demanded(settings, spec, days[-1] if days else spec.first_day)):
        table = each.table
        ledger = Ledger(store, spec.name, table.name)
        found[table.name] = Recomputed(table.name, None, True, 0)
        for day in reversed(ledger.days()[-_NEWEST:]):
            record = ledger.get(day)
            if record is None or not record.rows(table.name):
                continue
            inputs = settled_inputs(settings, each.spec, each.view, day)
            if not is_current(record, inputs):
                continue
            rows = compute_view(each.spec, each.view, *inputs.read(store, each.spec), day)
            same = tables.content_hash(rows) == record.outputs[table.name].hash
            found[table.name] = Recomputed(table.name, day, same, rows.num_rows)
            break
    return list(found.values())
