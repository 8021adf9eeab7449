"""What an edit does to views and row features: by their definitions, so that layout and comments mean nothing."""

import difflib
from collections.abc import Iterator, Mapping

from windsock.errors import SpecError
from windsock.features.definition import definition_hash, normal_form, read_columns, row_hash
from windsock.features.view_sql import entity_column, view_schema
from windsock.plan.change import NEXT_TRAINING, NO_EFFECT, Change
from windsock.spec import ModelSpec
from windsock.spec.modelling import FeatureView


def view_changes(base: ModelSpec, spec: ModelSpec) -> Iterator[Change]:
    """Yield what differs between the views of two specs."""
    before, after = _views(base), _views(spec)
    gone = {short_definition(base, view): name for name, view in before.items() if name not in after}
    for name, view in after.items():
        if name in before:
            yield from _edited(base, before[name], spec, view)
            continue
        notes = _gives({}, spec, view)
        if (old := gone.get(short_definition(spec, view))) is not None:
            notes += [f"this is what {old} was: under that name nothing would be computed again"]
        yield Change("+", f"view {name}", "", short_definition(spec, view), NEXT_TRAINING, tuple(notes))
    for name in before:
        if name not in after:
            yield Change("-", f"view {name}", short_definition(base, before[name]), "", NEXT_TRAINING)


def row_changes(base: ModelSpec, spec: ModelSpec) -> Iterator[Change]:
    """Yield what differs between the row features of two specs; nothing of them is stored by day."""
    before, after = base.features.row, spec.features.row
    for name, expression in after.items():
        part = f"row feature {name}"
        if name not in before:
            yield Change("+", part, "", expression, NEXT_TRAINING)
        elif _row(base, name) != _row(spec, name):
            same_text = normal_form(before[name]) == normal_form(expression)
            notes = ("it reads a column of another type",) if same_text else ()
            yield Change("~", part, before[name], expression, NEXT_TRAINING, notes)
        elif before[name] != expression:
            yield Change("=", part, before[name], expression, NO_EFFECT, ("comments or layout only",))
    for name in before:
        if name not in after:
            yield Change("-", part := f"row feature {name}", before[name], "", NEXT_TRAINING)


def short_definition(spec: ModelSpec, view: FeatureView) -> str:
    """Return what names a view's table: the first digits of its definition, or ``?`` if it does not run."""
    try:
        return definition_hash(spec, view)[:8]
    except SpecError:
        return "?"


def _edited(base: ModelSpec, old: FeatureView, spec: ModelSpec, new: FeatureView) -> Iterator[Change]:
    part, was, now = f"view {new.name}", short_definition(base, old), short_definition(spec, new)
    old_text, new_text = _text(base, old), _text(spec, new)
    if was != now or now == "?":
        notes, diff = [], tuple[str, ...]()
        if now == "?":
            notes.append("it does not run")
        if normal_form(old_text) != normal_form(new_text):
            diff = _diff(old_text, new_text)
        if old.lookback_days != new.lookback_days:
            notes.append(f"lookback_days {old.lookback_days} → {new.lookback_days}")
        else:
            notes += _reads_otherwise(base, old, spec, new) if "?" not in (was, now) else []
            notes += _gives(_schema(base, old), spec, new)
        yield Change("~", part, was, now, NEXT_TRAINING, tuple(notes), diff)
    elif old_text != new_text:
        yield Change("=", part, was, now, NO_EFFECT, ("comments or layout only",))
    if old.ttl_days != new.ttl_days:
        note = "how old a value may be is no part of the definition: no day is made again"
        notes_of_ttl = (note, "the champion goes on with its own")
        yield Change("~", f"{part}: ttl_days", str(old.ttl_days), str(new.ttl_days), NEXT_TRAINING, notes_of_ttl)
    if old.as_of != new.as_of:
        note = (
            "its rows may know of the whole of their day: no look-ahead is looked for, and training and gate say so"
            if new.as_of == "end_of_day"
            else "its rows may know nothing later than themselves: a look-ahead is refused from now on"
        )
        yield Change("~", f"{part}: as_of", old.as_of, new.as_of, NEXT_TRAINING, (note,))


def _views(spec: ModelSpec) -> dict[str, FeatureView]:
    return {view.name: view for view in spec.features.views}


def _text(spec: ModelSpec, view: FeatureView) -> str:
    try:
        return spec.sql_of(view)
    except SpecError:
        return ""


def _row(spec: ModelSpec, name: str) -> str | None:
    try:
        return row_hash(spec, name)
    except SpecError:
        return None


def _schema(spec: ModelSpec, view: FeatureView) -> dict[str, str]:
    try:
        return view_schema(spec, view)
    except SpecError:
        return {}


def _gives(before: Mapping[str, str], spec: ModelSpec, view: FeatureView) -> list[str]:
    """Say which features come, go, and change their type."""
    after = _schema(spec, view)
    said = [f"gives {', '.join(came)}"] if (came := [name for name in after if name not in before]) else []
    said += [f"no longer gives {', '.join(went)}"] if (went := [name for name in before if name not in after]) else []
    return said + [
        f"{name} is {kind} instead of {before[name]}" for name, kind in after.items() if before.get(name, kind) != kind
    ]


def _reads_otherwise(base: ModelSpec, old: FeatureView, spec: ModelSpec, new: FeatureView) -> list[str]:
    before, after = read_columns(base, old), read_columns(spec, new)
    said = [
        f"reads {name} as {kind} instead of {before[name]}"
        for name, kind in after.items()
        if before.get(name, kind) != kind
    ]
    was, now = entity_column(base, old), entity_column(spec, new)
    return said + ([f"is looked up by {now} instead of {was}"] if was != now else [])


def _diff(before: str, after: str) -> tuple[str, ...]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return tuple(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))
