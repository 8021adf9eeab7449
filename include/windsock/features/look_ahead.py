"""Does a view look ahead? Found by trying: hide a row's own label and all that came later, and see what changes.

A view's rows of a day are computed by the end of that day, so its SQL could hand a row what happened minutes later,
or the very answer. No rule over SQL tells that; a comparison does. It is made in a small world, because a view that
looks ahead does so there too and each run takes milliseconds: a few entities with all their rows, and a stretch of the
day with everybody's. There the view is run as if the day had ended at some of its instants. Rows of equal times stay
together.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from windsock.days import last_instant
from windsock.features.view_sql import TIMESTAMP, create_tables, entity_column, rows_of_day
from windsock.row_places import places_of
from windsock.spec import ModelSpec
from windsock.spec.columns import KNOWN_AT
from windsock.spec.modelling import FeatureView
from windsock.sql import open_duckdb, quoted

_ENTITY_ROWS = 2500
_DAY_ROWS = 1500
_LARGEST = 8000
_CUTS = 16
"""Instants of a day at which a view is tried."""
_TOLERANCE = 1e-9
"""Relative to a feature's largest value: sums over other groups of the same rows may differ in their last digits."""
_DAY = 86_400_000_000

Instants = npt.NDArray[np.int64]
"""Microseconds since 1970, UTC."""


@dataclass(frozen=True)
class LookAhead:
    """A feature that was another when what it could not know was hidden."""

    feature: str
    row: dict[str, Any]
    """The row's entity, if the view has one, and its time."""
    value: Any
    other: Any
    hidden: str
    """What was hidden or changed, in words."""

    def __str__(self) -> str:
        row = " at ".join(f"{name} {value}" if name != TIMESTAMP else str(value) for name, value in self.row.items())
        return (
            f"it looks ahead: {self.feature} of {row} is {_show(self.value)}, but {_show(self.other)} "
            f"when {self.hidden}. Let its frames and joins end before that (frames in microseconds, over "
            "epoch_us(...)), or give the view 'as_of: end_of_day' if it is meant as of the end of the day."
        )


def find_look_ahead(
    spec: ModelSpec, view: FeatureView, events: pa.Table | None, labels: pa.Table | None, day: date
) -> LookAhead | None:
    """Try a view on a day, given what ``compute_view`` gets; None: no row that was tried looks ahead.

    A view that is said to be as of the end of the day is not tried.
    """
    if view.as_of == "end_of_day" or events is None or events.num_rows == 0:
        return None
    if labels is not None:
        labels = labels.filter(pc.less_equal(labels[KNOWN_AT], pa.scalar(last_instant(day), pa.timestamp("us"))))
    world = _small_world(_World(spec, view, day, events, labels))
    with open_duckdb(threads=1) as connection:
        try:
            whole = world.rows(connection)
        except duckdb.Error:
            return None  # SQL that needs more rows than these cannot be tried on fewer
        for cut in _cuts(world):
            if (found := _try(connection, world, whole, cut)) is None:
                continue
            # Among rows of one time SQL may take any order, another one with other rows: try again without ties.
            alone = _without_ties(world, found.row)
            if (found := _try(connection, alone, alone.rows(connection), cut)) is not None:
                return found
    return None


@dataclass(frozen=True)
class _World:
    spec: ModelSpec
    view: FeatureView
    day: date
    events: pa.Table
    labels: pa.Table | None

    @property
    def times(self) -> Instants:
        return _instants(self.events[self.spec.events.time])

    @property
    def entity(self) -> str | None:
        return entity_column(self.spec, self.view)

    def keep(self, mask: npt.NDArray[np.bool_]) -> "_World":
        """Keep some events, and the labels of these."""
        events, labels, key = self.events.filter(pa.array(mask)), self.labels, self.spec.events.key
        if labels is not None:
            time = self.spec.events.time
            there = places_of([labels[key], labels["event_time"]], [events[key], events[time]])
            labels = labels.filter(there.is_valid())
        return _World(self.spec, self.view, self.day, events, labels)

    def rows(self, connection: duckdb.DuckDBPyConnection) -> pa.Table:
        create_tables(connection, self.spec, self.events, self.labels, self.day)
        return rows_of_day(connection, self.spec, self.view, self.day)

    def until(self, cut: int) -> "_World":
        """Hide events after an instant, and labels of events from it on."""
        events, labels = self.events.filter(pa.array(self.times <= cut)), self.labels
        if labels is not None:
            labels = labels.filter(pa.array(_instants(labels["event_time"]) < cut))
        return _World(self.spec, self.view, self.day, events, labels)

    def with_other_labels(self, cut: int) -> "_World":
        """Give events of an instant another label: a view that adds up zeros would not miss one that is hidden."""
        assert self.labels is not None
        place = self.labels.column_names.index(self.spec.label.column)
        value, at = self.labels[place], pa.array(_instants(self.labels["event_time"]) == cut)
        one = pa.scalar(1, value.type)
        other = pc.subtract(one, value) if self.spec.label.task == "binary" else pc.add(value, one)
        labels = self.labels.set_column(place, self.labels.schema.field(place), pc.if_else(at, other, value))
        return _World(self.spec, self.view, self.day, self.events, labels)


