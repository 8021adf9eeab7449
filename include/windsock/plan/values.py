"""By how much an edit moves the values of features: the newest full day, computed in memory as it was and as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa

from windsock.errors import SpecError
from windsock.features.definition import known_mark, reads_labels
from windsock.features.frame import event_frame
from windsock.features.inputs import Seen, inputs_of_day
from windsock.features.look_ahead import find_look_ahead
from windsock.features.view_sql import TIMESTAMP, compute_view, entity_column
from windsock.ledger import Ledger
from windsock.plan.change import Change, Difference
from windsock.plan.views import short_definition
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.modelling import FeaturesSpec, FeatureView
from windsock.sql import open_duckdb, quoted
from windsock.store import Store

_TOLERANCE = 1e-9
"""Relative: sums over the same rows in another order may differ in their last digits."""


@dataclass(frozen=True)
class _Day:
    """A day, and what reads it."""

    settings: Settings
    day: date

    def rows(self, spec: ModelSpec, view: FeatureView) -> tuple[pa.Table, pa.Table]:
        """Return the events of a view's lookback, and the labels that may be known by then."""
        seen = Seen.of(self.settings, spec, self.day, view.lookback_days)
        return inputs_of_day(spec, view, self.day, seen.events, seen.labels).read(Store.of(self.settings), spec)

    def compute(self, spec: ModelSpec, view: FeatureView) -> pa.Table:
        return compute_view(spec, view, *self.rows(spec, view), self.day)


def with_values(
    settings: Settings, base: ModelSpec | None, spec: ModelSpec, changes: Sequence[Change], days: Sequence[date]
) -> tuple[list[Change], str]:
    """Add to changes by how much values differ, and what looks ahead.

    Args:
        settings: Lead to the store.
        base: The model as it was; None: it is new.
        spec: The model as it is.
        changes: What differs.
        days: The ingested days, in order.

    Returns:
        The changes, and which day was looked at, in words.
    """
    ledger = Ledger.of(settings, spec.name, "ingest")
    full = (day for day in reversed(days) if (record := ledger.get(day)) is not None and record.rows("events"))
    if (newest := next(full, None)) is None:
        return list(changes), "no values are compared: no day with events is ingested"
    day = _Day(settings, newest)
    told = [_with_values(day, base, spec, change) for change in changes]
    told += [_looks_ahead(day, spec, view) for view in spec.features.views if base is None]
    return [change for change in told if change is not None], f"values are those of {newest}"


def _with_values(day: _Day, base: ModelSpec | None, spec: ModelSpec, change: Change) -> Change | None:
    kind, _, name = change.part.rpartition(" ")
    if base is None or change.sign in "-=" or change.refused:
        return change
    views = {view.name: view for view in spec.features.views}
    try:
        if kind == "view":
            found, ahead = tuple(_of_view(day, base, spec, views[name])), _looks_ahead(day, spec, views[name])
            return replace(change, values=found, refused=ahead.refused if ahead is not None else ())
        if kind == "row feature" and change.sign == "~":
            return replace(change, values=tuple(_of_row(day, base, spec, name)))
        if change.part == "label.delay_days":
            touched = [view for view in spec.features.views if _moves_with_delay(base, spec, view)]
            found = tuple(each for view in touched for each in _of_view(day, base, spec, view))
            return replace(change, values=found)
    except SpecError as err:
        return replace(change, notes=(*change.notes, f"its values are not compared: {err}"))
    return change


def _of_view(day: _Day, base: ModelSpec, spec: ModelSpec, view: FeatureView) -> Iterator[Difference]:
    old, entity = next((v for v in base.features.views if v.name == view.name), None), entity_column(spec, view)
    now = day.compute(spec, view)
    same_entity = old is not None and entity_column(base, old) == entity
    was = day.compute(base, old) if old is not None and same_entity else now.slice(0, 0)
    yield from _differences(was, now, [name for name in (entity, TIMESTAMP) if name])


def _of_row(day: _Day, base: ModelSpec, spec: ModelSpec, name: str) -> Iterator[Difference]:
    record = Ledger.of(day.settings, spec.name, "ingest").between(day.day, day.day).values()
    store, frames = Store.of(day.settings), []
    for owner in (base, spec):
        alone = owner.model_copy(
            update={"features": FeaturesSpec(row={name: owner.features.row[name]}), "entities": {}}
        )
        columns = event_frame(store, alone, record)
        frames.append(columns.rename_columns([spec.events.key, TIMESTAMP, name]))
    yield from _differences(frames[0], frames[1], [spec.events.key])


def _differences(was: pa.Table, now: pa.Table, keys: Sequence[str]) -> Iterator[Difference]:
    """Compare the features of two tables over the rows that both have, by their keys."""
    features = [name for name in now.column_names if name not in keys and name != TIMESTAMP]
    with open_duckdb() as connection:
        connection.register("was", was)
        connection.register("now", now)
        joined = " and ".join(f"was.{quoted(key)} is not distinct from now.{quoted(key)}" for key in keys)
        for name in features:
            column, kind = quoted(name), now.schema.field(name).type
            numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
            mean = f"avg(now.{column}::double)" if numeric else "null"
            if name not in was.column_names or not was.num_rows:
                [(rows, after)] = connection.execute(f"select count(*), {mean} from now").fetchall()
                yield Difference(name, rows, None, None, after)
                continue
            other = f"was.{column} is distinct from now.{column}"
            if numeric:
                a, b = f"was.{column}::double", f"now.{column}::double"
                other += f" and not coalesce(abs({a} - {b}) <= {_TOLERANCE} * greatest(abs({a}), abs({b})), false)"
            before = mean.replace("now.", "was.")
            query = f"select count(*), avg(({other})::integer), {before}, {mean} from was join now on {joined}"
            [row] = connection.execute(query).fetchall()
            yield Difference(name, *row)


def _looks_ahead(day: _Day, spec: ModelSpec, view: FeatureView) -> Change | None:
    """Return a refusal if a view looks ahead on the day."""
    try:
        found = find_look_ahead(spec, view, *day.rows(spec, view), day.day)
    except SpecError:
        return None  # it does not run, which lint says
    if found is None:
        return None
    name = short_definition(spec, view)
    return Change("+", f"view {view.name}", "", name, refused=(f"{view.sql}: view {view.name!r}: {found}",))


def _moves_with_delay(base: ModelSpec, spec: ModelSpec, view: FeatureView) -> bool:
    """Say whether a view's rows change by the delay alone: its definition is the same, and it reads labels."""
    old = next((v for v in base.features.views if v.name == view.name), None)
    same = old is not None and short_definition(base, old) == short_definition(spec, view)
    return same and reads_labels(spec, view) and known_mark(base) != known_mark(spec)
