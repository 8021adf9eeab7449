"""Worlds that stay as they are for 90 nights, and the changes that are planted in them.

A world is a spec, and events with labels made from a seed. Features are the spec's own SQL, run once over all days:
every window of it ends by itself, so that gives what day by day gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from windsock.column_types import arrow_schema
from windsock.days import day_range
from windsock.features.sql_rules import row_sql
from windsock.features.view_sql import create_tables, entity_column, plain_types, view_schema
from windsock.ingest.sources import simulator
from windsock.served.metrics import TIME
from windsock.settings import REPO_ROOT
from windsock.spec import ModelSpec
from windsock.spec.columns import KNOWN_AT, event_columns, event_known_at, label_columns
from windsock.spec.load import load_spec, read_yaml
from windsock.spec.sources import Drift, SimulatorSource
from windsock.sql import open_duckdb, query_text, quoted

FIRST_DAY = date(2026, 1, 5)
"""A Monday."""
NIGHTS = 90
LABEL_DELAY = 7
SHOPS = 12
COLUMNS = 500
A_DAY = 400

_DAY_US = 86_400_000_000

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """What has happened in a world."""

    events: pa.Table
    labels: pa.Table


@dataclass(frozen=True)
class World:
    """A world of one kind."""

    name: str
    spec: ModelSpec
    make: Callable[[int, int], Data]
    """From a seed and a number of days to what happened on them."""


def make_data(spec: ModelSpec, columns: Mapping[str, Any], label: NDArray[Any]) -> Data:
    """Make tables as ``ingest`` would; ``label`` and each column have one value a row."""
    time = pa.array(columns[spec.events.time], pa.timestamp("us"))
    known = pc.add(time, pa.scalar(timedelta(days=spec.label.delay_days), pa.duration("us")))
    key = {spec.events.key: columns[spec.events.key]}
    events = {**columns, spec.events.time: time, event_known_at(spec): time}
    labels = {**key, spec.label.column: label, "event_time": time, KNOWN_AT: known}
    return Data(_typed(events, event_columns(spec)), _typed(labels, label_columns(spec)))


def _typed(columns: Mapping[str, Any], types: Mapping[str, str]) -> pa.Table:
    return pa.table({name: columns[name] for name in types}).cast(arrow_schema(types.items()))


def features_of(spec: ModelSpec, data: Data, last: date) -> pa.Table:
    """Return a row for each event: key, ``event_timestamp``, entities and features, in order of time and key."""
    own = dict.fromkeys([spec.events.key, *spec.entities.values()])
    columns = [*(f"e.{quoted(c)}" for c in own), f"e.{quoted(spec.events.time)} as {TIME}"]
    columns += [f"e.{quoted(name)}" for name in spec.features.row]
    joins = ""
    for n, view in enumerate(spec.features.views):
        entity = entity_column(spec, view)
        assert entity is not None
        columns += [f"v{n}.{quoted(name)}" for name in view_schema(spec, view)]
        joins += (
            f" left join (select distinct * from ({query_text(spec.sql_of(view))}\n)) v{n}"
            f" on v{n}.{quoted(entity)} = e.{quoted(entity)} and v{n}.event_timestamp = e.{quoted(spec.events.time)}"
        )
    rows = ", ".join(f"({row_sql(spec, sql)}\n) as {quoted(name)}" for name, sql in spec.features.row.items())
    kept = dict.fromkeys([*own, spec.events.time])
    inner = f"select {', '.join(quoted(c) for c in kept if c not in spec.features.row)}, {rows} from events"
    with open_duckdb() as db:
        create_tables(db, spec, data.events, data.labels, last)
        order = f"e.{quoted(spec.events.time)}, e.{quoted(spec.events.key)}"
        return plain_types(
            db.sql(f"select {', '.join(columns)} from ({inner}) e{joins} order by {order}").to_arrow_table()
        )


def ordinals(times: pa.ChunkedArray | pa.Array) -> Whole:
    """Return the day of each time, counted from :data:`FIRST_DAY`."""
    days = np.asarray(times.cast(pa.timestamp("us")), "datetime64[D]").astype(np.int64)
    return days - (FIRST_DAY - date(1970, 1, 1)).days


# The handbook's payments.


def handbook(folder: Path, size: Mapping[str, int]) -> World:
    """The reference model's payments, by the simulator; ``size`` are its customers and terminals."""
    own = REPO_ROOT / "include" / "models" / "fraud"
    raw = read_yaml(own / "model.yaml")
    raw["first_day"] = FIRST_DAY.isoformat()
    trees = next(e for e in raw["training"].pop("estimators") if e["kind"] == "lightgbm")
    raw["training"]["estimator"] = {**trees, "trials": 1, "search": {}}
    spec = _spec(folder, raw, {path.name: path.read_text() for path in own.glob("*.sql")})

    def make(seed: int, days: int) -> Data:
        return paid(spec, simulated(seed, size), days)

    return World("handbook", spec, make)


