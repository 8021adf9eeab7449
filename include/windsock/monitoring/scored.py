"""What is known at the end of a day of the days before it: who scored their rows, and which labels have arrived.

Only labels that were known by then count, so a replay a year later finds the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from windsock import tables
from windsock.dataset.feature_join import join_features
from windsock.dataset.label_join import labelled, mark_known_positives, with_labels
from windsock.days import ONE_DAY, last_instant
from windsock.features.feature_tables import settled_features
from windsock.features.frame import event_frame
from windsock.features.frozen import spec_of_version
from windsock.featurestore.retrieval import point_in_time
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import Promotion, history
from windsock.registry.versions import load_version
from windsock.row_places import places_of
from windsock.runs.run_folder import LINEAGE, MODEL, RunFolder
from windsock.served.metrics import SCORE, TIME
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

VERSION = "model_version"


@dataclass(frozen=True)
class Past:
    """The days that a night judges, and those before them that say who was known to be positive."""

    settings: Settings
    spec: ModelSpec
    day: date
    """Labels count that were known at its end."""
    since: date
    first: date
    """First day judged."""
    ingested: Mapping[date, DayRecord]
    events: pa.Table
    """Key, event time and entities of every event from ``since`` to ``day``."""
    labels: pa.Table

    @classmethod
    def of(cls, settings: Settings, spec: ModelSpec, day: date) -> Self:
        """Read what a night's judgement needs."""
        store, evaluation, key, time = Store.of(settings), spec.training.evaluation, spec.events.key, spec.events.time
        first = day - timedelta(days=spec.label.delay_days + spec.monitoring.performance_days - 1)
        # As far back before the rows as the training window lies before the holdout that this is compared with.
        since = max(first - timedelta(days=spec.training.window_days + spec.gap_days), spec.first_day)
        ingested = Ledger.of(settings, spec.name, "ingest").between(since, day)
        extra = [c for c in (evaluation.alert_entity, evaluation.exclude_known_positives, *spec.entities.values()) if c]
        events = tables.read_events(store, spec, ingested.values(), list(dict.fromkeys([key, time, *extra])))
        # The event time's own column may have the name of one that is added.
        events = pa.table({key: events[key], TIME: events[time], **{c: events[c] for c in extra}})
        labelled: Mapping[date, DayRecord] = ingested
        if spec.label.files is not None:  # stored by day of delivery
            labelled = Ledger.of(settings, spec.name, "labels").between(since, day)
        return cls(
            settings, spec, day, since, first, ingested, events, tables.read_labels(store, spec, labelled.values())
        )

    @property
    def matured(self) -> date:
        """The last day whose labels are in, by the delay that the spec states."""
        return self.day - timedelta(days=self.spec.label.delay_days)

    @cached_property
    def days(self) -> NDArray[np.datetime64]:
        """The day of every event, shape ``(events,)``."""
        return np.asarray(self.events[TIME].cast(pa.timestamp("us")), "datetime64[D]")

    @cached_property
    def rows(self) -> pa.Table:
        """The events from ``first`` on, with the label if it is known, and ``known_at``.

        Also with ``known_positive`` if the spec's protocol leaves such out.
        """
        events = with_labels(self.spec, self.events, self.labels, last_instant(self.day))
        rows = events.filter(pa.array(self.days >= np.datetime64(self.first)))
        if self.spec.training.evaluation.exclude_known_positives is None or self.spec.label.task != "binary":
            return rows
        return mark_known_positives(self.spec, rows, labelled(events), self.since)

    @cached_property
    def scored(self) -> pa.Table:
        """Of :attr:`rows` those that a champion of some day scored in production, with ``score`` and its version."""
        runs = {entry.version: entry.run for entry in history(self.settings, self.spec)}
        records = Ledger.of(self.settings, self.spec.name, "score").between(self.first, self.day)
        return _with_scores(Store.of(self.settings), self.spec, self.rows, records.values(), runs)

    def labelled(self, rows: pa.Table) -> pa.Table:
        """Return those of the rows whose day has matured and whose label is known."""
        end = pa.scalar(last_instant(self.matured), pa.timestamp("us"))
        return labelled(rows.filter(pc.less_equal(rows[TIME].cast(pa.timestamp("us")), end)))