def _try(connection: duckdb.DuckDBPyConnection, world: _World, whole: pa.Table, cut: int) -> LookAhead | None:
    """Compare a view's rows up to an instant with those of a day that ends there."""
    instant = pa.scalar(cut, pa.timestamp("us")).as_py()
    own = world.labels is not None and bool((_instants(world.labels["event_time"]) == cut).any())
    trials = [(world.with_other_labels(cut), f"the label of {instant} is another")] if own else []
    for other, hidden in (*trials, (world.until(cut), f"what came after {instant} is hidden")):
        try:
            rows = other.rows(connection)
        except duckdb.Error:
            continue  # SQL that needs rows of a certain kind tells nothing without them
        if (found := _first_difference(connection, world, whole, rows, cut)) is not None:
            return LookAhead(*found, hidden)
    return None


def _first_difference(
    connection: duckdb.DuckDBPyConnection, world: _World, whole: pa.Table, rows: pa.Table, cut: int
) -> tuple[str, dict[str, Any], Any, Any] | None:
    """Return the first feature that differs in the latest row up to an instant that does, the row and both values."""
    if rows.equals(whole.filter(pa.array(_instants(whole[TIMESTAMP]) <= cut))):
        return None
    keys = [name for name in (world.entity, TIMESTAMP) if name]
    features = [name for name in whole.column_names if name not in keys]
    differs = {name: _differs(quoted(name), whole.schema.field(name).type) for name in features}
    same = " and ".join(f"w.{quoted(key)} is not distinct from o.{quoted(key)}" for key in keys)
    row_keys = ", ".join(f"coalesce(w.{quoted(key)}, o.{quoted(key)})" for key in keys)
    pairs = ", ".join(
        f"w.{quoted(n)} as w{i}, o.{quoted(n)} as o{i}, {differs[n]} as d{i}" for i, n in enumerate(features)
    )
    connection.register("whole_rows", whole)
    connection.register("other_rows", rows)
    # Which rows there are may look ahead, too: one that comes, and one that goes, differs.
    found = connection.execute(
        f"select {row_keys}, w.{TIMESTAMP} is null as came, o.{TIMESTAMP} is null as gone, {pairs} "
        f"from whole_rows w full join other_rows o on {same} "
        f"where epoch_us(coalesce(w.{TIMESTAMP}, o.{TIMESTAMP})::timestamp) <= {cut} "
        f"and (w.{TIMESTAMP} is null or o.{TIMESTAMP} is null or {' or '.join(differs.values())}) "
        f"order by coalesce(w.{TIMESTAMP}, o.{TIMESTAMP}) desc limit 1"
    ).fetchall()
    for name in ("whole_rows", "other_rows"):
        connection.unregister(name)
    if not found:
        return None
    row, (came, gone, *values) = dict(zip(keys, found[0], strict=False)), found[0][len(keys) :]
    if came or gone:
        return features[0], row, "not there" if came else values[0], "not there" if gone else values[1]
    at = next(i for i in range(len(features)) if values[3 * i + 2])
    return features[at], row, values[3 * at], values[3 * at + 1]


