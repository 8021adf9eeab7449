"""16 days of the whole chain: in sequence, in random order by four processes, and with one day changed later on."""

import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from small_model import features_of_views, small_fraud
from training_world import AS_OF, make_world
from whole_chain import Course, follow, in_any_order, in_sequence, ingest, online_content, pool, published, put_in_force
from windsock.days import day_range
from windsock.features.frozen import definitions_of
from windsock.runs.run_folder import DEFINITIONS, RunFolder
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.steps import run_step
from windsock.store import Store

FIRST = date(2026, 3, 1)
DAYS = day_range(FIRST, FIRST + timedelta(days=15))
CHANGED, REFUSED, DIRTY, EMPTY = (FIRST + timedelta(days=n) for n in (1, 4, 6, 7))
LOOKBACK = 13
"""Less than the real views have, so that some day lies beyond it."""
IN_FORCE = {"1": CHANGED, "2": FIRST + timedelta(days=9)}
"""Champion versions and the first day of events that each scores; nobody scores the first day."""
STAGES = ("ingest", "features", "score")


@dataclass(frozen=True)
class Worlds:
    """Installations that were given the same days and champions in another way, and how that went."""

    sequence: Settings
    shuffled: Settings
    course: Course
    fresh: Settings
    """In sequence too, with the changed day's later content from the beginning."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    trained = train_twice(tmp_path_factory.mktemp("trained"))
    homes = {name: tmp_path_factory.mktemp(name) for name in ("sequence", "shuffled", "fresh")}
    made = {name: installation(home, trained, changed=name == "fresh") for name, home in homes.items()}
    with pool(2) as beside:
        others = [beside.submit(in_sequence, made[name], DAYS) for name in ("sequence", "fresh")]
        course = in_any_order(made["shuffled"], DAYS, seed=40)
        assert [other.result().waits for other in others] == [0, 0]
    return Worlds(made["sequence"], made["shuffled"], course, made["fresh"])


def train_twice(home: Path) -> Path:
    """Train two versions on another small world; return the folder of their runs."""
    settings, _ = make_world(home)
    for version in IN_FORCE:
        run = run_step("assemble", model="fraud", settings=settings, origin=version)["run"]
        run_step("fit", model="fraud", settings=settings, options={"run": run})
        run_step("choose", model="fraud", settings=settings, options={"run": run})
        Path(settings.store, "runs", "fraud", run).rename(home / version)
    return home


def installation(home: Path, trained: Path, *, changed: bool) -> Settings:
    """Make the fraud model with 300 customers, its real views (but for the lookback) and both champions, and no day."""
    settings, spec = deliver(home, changed=changed)
    for version, day in IN_FORCE.items():
        shutil.copytree(trained / version, Path(settings.store, "runs", "fraud", version))
        # Of these views: what a champion does not need stops no day, and is not there in every order before a training.
        RunFolder.named(Store.of(settings), "fraud", version).write_json(definitions_of(spec), DEFINITIONS)
        put_in_force(settings, spec, version, version, day, AS_OF)
    return settings


def deliver(home: Path, *, changed: bool) -> tuple[Settings, ModelSpec]:
    """Let the simulator deliver a refused, a dirty and an empty day, and half of the changed day if so."""
    kinds = {REFUSED: "missing_column", DIRTY: "null_keys", EMPTY: "zero_rows"}
    kinds |= {CHANGED: "half_day"} if changed else {}
    dirt = [{"day": day, "kind": kind} for day, kind in kinds.items()]
    source = {"kind": "simulator", "seed": 0, "customers": 300, "terminals": 600, "dirt": dirt}
    taken = {"redelivery_loss": 0.9}  # that half a day replaces it is meant
    return small_fraud(home, source=source, validation=taken, features=features_of_views(lookback_days=LOOKBACK))


def test_any_order_in_parallel_gives_the_files_online_values_and_scores_of_days_in_sequence(worlds: Worlds):
    assert worlds.course.order != sorted(worlds.course.order)
    assert worlds.course.waits > 10
    for stage in STAGES:
        one, other = (published(settings, stage) for settings in (worlds.sequence, worlds.shuffled))
        assert one == other, stage
    online = online_content(worlds.sequence)
    assert online == online_content(worlds.shuffled)
    assert min(len(rows) for rows in online.values()) > 20


def test_the_compared_days_are_what_they_should_be(worlds: Worlds):
    days, features, scores = (published(worlds.sequence, stage) for stage in STAGES)
    assert set(days) == {str(day) for day in DAYS}
    assert set(features) == set(scores) == {str(day) for day in DAYS if day != REFUSED}
    assert {day for day, (_, _, files) in days.items() if not files} == {str(REFUSED), str(EMPTY)}
    assert {day for day, (_, _, files) in days.items() if "quarantine" in files} == {str(DIRTY)}
    unscored = {str(FIRST), str(EMPTY)}
    assert {day for day, (_, _, files) in scores.items() if not files} == unscored
    versions = {day: inputs["score"]["model"] for day, (_, inputs, _) in scores.items() if day not in unscored}
    assert versions == {day: "1" if day < str(IN_FORCE["2"]) else "2" for day in versions}


def test_a_refused_day_holds_up_none_of_the_days_that_look_back_on_it(worlds: Worlds):
    features = published(worlds.shuffled, "features")
    after = [day for day in DAYS if day > REFUSED]
    assert all(str(day) in features for day in after)
    assert all(f"ingest/{REFUSED}" in made for day in after for made in features[str(day)][1].values())


def test_an_old_day_run_again_changes_no_file_and_no_online_value(worlds: Worlds):
    before = online_content(worlds.sequence), [published(worlds.sequence, stage) for stage in STAGES]
    result = ingest(worlds.sequence, FIRST + timedelta(days=3))
    assert result is not None
    assert not result["changed"]
    assert result["refresh"] == []
    follow(worlds.sequence, FIRST + timedelta(days=3))
    assert (online_content(worlds.sequence), [published(worlds.sequence, stage) for stage in STAGES]) == before


def test_a_changed_day_is_scored_again_and_later_features_within_the_lookback_follow_it(worlds: Worlds):
    settings = worlds.shuffled
    scores = published(settings, "score")
    _, spec = deliver(settings.home, changed=True)

    result = ingest(settings, CHANGED)

    assert result is not None
    reach = day_range(CHANGED + timedelta(days=1), CHANGED + timedelta(days=spec.features.lookback_days))
    assert result["refresh"] == [str(day) for day in reach if day != REFUSED]
    assert reach[-1] == DAYS[-2], "the last day lies beyond the lookback"
    for day in [CHANGED, *map(date.fromisoformat, result["refresh"])]:
        follow(settings, day)
    for stage in ("ingest", "features"):
        assert published(settings, stage) == published(worlds.fresh, stage), stage
    assert online_content(settings) == online_content(worlds.fresh)
    now, fresh = published(settings, "score"), published(worlds.fresh, "score")
    changed = str(CHANGED)
    assert fresh[changed] != scores[changed]
    assert now == {**scores, changed: fresh[changed]}
    others = [day for day in now if day != changed and now[day] != fresh[day]]
    assert others, "no later score would have become another, so keeping them shows nothing"
    run_step("score", model="fraud", key=others[0], live=False, settings=settings, options={"rescore": True})
    assert published(settings, "score")[others[0]] == fresh[others[0]]
