"""``recovery``: how soon a champion is good again after the demo's drift, and how often it is replaced for nothing.

A seed is a simulated world of the reference model, taken in by the real ingest and features steps, in which amounts
double. Its nights go through the product's governor, windows, learner, comparison and looks, with the parameters of the
spec instead of a search and without Airflow, MLflow and pages; the monitor is stood for by its signal: drift from the
first day on until the champion is replaced. What a seed gave is kept in ``var/bench-recovery``, and a second call goes
on from there. The worlds without a change are of scores alone: pairs of equally good models, at each look new ones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from bench.figures import Figure, Limit, say
from windsock.dataset.assemble import assemble, pin
from windsock.dataset.requests import run_request, trainer_request
from windsock.dataset.step import with_overrides
from windsock.dataset.time_split import Windows, windows_of
from windsock.days import day_range
from windsock.features.feature_tables import feature_tables
from windsock.features.frame import feature_names
from windsock.featurestore.retrieval import training_frame
from windsock.gate.compare import compare
from windsock.gate.sequential import next_level, take_look
from windsock.governor.episode import Signal
from windsock.governor.policy import Answer, decide
from windsock.ledger import Ledger
from windsock.served.metrics import evaluate
from windsock.served.model import Model, load_files
from windsock.served.resampling import ClusteredRows, clustered_rows
from windsock.settings import REPO_ROOT, Settings
from windsock.spec import ModelSpec, get_spec
from windsock.steps import run_step
from windsock.store import Store
from windsock.trainers.learn import chosen_of, learn, search_of

KEPT = REPO_ROOT / "var" / "bench-recovery"
_MODEL, _FIRST = "fraud", date(2026, 3, 1)
_DRIFT, _AFTER, _BEFORE = 66, 24, 24
_LEVEL = range(14, 21)
"""Days after the drift whose mean average precision is a model's level in the new world."""
_GOOD = 0.9

Days = tuple[int, int]
"""First and last day that a model learnt from, counted from the drift."""


@dataclass
class Course:
    """What was in force day by day under one rule."""

    in_force: dict[int, Days]
    """Day to what scores from then on."""
    looks: list[dict[str, Any]] = field(default_factory=list)
    told: int | None = None
    """Night on which people hear of the drift."""

    def on(self, day: int) -> Days:
        """Return what scores a day."""
        return self.in_force[max(first for first in self.in_force if first <= day)]


