"""``walk``: what the models in force reach week by week, with one window or several, with and without a refit.

Walks forward over weeks that no model has seen: each week a challenger is trained as of its eve, judged against the
champion by the gate's own comparison, and who is in force scores the week. Everything is the product's own (windows,
folds, search, learner, refit, comparison), without Airflow, a store or MLflow. What is done is kept in ``var/walk``, so
that a bench that was ended goes on; remove the folder to begin anew.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import stats

from bench.figures import Figure, Limit, say
from bench.walk_days import HANDBOOK, simulated, with_features
from bench.world import Size
from windsock.dataset.label_join import mark_known_positives
from windsock.dataset.requests import run_request, trainer_request
from windsock.dataset.time_split import Windows, windows_of
from windsock.days import ONE_DAY, day_range
from windsock.errors import TooLittleHistory
from windsock.features.frame import feature_names
from windsock.gate.compare import compare
from windsock.runs.run_folder import OLDER
from windsock.served.metrics import TIME, evaluate
from windsock.served.model import Model, load_files
from windsock.served.resampling import clustered_rows
from windsock.settings import REPO_ROOT
from windsock.spec import ModelSpec, load_spec
from windsock.spec.modelling import TrainingSpec
from windsock.trainers.learn import chosen_of, learn, search_of

KEPT = REPO_ROOT / "var" / "walk"
WINDOWS: Mapping[str, tuple[int, ...]] = {"7 days": (), "7, 14 or 21 days": (7, 14, 21)}
"""Ways to choose the window: one length, as the default was, or several that are searched."""
_SEED = 0


@dataclass(frozen=True)
class Policy:
    """How it comes that a model is in force."""

    name: str
    window: str
    refit: bool
    gated: bool = True


FIRST_DEFAULT = Policy("7 days, gap, holdout, gate", "7 days", refit=False)
POLICIES = (
    FIRST_DEFAULT,
    Policy("with refit", "7 days", refit=True),
    Policy("windows searched", "7, 14 or 21 days", refit=False),
    Policy("windows searched, with refit", "7, 14 or 21 days", refit=True),
    Policy("7 days, everything promoted", "7 days", refit=False, gated=False),
    Policy("windows searched, with refit, everything promoted", "7, 14 or 21 days", refit=True, gated=False),
)


def run(size: Size) -> Iterator[Figure]:
    """Walk through each world there is, and compare the policies by their weeks."""
    found = {world.name: world.values() for world in _worlds(quick=size.days <= 10)}
    for policy in POLICIES:
        weeks = [(w, week) for w, values in found.items() for week in values[policy.name]]
        values = np.array([found[w][policy.name][week] for w, week in weeks])
        before = np.array([found[w][FIRST_DEFAULT.name][week] for w, week in weeks])
        better = values - before
        error = float(better.std(ddof=1) / math.sqrt(len(better))) if len(better) > 1 else math.nan
        lower = float(better.mean() - stats.t.ppf(0.9, max(len(better) - 1, 1)) * error)
        yield Figure(
            "walk",
            f"mean weekly average precision of the models in force: {policy.name}",
            float(values.mean()),
            Limit("a model that ranks every fraud first", 1.0, "average precision"),
            unit="average precision",
            context={
                "weeks": len(weeks),
                "weeks_of": {name: len(each[policy.name]) for name, each in found.items()},
                "better_than_first": float(better.mean()),
                "standard_error": error,
                "lower_90": lower,
                "weeks_better": int((better > 0).sum()),
            },
        )


def _worlds(*, quick: bool) -> Iterator[Walk]:
    if quick:
        yield Walk.simulated(days=80, customers=300, terminals=600, rounds=20, kept=KEPT / "quick")
        return
    data = Path(os.environ.get("WINDSOCK_SHARED_DATA") or REPO_ROOT.parent / "shared" / "data")
    if (data / "fraud_handbook" / HANDBOOK).exists():
        yield Walk.handbook(data / "fraud_handbook" / HANDBOOK)
    else:
        say(f"walk: the handbook's data is not in {data} (WINDSOCK_SHARED_DATA): simulated weeks alone")
    yield Walk.simulated(days=136, customers=5_000, terminals=10_000, rounds=200, kept=KEPT / "simulated")


@dataclass(frozen=True)
class Walk:
    """One world's weeks."""

    name: str
    spec: ModelSpec
    rows: pa.Table
    kept: Path

    @classmethod
    def handbook(cls, file: Path) -> Walk:
        """Return the walk over the handbook's published payments."""
        spec = _reference(date(2018, 4, 1), 200)
        return cls(
            "handbook", spec, with_features(spec, pq.read_table(file), KEPT / "handbook" / "days"), KEPT / "handbook"
        )

    @classmethod
    def simulated(cls, *, days: int, customers: int, terminals: int, rounds: int, kept: Path) -> Walk:
        """Return a walk over simulated payments."""
        first = date(2026, 1, 1)
        rows = simulated(first, days, _SEED, customers, terminals)
        spec = _reference(first, rounds)
        return cls("simulated", spec, with_features(spec, rows, kept / "days"), kept)

    @cached_property
    def dates(self) -> pa.ChunkedArray:
        """The day of each row."""
        return self.rows[TIME].cast(pa.date32())

    @cached_property
    def labels(self) -> pa.Table:
        """Labelled rows with the time from which each label was known."""
        delay = pa.scalar(timedelta(days=self.spec.label.delay_days))
        return self.rows.append_column("known_at", pc.add(self.rows[TIME].cast(pa.timestamp("us")), delay))

    @property
    def as_ofs(self) -> list[date]:
        """The eves of whole weeks as of which every way to choose a window can train."""
        last, found = pc.max(self.dates).as_py(), list[date]()
        for day in day_range(self.spec.first_day, last - timedelta(days=7)):
            try:
                windows = windows_of(self.with_windows(()), day)
            except TooLittleHistory:
                continue
            if len(windows.train) == 7 and (not found or (day - found[-1]).days == 7):
                found.append(day)
        return found

    def with_windows(self, windows: Sequence[int]) -> ModelSpec:
        """Return the spec with lengths of the window, or with 7 days alone."""
        own = {"window_days": max(windows, default=7), "windows": tuple(windows)}
        training = TrainingSpec.model_validate({**self.spec.training.model_dump(), **own})
        return self.spec.model_copy(update={"training": training})

    def between(self, first: date, last: date) -> pa.Table:
        """Return the rows of some days."""
        inside = pc.and_(pc.greater_equal(self.dates, first), pc.less_equal(self.dates, last))
        return self.rows.filter(inside).combine_chunks()

    def judged(self, first: date, last: date) -> pa.Table:
        """Return rows of some days with ``known_positive``, by one protocol for all policies: known in four weeks."""
        since = first - timedelta(days=28)
        known = self.labels.filter(pc.greater_equal(self.dates, since))
        return mark_known_positives(self.spec, self.between(first, last), known, since)

    def model(self, window: str, as_of: date, *, refit: bool) -> Model:
        """Return what was trained as of a day, trained now if it is not kept."""
        folder = self.kept / f"{as_of}" / f"{window.replace(', ', '-').replace(' ', '-')}{'-refit' if refit else ''}"
        if not (folder / "report.json").exists():
            files, report = self._trained(window, as_of, refit=refit)
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (folder / name).write_bytes(content)
            (folder / "report.json").write_text(json.dumps(report))  # last: it is whole
        return load_files(lambda name: (folder / name).read_bytes(), str(folder))

    def _trained(self, window: str, as_of: date, *, refit: bool) -> tuple[Mapping[str, bytes], Mapping[str, Any]]:
        spec = self.with_windows(WINDOWS[window])
        windows = windows_of(spec, as_of)
        if not refit:
            learnt = self._learnt(spec, windows, {})
            say(f"walk: {self.name} as of {as_of}, {window}: {learnt.report.get('window', '')}")
            return learnt.files, learnt.report
        self.model(window, as_of, refit=False)
        twin = self.kept / f"{as_of}" / window.replace(", ", "-").replace(" ", "-") / "report.json"
        chosen = json.loads(twin.read_text())
        again = windows.refit(chosen.get("window_days") or spec.training.window_days)
        learnt = self._learnt(spec, again, {"chosen": chosen})
        return learnt.files, learnt.report

    def _learnt(self, spec: ModelSpec, windows: Windows, more: Mapping[str, Any]) -> Any:
        request = {**run_request(spec, feature_names(spec), windows.train, windows.older), "files": {OLDER: ""}, **more}
        rows = self.between(min([*windows.older[:1], windows.train[0]]), windows.train[-1])
        asked = {"path": "", "sha256": "", "rows": len(rows), "format": "parquet"}
        search = search_of(trainer_request(request, "walk", spec.training.estimators[0], asked), rows)
        return learn(search, chosen_of(request))

    def values(self) -> dict[str, dict[str, float]]:
        """Return policy to week (its eve) to the average precision of the model in force."""
        file = self.kept / "weeks.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        for policy in POLICIES:
            weeks, champion = found.setdefault(policy.name, {}), None
            for as_of in self.as_ofs:
                if (known := weeks.get(str(as_of))) is None:
                    known = self._week(policy, as_of, champion)
                    weeks[str(as_of)] = known
                    file.with_suffix(".part").write_text(json.dumps(found))
                    file.with_suffix(".part").rename(file)
                champion = date.fromisoformat(known["champion"])
        return {name: {week: each["value"] for week, each in weeks.items()} for name, weeks in found.items()}

    def _week(self, policy: Policy, as_of: date, champion: date | None) -> dict[str, Any]:
        """Judge a week's challenger, and let who is in force score the week."""
        challenger = self.model(policy.window, as_of, refit=False)
        if champion is None or not policy.gated or self._passes(policy, as_of, challenger, champion):
            champion = as_of
        week = self.judged(as_of + ONE_DAY, as_of + timedelta(days=7))
        scores = self.model(policy.window, champion, refit=policy.refit).predict(week)
        value = evaluate(self.spec, week, scores)["metrics"]["average_precision"]
        return {"champion": str(champion), "value": value}

    def _passes(self, policy: Policy, as_of: date, challenger: Model, champion: date) -> bool:
        windows = windows_of(self.with_windows(WINDOWS[policy.window]), as_of)
        holdout = self.judged(windows.holdout[0], windows.holdout[-1])
        rows, counted = clustered_rows(self.spec, holdout)
        reference = self.model(
            policy.window, champion, refit=policy.refit
        )  # a week later: it has learnt from none of it
        ours, theirs = (model.predict(holdout)[counted] for model in (challenger, reference))
        return compare(self.spec, rows, ours, theirs, margin=self.spec.gate.margin).passed


def _reference(first: date, rounds: int) -> ModelSpec:
    """Return the reference model with LightGBM alone and its own parameters: windows are compared, not searches."""
    spec = load_spec(REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")
    own = spec.training.estimator("lightgbm").model_copy(update={"trials": 1, "search": {}, "rounds": rounds})
    training = spec.training.model_copy(update={"estimators": (own,)})
    return spec.model_copy(update={"training": training, "first_day": first})
