"""A champion, and what the product's monitor and governor say of it night by night, without Airflow and pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.watch.worlds import FIRST_DAY, Data, World, features_of, ordinals
from windsock.dataset.label_join import attach_labels, mark_known_positives
from windsock.dataset.time_split import Windows, windows_of
from windsock.days import last_instant
from windsock.features.frame import feature_names
from windsock.governor.episode import Signal
from windsock.governor.policy import decide
from windsock.learners.booster import BoosterLearner
from windsock.learners.learner import Rows
from windsock.monitoring.arrivals import watch_labels
from windsock.monitoring.drift import Drift, find_drift
from windsock.monitoring.page import drift_sentence
from windsock.monitoring.performance import judge
from windsock.monitoring.promise import Promise
from windsock.monitoring.scored import VERSION, Past
from windsock.monitoring.window import samples_of
from windsock.runs.run_folder import HOLDOUT, HOLDOUT_SCORES, MODEL, RunFolder
from windsock.served.matrix import learn_features, to_matrix
from windsock.served.metrics import SCORE, TIME
from windsock.served.model import Model, load
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.estimators import LightGBMSpec
from windsock.store import Store
from windsock.trainers.choose_step import evaluate_model

CHAMPION = "1"
_RUN = "champion"


@dataclass(frozen=True)
class Champion:
    """A trained version, as the monitor knows it."""

    settings: Settings
    spec: ModelSpec
    windows: Windows
    model: Model
    reference: pa.Table
    weights: dict[str, float]
    promise: Promise

    @property
    def first_night(self) -> int:
        """The first night after its training, counted from :data:`FIRST_DAY`."""
        return number(self.windows.as_of) + 1


def number(day: date) -> int:
    """Count a day from :data:`FIRST_DAY`."""
    return (day - FIRST_DAY).days


def train_champion(world: World, data: Data, features: pa.Table, home: Path) -> Champion:
    """Train a version on the first days whose features are whole, by the product's windows and protocol."""
    spec, training = world.spec, world.spec.training
    lead = training.window_days + spec.gap_days + training.holdout_days + spec.label.delay_days
    windows = windows_of(spec, spec.first_warm_day + timedelta(days=lead - 1))
    known = attach_labels(spec, features, data.labels, last_instant(windows.as_of))
    if training.evaluation.exclude_known_positives is not None:
        known = mark_known_positives(spec, known, known, windows.train[0])
    day, names = ordinals(known[TIME]), feature_names(spec)
    learnt, held = (known.filter(pa.array(np.isin(day, [*map(number, d)]))) for d in (windows.train, windows.holdout))
    inputs = learn_features(learnt, names, training.categorical)
    estimator = training.estimators[0]
    assert isinstance(estimator, LightGBMSpec)
    learner = BoosterLearner(spec, estimator, inputs)
    answers = learnt[spec.label.column].to_numpy().astype(np.float64)
    trained = learner.train(learner.own_params(), Rows(to_matrix(learnt, inputs), answers, answers), estimator.rounds)
    settings = Settings.from_env({"WINDSOCK_HOME": str(home)})
    folder = RunFolder.named(Store.of(settings), spec.name, _RUN)
    for name, content in trained.files().items():
        folder.write_bytes(content, MODEL, name)
    model = load(folder.url(MODEL))
    judged = evaluate_model(spec, names, model, learnt, held)
    folder.write_table(held, HOLDOUT)
    folder.write_table(judged.holdout_scores, HOLDOUT_SCORES)
    folder.write_json(judged.metrics, "metrics.json")
    promise = Promise.of(Store.of(settings), spec, _RUN)
    return Champion(settings, spec, windows, model, judged.reference, judged.metrics["attribution"]["shares"], promise)


@dataclass(frozen=True)
class Night:
    """What one night says."""

    day: int
    drift: Drift
    degraded: bool
    concept: bool
    labels_alarm: bool
    said: str
    retrain: bool

    @property
    def alarm(self) -> bool:
        """Whether a person or the governor is told of anything."""
        return self.drift.drifted or self.degraded or self.labels_alarm or bool(self.drift.broken)

    @property
    def moved(self) -> set[str]:
        """The features called drifted."""
        return {name for name, found in self.drift.columns.items() if found["drifted"]}

    @property
    def broken(self) -> set[tuple[str, str]]:
        """The features called broken, and in what manner."""
        return {(each.column, each.what) for each in self.drift.broken}