def simulated(seed: int, size: Mapping[str, int], *drift: Drift) -> SimulatorSource:
    """Return the simulator of a size, drifted or not."""
    return SimulatorSource(kind="simulator", seed=seed, drift=drift, **size)


def paid(spec: ModelSpec, source: SimulatorSource, days: int, since: int = 0) -> Data:
    """Simulate payments of some days, counted from :data:`FIRST_DAY`; ``since`` is the first of them."""
    span = day_range(FIRST_DAY + timedelta(days=since), FIRST_DAY + timedelta(days=days - 1))
    rows = pa.concat_tables([simulator.transactions(source, FIRST_DAY, day) for day in span])
    columns = {name: rows[name] for name in spec.events.columns}
    return make_data(spec, columns, rows[spec.label.column].to_numpy())


def since_then(before: Data, after: Data, since: int, spec: ModelSpec) -> Data:
    """Take the days up to ``since`` of one and the others of the other."""
    parts = []
    for old, new, time in (
        (before.events, after.events, spec.events.time),
        (before.labels, after.labels, "event_time"),
    ):
        early = old.filter(pa.array(ordinals(old[time]) < since))
        parts.append(pa.concat_tables([early, new.filter(pa.array(ordinals(new[time]) >= since))]))
    return Data(*parts)


# Made-up worlds of shops.


def few_entities(folder: Path) -> World:
    """Twelve shops whose sizes wander, and features that look back a week."""
    spec = _spec(folder, _raw({"shop": "int64", "basket": "double"}, {"basket": "basket"}, view=True), _LATELY)

    def make(seed: int, days: int) -> Data:
        rng = np.random.default_rng([seed, 12])
        at, shop = _rows(rng, days)
        level = np.zeros((days, SHOPS))
        shocks = rng.normal(0, 0.2, (days, SHOPS))
        for day in range(1, days):
            level[day] = 0.7 * level[day - 1] + shocks[day]
        basket = np.exp(rng.normal(0, 0.4, SHOPS)[shop] + level[at, shop] + rng.normal(0, 0.6, len(at)))
        return make_data(spec, _own(rng, at, shop) | {"basket": basket}, _drawn(rng, np.log(basket), 0.2))

    return World("12 entities", spec, make)