def _with_scores(
    store: Store, spec: ModelSpec, rows: pa.Table, records: Iterable[DayRecord], runs: Mapping[str, str]
) -> pa.Table:
    key = spec.events.key
    given = tables.read(store, records, "predictions", [key, "event_time", SCORE, VERSION])
    if given is None:
        given = pa.table({key: rows[key][:0], "event_time": rows[TIME][:0], SCORE: [], VERSION: []})
    given = given.filter(pc.is_in(given[VERSION].cast(pa.string()), value_set=pa.array(sorted(runs), pa.string())))
    place = places_of([rows[key], rows[TIME]], [given[key], given["event_time"]])
    found, at = rows.filter(place.is_valid()), place.drop_null().combine_chunks().cast(pa.int64())
    found = found.append_column(SCORE, given[SCORE].cast(pa.float64()).take(at))
    return _not_learnt_from(store, spec, found.append_column(VERSION, given[VERSION].cast(pa.string()).take(at)), runs)


def _not_learnt_from(store: Store, spec: ModelSpec, rows: pa.Table, runs: Mapping[str, str]) -> pa.Table:
    """Keep the rows of days after those that their version learnt from, as those it was asked to score again may be."""
    if not rows.num_rows:
        return rows
    keep, days = np.ones(rows.num_rows, bool), np.asarray(rows[TIME].cast(pa.timestamp("us")), "datetime64[D]")
    for version in pc.unique(rows[VERSION]).to_pylist():
        last = RunFolder.named(store, spec.name, runs[version]).last_learnt
        if last is not None and days.min() <= np.datetime64(last):
            keep &= (days > np.datetime64(last)) | np.asarray(pc.not_equal(rows[VERSION], version))
    return rows.filter(pa.array(keep))


def judged_from(store: Store, spec: ModelSpec, champion: Promotion) -> date:
    """Return the first day that can say something new of a champion: the one after its holdout.

    It learnt from days before its holdout, and what it reached there is the promise itself; a refit learnt from those
    of its judged twin's holdout, too.
    """
    lineage = ("runs", spec.name, champion.run, LINEAGE)
    if not store.exists(*lineage):
        return champion.as_of + ONE_DAY
    holdout = RunFolder.named(store, spec.name, champion.run).read_json(LINEAGE)["windows"]["holdout"]
    return date.fromisoformat(holdout[-1]) + ONE_DAY


def scored_by(past: Past, champion: Promotion) -> tuple[pa.Table | None, list[date]]:
    """Return the judged events with the champion's scores: its own where it scored them, given anew where it did not.

    Returns:
        The rows from the day after its holdout up to the last matured one, and the days that it scored anew. None: its
        model is not in the store any more.

    Raises:
        NotReady: Features by its definitions are missing on one of the days.
    """
    settings, spec, store = past.settings, past.spec, Store.of(past.settings)
    first = max(past.first, judged_from(store, spec, champion))
    own = past.scored.filter(pc.equal(past.scored[VERSION], champion.version))
    by_itself = set(np.asarray(own[TIME].cast(pa.timestamp("us")), "datetime64[D]").tolist())
    anew = {d: r for d, r in past.ingested.items() if first <= d <= past.matured and d not in by_itself and r.outputs}
    parts = [own.filter(pc.greater_equal(own[TIME].cast(pa.date32()), pa.scalar(first, pa.date32())))]
    if anew:
        if not store.files("runs", spec.name, champion.run, MODEL):
            return None, []
        as_it_was = spec_of_version(settings, spec, champion.version)
        frame = event_frame(store, as_it_was, anew.values(), for_champion=True)

        def join(rows: pa.Table, oldest: date) -> pa.Table:
            features = settled_features(settings, as_it_was, oldest, max(anew))
            return point_in_time(store, as_it_was, rows, features)

        frame = join_features(as_it_was, frame, min(anew), join)
        scores = load_version(settings, spec, champion.version).predict(frame)
        key = spec.events.key
        place = places_of([past.rows[key], past.rows[TIME]], [frame[key], frame[TIME]])
        rows, at = past.rows.filter(place.is_valid()), place.drop_null().combine_chunks().cast(pa.int64())
        rows = rows.append_column(SCORE, pa.array(scores, pa.float64()).take(at))
        parts.append(rows.append_column(VERSION, pa.array([champion.version] * len(rows), pa.string())))
    return pa.concat_tables(parts).combine_chunks(), sorted(anew)
