"""Days of payments with the reference model's features, each computed once by the product's own SQL and kept."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.figures import say
from windsock.days import day_range
from windsock.features.frame import feature_names
from windsock.features.view_sql import compute_view, entity_column
from windsock.ingest.sources import simulator
from windsock.row_places import places_of
from windsock.served.metrics import TIME
from windsock.spec import ModelSpec
from windsock.spec.sources import SimulatorSource
from windsock.sql import open_duckdb, quoted

HANDBOOK = "transactions_2018-04-01_2018-08-14.parquet"
_SAY_EVERY = 20


def simulated(first: date, days: int, seed: int, customers: int, terminals: int) -> pa.Table:
    """Return payments of the handbook's process, drawn by the product's own simulator."""
    source = SimulatorSource(kind="simulator", seed=seed, customers=customers, terminals=terminals)
    last = first + timedelta(days=days - 1)
    return pa.concat_tables(simulator.transactions(source, first, day) for day in day_range(first, last))


def with_features(spec: ModelSpec, rows: pa.Table, kept: Path) -> pa.Table:
    """Return the rows with features and ``event_timestamp``, in order of time; days that lie in ``kept`` are read.

    Labels are known exactly ``label.delay_days`` after their event, as in the published protocol.
    """
    kept.mkdir(parents=True, exist_ok=True)
    time_of = rows[spec.events.time].cast(pa.timestamp("us"))
    dates = time_of.cast(pa.date32())
    first, last = pc.min(dates).as_py(), pc.max(dates).as_py()
    end_of_day = pc.add(pc.floor_temporal(time_of, unit="day"), pa.scalar(timedelta(days=1, microseconds=-1)))
    events = rows.select(list(spec.events.columns)).append_column("known_at", end_of_day)
    labels = pa.table(
        {
            spec.events.key: rows[spec.events.key],
            spec.label.column: rows[spec.label.column],
            "event_time": time_of,
            "known_at": pc.add(time_of, pa.scalar(timedelta(days=spec.label.delay_days))),
        }
    )
    made = []
    for number, day in enumerate(days := day_range(first, last)):
        file = kept / f"{day}.parquet"
        if not file.exists():
            if number % _SAY_EVERY == 0:
                say(f"features: {number} of {len(days)} days")
            since = datetime.combine(day - timedelta(days=spec.features.lookback_days), time())
            until = datetime.combine(day + timedelta(days=1), time())
            known = pc.and_(pc.greater_equal(time_of, since), pc.less(time_of, until))
            part = _of_day(spec, events.filter(known), labels.filter(known), day)
            pq.write_table(part, file.with_suffix(".part"))
            file.with_suffix(".part").rename(file)  # a bench that was ended finds whole days only
        made.append(pq.read_table(file))
    return pa.concat_tables(made).combine_chunks()


def _of_day(spec: ModelSpec, events: pa.Table, labels: pa.Table, day: date) -> pa.Table:
    key, clock = spec.events.key, spec.events.time
    row = ", ".join(f"{sql} as {quoted(name)}" for name, sql in spec.features.row.items())
    entities = ", ".join(quoted(column) for column in spec.entities.values())
    with open_duckdb() as db:
        db.register("events", events)
        frame = db.sql(
            f"select {quoted(key)}, {quoted(clock)} as {TIME}, {entities}, {row} from events "
            f"where cast({quoted(clock)} as date) = ? order by 2, 1",
            params=[day],
        ).to_arrow_table()
    for view in spec.features.views:
        found, entity = compute_view(spec, view, events, labels, day), str(entity_column(spec, view))
        at = places_of([frame[entity], frame[TIME]], [found[entity], found[TIME]])
        for name in (n for n in found.column_names if n not in (entity, TIME)):
            frame = frame.append_column(name, found[name].take(at))
    label = labels[spec.label.column].take(places_of([frame[key]], [labels[key]]))
    wanted = [key, TIME, *spec.entities.values(), *feature_names(spec)]
    return frame.select(list(dict.fromkeys(wanted))).append_column(spec.label.column, label)