def _differs(name: str, kind: pa.DataType) -> str:
    """Return SQL that says whether two values of a feature differ; NULL equals NULL."""
    if not (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return f"(w.{name} is distinct from o.{name})"
    largest = f"(select max(abs({name})) filter (where isfinite({name}::double)) from whole_rows)"
    near = f"coalesce(abs(w.{name} - o.{name}) <= {_TOLERANCE} * {largest}, false)"
    return f"(w.{name} is distinct from o.{name} and not {near})"


def _small_world(world: _World) -> _World:
    """Keep a few entities with all their rows, and a stretch of the day with everybody's.

    The entities are those with positive labels and those with rows that follow each other closely.
    """
    times, (first, stop) = world.times, _bounds(world.day)
    if len(times) <= _ENTITY_ROWS + _DAY_ROWS:
        return world
    own = np.flatnonzero((first <= times) & (times < stop))
    middle = max((len(own) - _DAY_ROWS) // 2, 0)
    kept = np.zeros(len(times), dtype=bool)
    kept[own[middle : middle + _DAY_ROWS]] = True
    older = np.flatnonzero(times < first)
    if world.entity is None:
        kept[older[:: max(len(older) // _ENTITY_ROWS, 1)]] = True
    else:
        codes = _codes(world.events[world.entity])
        count = int(codes.max()) + 1
        sizes, today = np.bincount(codes, minlength=count), np.bincount(codes[own], minlength=count)
        positive = np.bincount(codes[own][np.isin(times[own], _labelled(world))], minlength=count)
        soonest = np.full(count, stop)
        after, gap = _next_in_group(codes[own], times[own])
        np.minimum.at(soonest, codes[own][after], gap)
        rankings = [np.lexsort((-today, first_key)) for first_key in (positive == 0, soonest)]
        order = np.array(list(dict.fromkeys(np.stack(rankings, axis=1).ravel().tolist())))
        order = order[today[order] > 0]
        chosen = order[np.cumsum(sizes[order]) <= _ENTITY_ROWS]
        kept |= np.isin(codes, chosen if len(chosen) else order[:1])
    places = np.flatnonzero(kept)[-_LARGEST:]
    kept[:] = False
    kept[places] = True
    return world.keep(kept)


def _cuts(world: _World) -> Iterator[int]:
    """Yield instants of the day at which something is likely to show, in a fixed order."""
    times, (first, stop) = world.times, _bounds(world.day)
    today = (first <= times) & (times < stop)
    instants = np.unique(times[today])
    if len(instants) <= _CUTS:
        yield from (int(t) for t in instants)
        return
    spread = instants[np.linspace(0, len(instants) - 1, _CUTS // 2).astype(int)]
    positive = np.intersect1d(_labelled(world), instants)
    chosen = [*positive[np.linspace(0, len(positive) - 1, 4).astype(int)]] if len(positive) else []
    for column in (world.entity, *world.spec.entities.values(), None):
        group = _codes(world.events[column])[today] if column else np.zeros(int(today.sum()), dtype=np.int64)
        after, gap = _next_in_group(group, times[today])
        chosen += list(times[today][after[np.argsort(gap, kind="stable")[:3]]])
    yield from (int(t) for t in dict.fromkeys([*chosen, *spread]))


def _next_in_group(group: Instants, times: Instants) -> tuple[Instants, Instants]:
    """Return places of rows that another one of their group follows later, and how soon, in microseconds."""
    order = np.lexsort((times, group))
    gaps = np.diff(times[order])
    usable = np.flatnonzero((np.diff(group[order]) == 0) & (gaps > 0))
    return order[usable], gaps[usable]


def _without_ties(world: _World, row: dict[str, Any]) -> _World:
    """Keep one event of each instant, of the row's entity if there is one."""
    times, others = world.times, np.ones(world.events.num_rows, dtype=bool)
    if world.entity is not None:
        own = pc.equal(world.events[world.entity], pa.scalar(row[world.entity], world.events[world.entity].type))
        others = ~pc.fill_null(own, fill_value=False).to_numpy(zero_copy_only=False)
    order = np.lexsort((others, times))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.diff(times[order]) > 0
    kept = np.zeros(len(order), dtype=bool)
    kept[order[first]] = True
    return world.keep(kept)


def _labelled(world: _World) -> Instants:
    """Return the instants of events whose visible label is not zero."""
    if world.labels is None:
        return np.empty(0, dtype=np.int64)
    found = pc.fill_null(pc.not_equal(world.labels[world.spec.label.column], 0), fill_value=False)
    return _instants(world.labels.filter(found)["event_time"])


def _instants(column: pa.ChunkedArray) -> Instants:
    return np.asarray(column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)


def _codes(column: pa.ChunkedArray) -> Instants:
    """Number the values of a column from 0; NULL is one of them."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def _bounds(day: date) -> tuple[int, int]:
    days = (day - date(1970, 1, 1)).days
    return days * _DAY, (days + 1) * _DAY


def _show(value: Any) -> str:
    return "NULL" if value is None else re.sub(r"\s+", " ", str(value))[:60]
