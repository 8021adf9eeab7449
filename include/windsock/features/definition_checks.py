"""Whether a view's definition may be computed: by its text, and by trying it on data when that is due.

It is tried on the first day that it is computed for, and weekly. A definition that a version uses, or that version 0.1
computed, is only warned about, so that the champion that learned from it goes on.
"""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from windsock.errors import SpecError
from windsock.features.carry_over import was_carried_over
from windsock.features.feature_tables import FeatureTable
from windsock.features.look_ahead import find_look_ahead
from windsock.features.sql_rules import view_faults
from windsock.spec import ModelSpec
from windsock.spec.modelling import FeatureView
from windsock.steps import StepContext
from windsock.store import Store

CHECKED = "checked"
"""Folder of the notes: for each definition what was tried, and what was found."""
_EVERY_DAYS = 7


def check_definition(
    ctx: StepContext,
    spec: ModelSpec,
    view: FeatureView,
    table: FeatureTable,
    events: pa.Table | None,
    labels: pa.Table | None,
    *,
    in_use: bool,
) -> list[str]:
    """Check a view before a day of it is published, if that is due.

    Returns:
        What is wrong with a definition that goes on all the same, because a version uses it or version 0.1 did.

    Raises:
        SpecError: The definition may not be computed, and no version is ``in_use`` that would stand still without it.
    """
    parts = (spec.name, CHECKED, f"{table.short_name}.json")
    facts: dict[str, Any] = {"delay_days": spec.label.delay_days, "as_of": view.as_of}
    try:
        checked = ctx.store.read_json(*parts)
    except FileNotFoundError:
        checked = {"definition": table.definition, "carried_over": was_carried_over(table.ledger(ctx.store))}
    if facts.items() <= checked.items() and ctx.day.toordinal() % _EVERY_DAYS and not checked["faults"]:
        return []
    faults = view_faults(spec, view)
    if not faults and (found := find_look_ahead(spec, view, events, labels, ctx.day)) is not None:
        faults = [str(found)]
    named = [f"{spec.folder / view.sql}: view {view.name!r}: {fault}" for fault in faults]
    if faults and not (in_use or checked["carried_over"]):
        raise SpecError("\n".join(named))
    ctx.store.write_json({**checked, **facts, "faults": named}, *parts)
    return [f"{fault} It goes on for what uses it; nothing new is trained on it." for fault in named]


def refuse_faulty(store: Store, model: str, used: Iterable[FeatureTable]) -> None:
    """Refuse to train on definitions in which a fault was found; those of version 0.1 are only warned about.

    Raises:
        SpecError: There is one.
    """
    for table in used:
        try:
            checked = store.read_json(model, CHECKED, f"{table.short_name}.json")
        except FileNotFoundError:
            continue
        if checked["faults"] and not checked["carried_over"]:
            raise SpecError("\n".join(checked["faults"]))
