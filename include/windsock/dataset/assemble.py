"""The training set: events with features and labels, as a training on day T could know them.

It is a function of pins alone (see ``Ledger.pins``): same pins, same bytes, whatever has been ingested since.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from windsock import tables
from windsock.completeness import FEATURES, settled_days
from windsock.dataset.columns import gaps_between, require_no_gaps
from windsock.dataset.feature_join import join_features, reach
from windsock.dataset.label_join import attach_labels, known_when_made, mark_known_positives
from windsock.dataset.lacking import lacking, require_none
from windsock.dataset.time_split import Windows
from windsock.days import day_range, last_instant, spans, start_of
from windsock.errors import DataContractError, SpecError
from windsock.features.definition_checks import refuse_faulty
from windsock.features.feature_tables import feature_tables, settled_features
from windsock.features.frame import event_frame, feature_names
from windsock.ledger import DayRecord, Ledger
from windsock.served.metrics import KNOWN_POSITIVE, SCORE, TIME
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.columns import KNOWN_AT
from windsock.store import Store

log = logging.getLogger(__name__)

Pins = Mapping[str, Mapping[str, str]]
"""Ledger stage to day to content hash."""
FeatureJoin = Callable[[pa.Table, Pins], pa.Table]
"""Adds view features to rows, from pinned days of their tables."""


@dataclass(frozen=True)
class TrainingSet:
    """What a trainer gets."""

    train: pa.Table
    """Key, ``event_timestamp``, columns of the evaluation, features in model order, label."""
    holdout: pa.Table
    """The same columns, and ``known_positive`` if the spec excludes known positives."""
    features: tuple[str, ...]
    report: dict[str, Any]
    """Counts: rows, positives, what was left out and why."""
    older: pa.Table | None = None
    """Rows before the window, on which alone its lengths are compared."""

    @property
    def learnable(self) -> pa.Table:
        """Rows that a search may learn from, those before the window first."""
        return self.train if self.older is None else pa.concat_tables([self.older, self.train]).combine_chunks()


def pin(settings: Settings, spec: ModelSpec, windows: Windows) -> dict[str, dict[str, str]]:
    """Fix the versions of all days that a training reads, once they are settled.

    Raises:
        NotReady: Some of the days are still missing; the message lists them.
        SpecError: A view looks ahead, or may not be computed for another reason that was found.
    """
    first, last = windows.days[0], windows.holdout[-1]
    settled_days(settings, spec, "ingest", first, last)
    used = feature_tables(spec)
    refuse_faulty(Store.of(settings), spec.name, used)
    require_no_gaps(spec, gaps_between(settings, spec, first, last))
    require_none(spec, lacking(settings, spec, reach(spec, first), last))
    settled_features(settings, spec, first, last)  # those that cannot be computed yet
    # Rows that find no features in these days may reach back to older ones.
    since = {"ingest": first, **dict.fromkeys((table.name for table in used), reach(spec, first))}
    pins = {s: Ledger.of(settings, spec.name, s).pins(day_range(d, last)) for s, d in since.items()}
    if spec.label.files is not None:
        pins["labels"] = Ledger.of(settings, spec.name, "labels").pins(day_range(first, windows.as_of))
    return pins


def assemble(settings: Settings, spec: ModelSpec, windows: Windows, pins: Pins, join: FeatureJoin) -> TrainingSet:
    """Make the training set from pinned days.

    Raises:
        SpecError: The gap is too short for the labels, or a feature is one of the answer's columns.
        DataContractError: No row is left, labels come later than they should, or there is one class only.
    """
    store = Store.of(settings)
    names = feature_names(spec)
    _refuse_the_answer(spec, names)
    records = Ledger.of(settings, spec.name, "ingest").pinned(pins["ingest"])
    label_records = records
    if spec.label.files is not None:
        label_records = Ledger.of(settings, spec.name, "labels").pinned(pins["labels"])
    labels = tables.read_labels(store, spec, label_records.values())
    known_by = last_instant(windows.as_of)

    learnt = (*windows.older, *windows.train)
    frame, holdout_frame = (_frame(store, spec, records, days) for days in (learnt, windows.holdout))
    # By the time of training, with the first time each label was known: tells what came too late.
    ever = attach_labels(spec, frame, _first_known(spec, labels), known_by)
    train, late = known_when_made(spec, ever, windows)
    # Training rows get the labels of the moment at which the model would have been made.
    train = attach_labels(spec, train.drop_columns([spec.label.column, KNOWN_AT]), labels, windows.made_at)
    holdout = attach_labels(spec, holdout_frame, labels, known_by)
    _require_rows(spec, windows, train, holdout)

    feature_pins = [stage for stage in pins if stage.partition("/")[0] == FEATURES]

    def from_day(part: pa.Table, first: date) -> pa.Table:
        return join(part, {n: {ds: h for ds, h in pins[n].items() if ds >= first.isoformat()} for n in feature_pins})

    both = pa.concat_tables([part.drop_columns([KNOWN_AT]) for part in (train, holdout)])
    wanted = dict.fromkeys([spec.events.key, TIME, *_evaluation_columns(spec), *names, spec.label.column])
    both = join_features(spec, both, windows.days[0], from_day).select(list(wanted)).combine_chunks()
    sets = {"train": both.slice(0, train.num_rows), "holdout": both.slice(train.num_rows)}
    entity = spec.training.evaluation.exclude_known_positives
    if entity is not None and spec.label.task == "binary":
        key, time = spec.events.key, spec.events.time
        events = tables.read_events(store, spec, records.values(), list(dict.fromkeys([key, time, entity])))
        past = pa.table({key: events[key], TIME: events[time], entity: events[entity]})
        history = attach_labels(spec, past, labels, known_by)
        sets["holdout"] = mark_known_positives(spec, sets["holdout"], history, windows.known_since)
    older = None
    if windows.older:
        before = pc.sum(pc.less(sets["train"][TIME], pa.scalar(start_of(windows.train[0]), pa.timestamp("us")))).as_py()
        sets["older"], sets["train"] = sets["train"].slice(0, before), sets["train"].slice(before)
        older = sets["older"]
    without_rows = [d for d in windows.days if d in records and records[d].rows("events") == 0]
    report: dict[str, Any] = {
        "rows": {name: rows.num_rows for name, rows in sets.items()},
        "unlabelled": {
            "train": frame.num_rows - ever.num_rows,
            "holdout": holdout_frame.num_rows - holdout.num_rows,
        },
        "labels_too_late": late,
        "days_without_rows": [d.isoformat() for d in without_rows],
        "warm_up_days_left_out": [d.isoformat() for d in windows.warm_up],
    }
    if end_of_day := spec.features.as_of_end_of_day:
        report["as_of_end_of_day"] = list(end_of_day)
        log.warning("%s: features of %s are as of the end of the day: rows know what came later", spec.name, end_of_day)
    if spec.label.task == "binary":
        report["positives"] = {n: int(pc.sum(rows[spec.label.column]).as_py() or 0) for n, rows in sets.items()}
    return TrainingSet(sets["train"], sets["holdout"], tuple(names), report, older)


def _first_known(spec: ModelSpec, labels: pa.Table) -> pa.Table:
    key, label = spec.events.key, spec.label.column
    first = labels.group_by([key, "event_time"], use_threads=False).aggregate([(KNOWN_AT, "min"), (label, "first")])
    return first.rename_columns({f"{KNOWN_AT}_min": KNOWN_AT, f"{label}_first": label})


def _frame(store: Store, spec: ModelSpec, records: Mapping[date, DayRecord], days: tuple[date, ...]) -> pa.Table:
    """List the events of some days with row features and every column that evaluation needs."""
    chosen = [records[d] for d in days if d in records]
    frame = event_frame(store, spec, chosen)
    absent = [c for c in _evaluation_columns(spec) if c not in frame.column_names]
    if not absent:
        return frame
    events = tables.read_events(store, spec, chosen, absent)
    for name in absent:  # the frame has the events' rows in the events' order
        frame = frame.append_column(name, events[name])
    return frame


def _evaluation_columns(spec: ModelSpec) -> list[str]:
    evaluation = spec.training.evaluation
    columns = [*sorted(set(spec.entities.values())), evaluation.alert_entity, evaluation.exclude_known_positives]
    return [c for c in dict.fromkeys(columns) if c is not None]


def _refuse_the_answer(spec: ModelSpec, names: list[str]) -> None:
    """Refuse inputs that are the answer, or that only say which row it is."""
    reserved = {
        spec.label.column: "the label",
        spec.events.key: "the key",
        spec.events.time: "the event time",
        TIME: "the event time",
        KNOWN_AT: "when something became known",
        KNOWN_POSITIVE: "made from labels",
        SCORE: "the prediction",
    }
    wrong = {name: reserved[name] for name in names if name in reserved}
    wrong |= {name: reserved[sql.strip()] for name, sql in spec.features.row.items() if sql.strip() in reserved}
    if wrong:
        faults = "; ".join(f"{name!r} is {what}" for name, what in sorted(wrong.items()))
        raise SpecError(
            f"{spec.name}: a feature must say something about the event that holds for later ones too, but {faults}. "
            "Remove it from features.row or from the view's SQL; of times, take parts such as hour(...)."
        )


def _require_rows(spec: ModelSpec, windows: Windows, train: pa.Table, holdout: pa.Table) -> None:
    for name, rows, days in (
        ("to learn from", train, (*windows.older, *windows.train)),
        ("to be judged on", holdout, windows.holdout),
    ):
        if rows.num_rows == 0:
            raise DataContractError(
                f"{spec.name}: training as of {windows.as_of} finds no labelled row {name} in {spans(days)}. "
                f"Look at the ingest records and quarantine of these days, and whether labels arrive within "
                f"{spec.label.delay_days} days."
            )
    if spec.label.task == "binary":
        classes = train[spec.label.column].unique().to_pylist()
        if sorted(classes) != [0, 1]:
            raise DataContractError(
                f"{spec.name}: all {train.num_rows} labelled rows of the training days {spans(windows.train)} have "
                f"{spec.label.column} = {classes[0]}; a binary model needs both classes. "
                "Lengthen training.window_days, or choose another as_of."
            )