class Seed:
    """One world, and what models make of it."""

    def __init__(self, seed: int) -> None:
        self.home = KEPT / str(seed)
        folder = self.home / "models" / _MODEL
        if not folder.exists():
            shutil.copytree(REPO_ROOT / "include" / "models" / _MODEL, folder)
            raw = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
            drift = {"kind": "amounts", "from_day": str(_FIRST + timedelta(days=_DRIFT)), "size": 2.0}
            raw |= {"first_day": str(_FIRST), "source": {"kind": "simulator", "seed": seed, "drift": [drift]}}
            (folder / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        variables = {"WINDSOCK_HOME": str(self.home), "WINDSOCK_MODELS": str(self.home / "models")}
        self.settings = Settings.from_env(variables)
        raw_spec = get_spec(self.settings, _MODEL)
        trees = next(e for e in raw_spec.training.estimators if e.kind == "lightgbm")
        # After a drift the shortest of several windows is taken.
        one = {"estimators": (trees,), "window_days": raw_spec.training.shortest_window, "windows": ()}
        training = raw_spec.training.model_copy(update=one)
        self.spec = raw_spec.model_copy(update={"training": training})
        self.drift: date = self.spec.source.drift[0].from_day  # type: ignore[union-attr]
        self._models: dict[Days, Model] = {}
        self._values: dict[tuple[Days, int], float] = {}

    @cached_property
    def rows(self) -> pa.Table:
        """Every labelled row of the days that matter, with its features; made once."""
        file = self.home / "rows.parquet"
        if not file.exists():
            last = self.drift + timedelta(days=_AFTER - 1)
            taken = Ledger.of(self.settings, _MODEL, "ingest")
            featured = feature_tables(self.spec)[-1].ledger(Store.of(self.settings))
            for step, ledger in (("ingest", taken), ("features", featured)):
                say(f"recovery: {step} of seed {self.home.name}")
                for day in sorted({*day_range(_FIRST, last)} - {*ledger.days()}):
                    run_step(step, model=_MODEL, key=str(day), live=False, settings=self.settings)
            first, delay = self.drift - timedelta(days=_BEFORE), timedelta(days=self.spec.label.delay_days + 1)
            learnt = tuple(day_range(first - timedelta(days=5), first - timedelta(days=1)))
            windows = Windows(last + delay, learnt, (), tuple(day_range(first, last)), recovery=True)
            join = partial(training_frame, self.settings, self.spec)
            made = assemble(self.settings, self.spec, windows, pin(self.settings, self.spec, windows), join)
            pq.write_table(made.holdout, file)
        return pq.read_table(file)

    @cached_property
    def _day(self) -> Any:
        return pc.cast(self.rows["event_timestamp"], pa.date32()).to_numpy()

    def part(self, days: Days) -> pa.Table:
        """Return the rows of some days."""
        first, last = (np.datetime64(self.drift + timedelta(days=n)) for n in days)
        return self.rows.filter(pa.array((self._day >= first) & (self._day <= last)))

    def model(self, days: Days) -> Model:
        """Return a model that has learnt from some days."""
        if days not in self._models:
            table, estimator, names = self.part(days), self.spec.training.estimators[0], feature_names(self.spec)
            learnt = day_range(*(self.drift + timedelta(days=n) for n in days))
            rows = {"path": "train.parquet", "sha256": "", "rows": table.num_rows, "format": "parquet"}
            request = trainer_request(run_request(self.spec, names, learnt), "bench", estimator, rows)
            fixed = {"params": dict(estimator.params), "rounds": estimator.rounds, "trial": 0}  # type: ignore[union-attr]
            files = learn(search_of(request, table), chosen_of({"chosen": fixed})).files
            self._models[days] = load_files(dict(files).__getitem__, "bench")
        return self._models[days]

    def value(self, days: Days, on: int) -> float:
        """Return the average precision of a model on a day."""
        if (days, on) not in self._values:
            table = self.part((on, on))
            found = evaluate(self.spec, table, self.model(days).predict(table))["metrics"]["average_precision"]
            self._values[days, on] = float(found or 0.0)
        return self._values[days, on]

    def level(self, days: Days) -> float:
        """Return a model's level in the new world."""
        return float(np.mean([self.value(days, n) for n in _LEVEL]))

    def better(self, challenger: Days, champion: Days, holdout: Days, **how: float) -> tuple[float, float]:
        """Return the lower bound of a challenger's advantage on some days, and the advantage."""
        table = self.part(holdout)
        rows, counted = clustered_rows(self.spec, table)
        scores = (self.model(days).predict(table)[counted] for days in (challenger, champion))
        found = compare(self.spec, rows, *scores, **{"margin": 0.0, **how})  # type: ignore[arg-type]
        return found.lower, found.advantage

    def relative(self, days: tuple[date, ...]) -> Days:
        """Return days as counted from the drift."""
        return (days[0] - self.drift).days, (days[-1] - self.drift).days


_OLD: Days = (-_BEFORE, -_BEFORE + 6)
"""What the champion of before the drift has learnt from."""


def recovered(world: Seed, *, refit: bool) -> Course:
    """Live through the nights after the drift by the governor and the looks."""
    spec, course, twin = world.spec, Course({-_BEFORE: _OLD}), {_OLD: _OLD}
    store = Store(str(world.home / f"looks-{refit}"))
    shutil.rmtree(store.root, ignore_errors=True)
    signals, requests, answers, names = [], dict[date, str](), dict[str, Answer](), {_OLD: "1"}
    for night in range(_AFTER):
        day, champion = world.drift + timedelta(days=night), course.on(night)
        since = max(first for first in course.in_force if first <= night)
        measured = champion != _OLD and night - spec.label.delay_days >= since
        value = world.value(champion, night - spec.label.delay_days) if measured else None
        promised = world.value(_OLD, -1)
        signals.append(Signal(day, names[champion], drifted=champion == _OLD, value=value, promised=promised))
        decision = decide(spec, signals[-1], signals, requests, answers)
        if course.told is None and decision.numbers.get("signals", 0) >= spec.retraining.needed:
            course.told = night
        if decision.action != "retrain" or decision.dedupe_key is None:
            continue
        key = requests[day] = decision.dedupe_key
        windows = windows_of(with_overrides(spec, {"recovery": str(decision.recovery), "as_of": str(day)}), day)
        challenger, holdout = world.relative(windows.train), world.relative(windows.holdout)
        judged = champion if champion[1] < holdout[0] else twin[champion]
        answers[key] = Answer("refused", f"{day}", str(night))
        if challenger == judged:  # equal files: nothing is compared
            continue
        subject = {"request": key, "version": str(night), "model_hash": str(challenger), "champion": names[champion]}
        look = take_look(store, _MODEL, subject, error_rate=spec.gate.recovery_error_rate, most=99)
        assert look is not None
        lower, advantage = world.better(challenger, judged, holdout, confidence=1 - look.level)
        passed = lower > 0 and advantage >= spec.gate.margin
        course.looks.append({"night": night, "level": look.level, "lower": lower, "advantage": advantage, "ok": passed})
        if passed:
            new = world.relative(windows.refit(spec.training.window_days).train) if refit else challenger
            twin[new], names[new] = challenger, str(night)
            course.in_force[night + 1] = new
            answers[key] = Answer("promoted", f"{day}", str(night), day + timedelta(days=1))
    return course


def once_and_late(world: Seed) -> Course:
    """Live through them by the rule of before: one usual training, when its window holds three new days."""
    spec, course = world.spec, Course({-_BEFORE: _OLD})
    night = spec.label.delay_days + spec.training.holdout_days + spec.gap_days + 3 - 1
    windows = windows_of(spec, world.drift + timedelta(days=night))
    challenger, holdout = world.relative(windows.train), world.relative(windows.holdout)
    if world.better(challenger, _OLD, holdout, margin=spec.gate.margin)[0] > -spec.gate.margin:
        course.in_force[night + 1] = challenger
    return course


def bound(world: Seed) -> Course:
    """Put in force every day what all matured days teach."""
    delay, window = world.spec.label.delay_days, world.spec.training.window_days
    return Course({-_BEFORE: _OLD} | {n + 1: (n - delay - window + 1, n - delay) for n in range(delay, _AFTER - 1)})


def lived(seed: int) -> dict[str, Any]:
    """Return what each rule made of a seed; kept, so that it is found again."""
    file = KEPT / f"{seed}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    world = Seed(seed)
    best = world.level((0, 6))
    rules = {"before": once_and_late(world), "now": recovered(world, refit=False)}
    rules |= {"now, refit": recovered(world, refit=True), "bound": bound(world)}
    result: dict[str, Any] = {"seed": seed, "attainable": best, "rules": {}}
    for name, course in rules.items():
        share = {first: world.level(days) / best for first, days in course.in_force.items()}
        back = next((n for n in sorted(share) if all(share[m] >= _GOOD for m in share if m >= n)), None)
        by_day = [round(world.value(course.on(n), n), 4) for n in range(-3, _AFTER - 1)]
        result["rules"][name] = {"back_on_day": back, "by_day": by_day, "told": course.told, "looks": course.looks}
    file.write_text(json.dumps(result, indent=1))
    return result


def replaced_for_nothing(spec: ModelSpec, worlds: int, looks: int = 10) -> int:
    """Count worlds without a change in which one of the looks promotes: 75 frauds each, clustered by customers."""
    rng, wrong = np.random.default_rng(17), 0
    for _ in range(worlds):
        spent = 0.0
        for _ in range(looks):
            level = next_level(spec.gate.recovery_error_rate, spent)
            cluster = np.unique(rng.integers(0, 540, 1200), return_inverse=True)[1]
            luck = rng.normal(size=(3, cluster.max() + 1))[:, cluster]
            truth = luck[0] + rng.normal(size=1200)
            label = np.zeros(1200)
            label[np.argsort(-(truth + 0.7 * rng.normal(size=1200)))[:75]] = 1
            rows = ClusteredRows(label, np.zeros(1200, dtype=np.intp), cluster, cluster, "customer")
            one, other = (truth + 0.5 * luck[n] + 0.5 * rng.normal(size=1200) for n in (1, 2))
            found = compare(spec, rows, one, other, margin=0.0, confidence=1 - level)
            if found.lower > 0 and found.advantage >= spec.gate.margin:
                wrong += 1
                break
            spent += level
    return wrong


def run(spec: ModelSpec, seeds: range, worlds: int) -> Iterator[Figure]:
    """Live through each seed, and through worlds in which nothing changes."""
    wrong, rate = replaced_for_nothing(spec, worlds), spec.gate.recovery_error_rate
    what = f"share of {worlds} worlds without a change in which a champion is replaced"
    yield Figure("recovery", what, wrong / worlds, Limit("the stated rate", rate, "share"), unit="share")
    KEPT.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        found: Mapping[str, Any] = lived(seed)
        of = {name: rule["back_on_day"] for name, rule in found["rules"].items()}
        context = {"attainable": found["attainable"], "told": found["rules"]["now"]["told"], **of}
        what = f"seed {seed}: days after the drift until a champion is within 10 % of what is attainable. Aim: 14"
        limit = Limit("refitting every day on all matured days", of["bound"] or 0, "days")
        yield Figure("recovery", what, of["now, refit"] or float("nan"), limit, unit="days", context=context)
