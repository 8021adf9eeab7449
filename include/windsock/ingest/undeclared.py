"""Columns that a day is stored with although the spec does not declare them, or no longer does.

Who takes a column out of ``model.yaml`` says what the next training wants. A version that was trained with it reads it
as long as it is in force, or may be again after a rollback.
"""

from windsock import tables
from windsock.column_types import ARROW_TYPES, declared_name
from windsock.ledger import DayRecord
from windsock.living_versions import read_definitions, versions_needed
from windsock.spec.columns import event_known_at
from windsock.steps import StepContext
from windsock.version_index import version_info


def undeclared_columns(ctx: StepContext, previous: DayRecord | None) -> dict[str, str]:
    """Return name to type of what a day is stored with besides: what its rows have, and :func:`extra_columns`."""
    spec = ctx.spec
    output = previous.outputs.get("events") if previous is not None else None
    stored = tables.delivered_columns(ctx.store, output) if output is not None else {}
    kinds = {name: declared_name(kind) for name, kind in stored.items()} | dict(extra_columns(ctx))
    ours = {*spec.events.columns, spec.label.column, event_known_at(spec)}
    return {name: kind for name, kind in kinds.items() if name not in ours and kind in ARROW_TYPES}


def extra_columns(ctx: StepContext) -> dict[str, str]:
    """Return name to type of the columns that living versions read, by the names in their definitions."""
    found: dict[str, str] = {}
    for version in versions_needed(ctx.settings, ctx.spec, ctx.day):
        definitions = read_definitions(ctx.settings.store, version_info(ctx.settings, ctx.spec, version))
        columns = dict(definitions["columns"])
        reads = definitions.get("reads", columns)  # a version of 0.1 does not say which
        found |= {name: kind for name, kind in columns.items() if name in reads}
    return found