def many_columns(folder: Path) -> World:
    """Five hundred columns, a few of which say something; one most of it."""
    names = [f"c{n}" for n in range(COLUMNS)]
    raw = _raw({"shop": "int64", **dict.fromkeys(names, "double")}, {n: n for n in names})
    spec = _spec(folder, raw, {})

    def make(seed: int, days: int) -> Data:
        rng = np.random.default_rng([seed, 500])
        at, shop = _rows(rng, days)
        values = rng.normal(size=(len(at), COLUMNS))
        values[:, ::10] += rng.normal(0, 0.3, (SHOPS, COLUMNS // 10))[shop]  # some belong to the shop
        means = 1.5 * values[:, 0] + 0.4 * values[:, 1] + 0.3 * values[:, 2]
        columns = {name: values[:, n] for n, name in enumerate(names)}
        return make_data(spec, _own(rng, at, shop) | columns, _drawn(rng, means, 0.2))

    return World("500 columns", spec, make)


def strong_week(folder: Path) -> World:
    """A week with a strong shape, and a holiday every third week that looks like a Sunday."""
    declared = {"shop": "int64", "basket": "double", "channel": "string", "items": "double"}
    raw = _raw(declared, {"basket": "basket", "channel": "channel", "items": "items"}, view=True)
    raw["training"] |= {"window_days": 28, "categorical": ["channel"]}
    spec = _spec(folder, raw, _LATELY)

    def make(seed: int, days: int) -> Data:
        rng = np.random.default_rng([seed, 7])
        sunday = (np.arange(days) % 7 == 6) | (np.arange(days) % 21 == 16)
        at, shop = _rows(rng, days, np.where(sunday, 0.5, 1.0))
        mean = np.array([0.0, 0.05, 0.1, 0.15, 0.4, 0.7, 1.0])[np.where(sunday[at], 6, at % 7)]
        basket = np.exp(rng.normal(0, 0.3, SHOPS)[shop] + mean + rng.normal(0, 0.5, len(at)))
        online = rng.random(len(at)) < np.where(sunday[at], 0.7, 0.4)
        channel = np.where(online, np.where(rng.random(len(at)) < 0.5, "app", "web"), "shop")
        items = rng.poisson(3, len(at)) + 1.0
        means = np.log(basket) + np.where(channel == "web", 1.5, 0.0) + 0.3 * items
        columns = {"basket": basket, "channel": channel, "items": items}
        return make_data(spec, _own(rng, at, shop) | columns, _drawn(rng, means, 0.2))

    return World("strong week", spec, make)


_LATELY = {
    "lately.sql": (
        "select shop, seen_at as event_timestamp, count(*) over w as n_7d, avg(basket) over w as mean_7d, "
        "max(basket) over w as max_7d from events window w as (partition by shop order by epoch_us(seen_at) "
        "range between 604799999999 preceding and current row)"
    )
}


def _raw(declared: Mapping[str, str], row: Mapping[str, str], *, view: bool = False) -> dict[str, Any]:
    views = [{"name": "lately", "entity": "shop", "sql": "lately.sql", "lookback_days": 7, "ttl_days": 14}]
    return {
        "name": "shops",
        "owner": "bench",
        "description": "Is this basket sent back?",
        "first_day": FIRST_DAY.isoformat(),
        "source": {"kind": "files", "url": "{ds}.parquet"},
        "events": {
            "time": "seen_at",
            "key": "event_id",
            "columns": {"event_id": "int64", "seen_at": "timestamp", **declared},
        },
        "entities": {"shop": "shop"},
        "label": {"column": "returned", "task": "binary", "delay_days": LABEL_DELAY},
        "features": {"row": dict(row), "views": views if view else []},
        "training": {
            "window_days": 14,
            "holdout_days": 7,
            "metric": "average_precision",
            "estimator": {"trials": 1, "rounds": 100, "params": {"num_leaves": 15}},
        },
        "gate": {"floors": {"average_precision": 0.2}},
    }


def _spec(folder: Path, raw: Mapping[str, Any], sql: Mapping[str, str]) -> ModelSpec:
    """Write a model's folder and read it."""
    own = folder / raw["name"]
    own.mkdir(parents=True)
    for name, text in sql.items():
        (own / name).write_text(text)
    (own / "model.yaml").write_text(yaml.safe_dump(dict(raw), sort_keys=False))
    return load_spec(own / "model.yaml")


def _rows(rng: np.random.Generator, days: int, share: Floats | None = None) -> tuple[Whole, Whole]:
    """Draw the day and the shop of rows."""
    at = np.repeat(np.arange(days), rng.poisson(A_DAY * (np.ones(days) if share is None else share)))
    return at, rng.integers(0, SHOPS, len(at))


def _own(rng: np.random.Generator, at: Whole, shop: Whole) -> dict[str, Any]:
    """Return key, time and shop of rows."""
    seen = np.datetime64(FIRST_DAY.isoformat(), "us") + np.sort(at * _DAY_US + rng.integers(0, _DAY_US, len(at)))
    return {"event_id": np.arange(len(at)), "seen_at": seen, "shop": shop}


def _drawn(rng: np.random.Generator, means: Floats, rate: float) -> Whole:
    """Draw labels, positive with about this rate, the likelier the larger the mean."""
    odds = 2.5 * (means - means.mean()) / means.std() + np.log(rate / (1 - rate)) - 1.0
    return (rng.random(len(means)) < 1 / (1 + np.exp(-odds))).astype(np.int64)
