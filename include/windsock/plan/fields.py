"""Every other field of a spec, and the files beside it: what differs, and when it counts."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from windsock.days import ONE_DAY, day_range, spans
from windsock.plan.change import NEXT_TRAINING, Change
from windsock.plan.columns import FROM_NOW_ON
from windsock.plan.standing import Standing
from windsock.spec import ModelSpec
from windsock.spec.estimators import CustomSpec, TorchSpec
from windsock.spec.load import SPEC_FILE

_ELSEWHERE = (
    "name",
    "features",
    "label",
    "events.columns",
    "events.key",
    "events.time",
    "first_day",
)
"""Parts that have a module, or a function, of their own."""
_EFFECTS = (
    ("training", NEXT_TRAINING, ()),
    ("gate", "next verdict", ("a version that has passed and is not promoted yet is judged again",)),
    ("monitoring", "next night", ("nights that were reported stay as they are",)),
    ("retraining", "next night", ("nights that were decided stay as they are",)),
    ("schedule", "next start by the clock", ()),
    ("source", FROM_NOW_ON, ("published days stay, new days come from the new place; --probe 3 compares three days",)),
    ("validation", FROM_NOW_ON, ("published days stay; --suite tries the last raw days",)),
    ("events.delivered_at", FROM_NOW_ON, ("published days keep the times at which they were known",)),
    (
        "events.late_days",
        FROM_NOW_ON,
        ("rows that were set aside join their days once their delivery is ingested again",),
    ),
    ("events", FROM_NOW_ON, ()),
    ("entities", NEXT_TRAINING, ("an entity's name is Feast's alone; another column is another definition",)),
    ("serving", FROM_NOW_ON, ()),
    ("retention", "next maintenance", ("what a version, a record or a waiting challenger needs stays",)),
    ("last_day", FROM_NOW_ON, ("nothing is computed again",)),
    ("alerts", "next alert", ("nothing is computed",)),
    ("", "at once", ("nothing is computed",)),
)
_AS_ONE = ("source",)
"""Parts that are told as a whole: their fields make no sense one by one."""
_LONGEST = 100


def field_changes(base: ModelSpec, spec: ModelSpec) -> Iterator[Change]:
    """Yield every field that differs and that no other module looks at."""
    before, after = _flat(base.model_dump(mode="json")), _flat(spec.model_dump(mode="json"))
    for path in dict.fromkeys([*after, *before]):
        if before.get(path) == after.get(path) or any(_within(path, part) for part in _ELSEWHERE):
            continue
        effect, notes = next((effect, notes) for part, effect, notes in _EFFECTS if not part or _within(path, part))
        sign: Any = "+" if path not in before else "-" if path not in after else "~"
        yield Change(sign, path, _shown(before.get(path)), _shown(after.get(path)), effect, notes)


def first_day_changes(base: ModelSpec, spec: ModelSpec, standing: Standing) -> Iterator[Change]:
    """Yield what another first day means: days to ingest, and days whose lookback then holds more or less."""
    old, new, lookback = base.first_day, spec.first_day, timedelta(days=spec.features.lookback_days)
    if old == new:
        return
    notes = []
    if new < old:
        missing = [day for day in day_range(new, old - ONE_DAY) if day not in standing.ingested]
        if missing:
            notes.append(f"{len(missing)} days to ingest: {spans(missing)}; backfill {spec.name}_ingest over them")
    else:
        notes.append(f"days before {new} stay stored and are not read any more")
    later = max(old, new)
    touched = [day for day in standing.ingested if later <= day < later + lookback]
    if touched:
        when = "once the earlier days are there" if new < old else "as their lookback holds less"
        notes.append(f"features of {len(touched)} days are stale {when}: {spans(touched)}")
    yield Change("~", "first_day", str(old), str(new), NEXT_TRAINING, tuple(notes))


def file_changes(base: ModelSpec, spec: ModelSpec) -> Iterator[Change]:
    """Yield the files of the model's folder that differ, beside ``model.yaml`` and the SQL of views."""
    skip = {SPEC_FILE, *(view.sql for owner in (base, spec) for view in owner.features.views)}
    before, after = _files(base), _files(spec)
    suites = {owner.validation.suite or "expectations.json" for owner in (base, spec)}
    programs = any(
        isinstance(e, CustomSpec) or (isinstance(e, TorchSpec) and e.module) for e in spec.training.estimators
    )
    for name in sorted((before.keys() | after.keys()) - skip):
        if before.get(name) == after.get(name):
            continue
        sign: Any = "+" if name not in before else "-" if name not in after else "~"
        if name in suites:
            note = "published days stay; --suite tries the last raw days"
            yield Change(sign, f"suite {name}", effect=FROM_NOW_ON, notes=(note,))
        elif programs and not name.startswith("."):
            yield Change(sign, f"file {name}", effect=NEXT_TRAINING, notes=("where a trainer reads it",))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return every leaf of nested JSON by its path; a list's objects go by their names."""
    if isinstance(value, Mapping) and path not in _AS_ONE:
        found: dict[str, Any] = {}
        for name, inner in value.items():
            found |= _flat(inner, f"{path}.{name}" if path else str(name))
        return found
    if isinstance(value, list) and value and all(isinstance(each, Mapping) and "name" in each for each in value):
        return _flat({each["name"]: {k: v for k, v in each.items() if k != "name"} for each in value}, path)
    return {path: value}


def _within(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}.")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        value = "{" + ", ".join(f"{name}: {_shown(inner)}" for name, inner in value.items() if inner) + "}"
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _files(spec: ModelSpec) -> dict[str, bytes]:
    return {
        path.relative_to(spec.folder).as_posix(): path.read_bytes()
        for path in spec.folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