@dataclass
class Watch:
    """Nights of one champion in one world, in order."""

    champion: Champion
    data: Data
    features: pa.Table
    history: list[Signal] = field(default_factory=list)
    requests: dict[date, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._day = ordinals(self.features[TIME])
        scores = self.champion.model.predict(self.features)
        self._rows = self.features.append_column(SCORE, pa.array(scores, pa.float64()))
        spec = self.champion.spec
        evaluation = spec.training.evaluation
        extra = (evaluation.alert_entity, evaluation.exclude_known_positives, *spec.entities.values())
        self._events = self._rows.select([spec.events.key, TIME, *dict.fromkeys(c for c in extra if c)])

    def night(self, at: int) -> Night:
        """Judge one night, counted from :data:`FIRST_DAY`."""
        champion, spec = self.champion, self.champion.spec
        day = FIRST_DAY + timedelta(days=at)
        drift = self._drift(at, day)
        found, labels, remark = self._performance(at, day)
        degraded = bool(found and found["degraded"]) and not labels["unfinished"] and not drift.broken
        judged = drift.judged or (bool(found and found["loss"] is not None) and not drift.broken)
        said = drift_sentence(CHAMPION, drift, champion.weights)
        moved = [c for c in drift.columns.values() if c["drifted"]]
        times = [c["value"] / c["threshold"] for c in moved if c["value"] and c["threshold"]]
        today = Signal(
            day, CHAMPION, drift.drifted, degraded, judged, said, len(moved), max(times, default=0.0),
            found["value"] if found and found["loss"] is not None else None, champion.promise.value,
        )  # fmt: skip
        decision = decide(spec, today, self.history, self.requests)
        self.history.append(today)
        retrain = decision.action == "retrain"
        if retrain and decision.dedupe_key is not None:
            self.requests[day] = decision.dedupe_key
        concept = degraded and drift.judged and not drift.drifted
        told = "; ".join(filter(None, [said, remark if degraded else None, labels["why"]]))
        return Night(at, drift, degraded, concept, bool(labels["alarm"]), told, retrain)

    def _drift(self, at: int, day: date) -> Drift:
        spec = self.champion.spec
        days = [day - timedelta(days=back) for back in range(spec.monitoring.window_days)][::-1]
        rng = np.random.default_rng([at, 3])
        recent = np.flatnonzero((self._day > at - len(days)) & (self._day <= at))
        drawn = np.sort(rng.choice(recent, min(len(recent), spec.monitoring.max_rows), replace=False))
        current = self._rows.take(pa.array(drawn))
        rows = samples_of(spec, days, current, self.champion.reference, self.champion.weights, rng)
        return find_drift(spec, rows, np.random.default_rng([day.toordinal(), 1]))

    def _performance(self, at: int, day: date) -> tuple[dict[str, Any] | None, dict[str, Any], str | None]:
        champion, spec = self.champion, self.champion.spec
        first = at - spec.label.delay_days - spec.monitoring.performance_days + 1
        since = max(first - spec.training.window_days - spec.gap_days, 0)
        within = (self._day >= since) & (self._day <= at)
        recent = [FIRST_DAY + timedelta(days=n) for n in (since, first)]
        labels = self.data.labels.filter(pa.array(_between(ordinals(self.data.labels["event_time"]), since, at)))
        past = Past(champion.settings, spec, day, recent[0], recent[1], {}, self._events.filter(within), labels)
        judged = within & (self._day >= first)
        rows = past.rows.append_column(SCORE, self._rows[SCORE].filter(pa.array(judged)))
        rows = rows.append_column(VERSION, pa.array([CHAMPION] * rows.num_rows, pa.string()))
        later = self._day[judged] > number(champion.windows.holdout[-1])  # what it reached there is the promise itself
        rng = np.random.default_rng([day.toordinal(), 2])
        finding, remark = judge(spec, past.labelled(rows.filter(pa.array(later))), {CHAMPION: champion.promise}, rng)
        return finding, watch_labels(past), remark


def _between(days: NDArray[np.int64], first: int, last: int) -> NDArray[np.bool_]:
    return (days >= first) & (days <= last)


def watch_of(champion: Champion, data: Data, last: int) -> Watch:
    """Return the watch over a world's data, its features made anew."""
    return Watch(champion, data, features_of(champion.spec, data, FIRST_DAY + timedelta(days=last)))
