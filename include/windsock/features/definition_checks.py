"""Whether a view's definition may be computed: by its text, and by trying it on data when that is due.

It is tried on the first day that it is computed for, and weekly. A definition that version 0.1 computed already is only
warned about, so that the champion that learned from it goes on.
"""

import hashlib
from typing import Any

import pyarrow as pa

from windsock.errors import SpecError
from windsock.features.feature_tables import STAGE
from windsock.features.look_ahead import find_look_ahead
from windsock.features.sql_rules import view_faults
from windsock.ledger import Ledger
from windsock.spec import ModelSpec
from windsock.spec.modelling import FeatureView
from windsock.steps import StepContext

_EVERY_DAYS = 7
_NEWEST = 30
"""Days in which a definition that 0.1 computed is looked for."""


def definition_hash(spec: ModelSpec, view: FeatureView) -> str:
    """Return the SHA-256 of a view's SQL, by which day records name it."""
    return hashlib.sha256(spec.sql_of(view).encode()).hexdigest()


def check_definition(
    ctx: StepContext, view: FeatureView, events: pa.Table | None, labels: pa.Table | None
) -> list[str]:
    """Check a view before a day of it is published, if that is due.

    Returns:
        What is wrong with a definition that was there before this check was.

    Raises:
        SpecError: The definition may not be computed.
    """
    spec, digest = ctx.spec, definition_hash(ctx.spec, view)
    parts = (spec.name, "checked", f"{view.name}-{digest[:16]}.json")
    facts: dict[str, Any] = {"delay_days": spec.label.delay_days, "as_of": view.as_of}
    try:
        checked = ctx.store.read_json(*parts)
    except FileNotFoundError:
        checked = {"definition": digest, "carried_over": _was_computed(ctx, view, digest)}
    if facts.items() <= checked.items() and ctx.day.toordinal() % _EVERY_DAYS:
        return []
    faults = view_faults(spec, view)
    if not faults and (found := find_look_ahead(spec, view, events, labels, ctx.day)) is not None:
        faults = [str(found)]
    named = [f"{spec.folder / view.sql}: view {view.name!r}: {fault}" for fault in faults]
    if faults and not checked["carried_over"]:
        raise SpecError("\n".join(named))
    # Before the day's record: who finds that without this finds a definition of 0.1.
    ctx.store.write_json({**checked, **facts}, *parts)
    return [f"{fault} It goes on as version 0.1 computed it; an edit of it must not do this." for fault in named]


def _was_computed(ctx: StepContext, view: FeatureView, digest: str) -> bool:
    ledger = Ledger.of(ctx.settings, ctx.spec.name, STAGE)
    newest = (ledger.get(day) for day in reversed(ledger.days()[-_NEWEST:]))
    return any(r is not None and r.status == "published" and r.inputs.get(f"sql/{view.name}") == digest for r in newest)
