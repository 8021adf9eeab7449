"""A view is edited under a serving champion: what goes on as it was, what the next one learns, and the way back."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from churn_model import COLUMNS, DAY, HEAD, USAGE, Churn, delivery
from whole_chain import put_in_force, register
from windsock import promotions
from windsock.errors import SpecError
from windsock.features.feature_tables import FeatureTable
from windsock.features.frozen import definitions_of, with_definitions
from windsock.gate.context import GateContext
from windsock.runs.run_folder import DEFINITIONS, LINEAGE, RunFolder

EDITED = USAGE.replace("86399999999", "172799999999")
"""The same feature names over two days: other values, which a model would take without a word."""
LAST_LEARNT, SECOND_AS_OF = (DAY + timedelta(days=n) for n in (11, 13))
SERVED, PROMOTED, BACK = [DAY + timedelta(days=n) for n in (12, 13)], *(DAY + timedelta(days=n) for n in (14, 15))


def serve(churn: Churn, days: Iterable[date]) -> dict[str, Any]:
    """Take days through the chain up to their scores; return what the last features said."""
    said: dict[str, Any] = {}
    for day in days:
        churn.ingest(delivery(day), day)
        said = churn.step("features", day)
        churn.step("score", day)
    return said


def predictions(churn: Churn, day: date) -> tuple[Any, ...]:
    """Return what a day's scores were made from, and their files."""
    record = churn.record("score", day)
    files = [churn.store.read_bytes(file) for file in record.outputs["predictions"].files]
    return record.content_hash, dict(record.inputs), files


@dataclass(frozen=True)
class Story:
    """Two installations with one champion; in the first the view was edited before the next day."""

    edited: Churn
    twin: Churn
    before: FeatureTable
    runs: tuple[str, str]
    untouched: Path
    """A copy from before the edit, with its champion."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    home = tmp_path_factory.mktemp("edited")
    edited = Churn.make(home)
    for n in range(12):
        edited.ingest(delivery(DAY + timedelta(days=n)), DAY + timedelta(days=n))
    first, before = edited.train(LAST_LEARNT), edited.table
    put_in_force(edited.settings, edited.spec, "1", first, SERVED[0], LAST_LEARNT)
    twin = edited.copied(tmp_path_factory.mktemp("twin"))

    untouched = edited.copied(tmp_path_factory.mktemp("untouched")).home

    edited.write_sql(EDITED)
    for churn in (edited, twin):
        serve(churn, SERVED)
        second = churn.train(SECOND_AS_OF)
        register(churn.settings, churn.spec, "2", second, SECOND_AS_OF)
        if churn is edited:
            runs = (first, second)
            put_in_force(churn.settings, churn.spec, "2", second, PROMOTED, SECOND_AS_OF)
            serve(churn, [PROMOTED])
            put_in_force(churn.settings, churn.spec, "1", first, BACK, LAST_LEARNT)
            serve(churn, [BACK])
        else:
            serve(churn, [PROMOTED, BACK])
    return Story(edited, twin, before, runs, untouched)


def test_the_champion_s_scores_are_those_of_a_twin_whose_view_nobody_edited(story: Story):
    for day in SERVED:
        assert predictions(story.edited, day) == predictions(story.twin, day)
        old, new = (story.edited.record(table.name, day).outputs for table in (story.before, story.edited.table))
        assert old[story.before.name].hash != new[story.edited.table.name].hash, "the edit shows in the values"


def test_the_next_version_learns_the_new_definition_alone(story: Story):
    for run, sql, table in zip(story.runs, (USAGE, EDITED), (story.before, story.edited.table), strict=True):
        folder = RunFolder.named(story.edited.store, "churn", run)
        assert [view["sql"] for view in folder.read_json(DEFINITIONS)["views"]] == [sql]
        assert set(folder.read_json(LINEAGE)["pins"]) == {"ingest", table.name}


def test_the_gate_judges_the_champion_by_its_own_features_of_the_same_rows(story: Story):
    edited, twin = (GateContext(c.settings, c.spec, "2", "1") for c in (story.edited, story.twin))
    assert edited.holdout["event_id"].equals(twin.holdout["event_id"])
    assert not edited.holdout["n_1d"].equals(twin.holdout["n_1d"])
    assert np.array_equal(edited.champion_scores, twin.champion_scores)


def test_a_promoted_version_scores_by_its_table_and_a_rollback_is_whole(story: Story):
    by = {day: story.edited.record("score", day) for day in (PROMOTED, BACK)}
    assert {day: record.detail["model_version"] for day, record in by.items()} == {PROMOTED: "2", BACK: "1"}
    assert f"{story.edited.table.name}/{PROMOTED}" in by[PROMOTED].inputs
    assert predictions(story.edited, BACK) == predictions(story.twin, BACK)


def test_a_view_that_does_not_run_stops_the_next_training_and_nothing_of_the_champion(story: Story, tmp_path: Path):
    broken = story.edited.copied(tmp_path, "select nonsense from events")
    day = BACK + timedelta(days=1)
    (refused,) = serve(broken, [day])["refused"]
    assert refused.startswith("the next training: ")
    assert "nonsense" in refused
    assert broken.record("score", day).status == "published"
    parity = broken.step("materialize", day)["parity"]
    assert parity["checked"] > 0
    assert parity["mismatches"] == 0
    for step in ("prepare", "assemble"):
        with pytest.raises(SpecError, match="nonsense"):
            broken.unkeyed(step, as_of=str(SECOND_AS_OF))
    assert len(promotions.history(broken.settings, broken.spec)) == 3


def test_a_version_by_a_new_definition_scores_its_first_day_also_where_rows_reach_back(tmp_path: Path):
    """Not every event has a row of features, so that some take theirs from days before the edit."""
    sparse = HEAD + "minutes as last_long from events where minutes > 40"
    view = {"name": "usage", "entity": "customer", "sql": "usage.sql", "lookback_days": 2, "ttl_days": 5}
    churn = Churn.make(tmp_path, sparse, features__views=[view])
    for n in range(12):
        churn.ingest(delivery(DAY + timedelta(days=n)), DAY + timedelta(days=n))
        churn.step("features", DAY + timedelta(days=n))
    churn.write_sql(sparse.replace("40", "41"))
    run = churn.train(LAST_LEARNT)
    put_in_force(churn.settings, churn.spec, "1", run, SERVED[0], LAST_LEARNT)

    serve(churn, SERVED[:1])

    assert churn.record("score", SERVED[0]).status == "published"


USAGE_VIEW = {"name": "usage", "entity": "customer", "sql": "usage.sql", "lookback_days": 2}
WITHOUT_MINUTES = HEAD + "event_id % 7 as seventh from events"
EDITS: dict[str, tuple[str, dict[str, Any]]] = {
    "a row expression": (USAGE, {"features__row": {"minutes": "minutes * 1000"}}),
    "a row feature more": (USAGE, {"features__row": {"minutes": "minutes", "hour": "hour(seen_at)"}}),
    "the view's SQL": (EDITED, {}),
    "a feature less in the view": (USAGE.replace("avg(minutes) over w as mean_1d ", "").replace("n_1d,", "n_1d"), {}),
    "no view any more": (USAGE, {"features__views": []}),
    "a view more": (USAGE, {"features__views": [USAGE_VIEW, {**USAGE_VIEW, "name": "again"}]}),
    "another name of the view": (USAGE, {"features__views": [{**USAGE_VIEW, "name": "use"}]}),
    "another entity": (
        USAGE,
        {"entities": {"person": "customer_id"}, "features__views": [{**USAGE_VIEW, "entity": "person"}]},
    ),
    "a longer lookback": (USAGE, {"features__views": [{**USAGE_VIEW, "lookback_days": 5}]}),
    "a ttl": (USAGE, {"features__views": [{**USAGE_VIEW, "ttl_days": 3}]}),
    "a column more": (USAGE, {"events__columns": {**COLUMNS, "plan": "string"}}),
    "a column that the champion reads is taken out": (
        WITHOUT_MINUTES,
        {
            "events__columns": {name: kind for name, kind in COLUMNS.items() if name != "minutes"},
            "features__row": {"hour": "hour(seen_at)"},
        },
    ),
    "a longer delay of labels": (USAGE, {"label__delay_days": 4}),
    "seed, estimator and floors": (
        USAGE,
        {"training__seed": 8, "training__estimator": {"kind": "torch"}, "gate__floors": {"roc_auc": 0.9}},
    ),
    "an earlier first day": (USAGE, {"first_day": DAY - timedelta(days=1)}),
    "stricter validation": (USAGE, {"validation": {"quarantine_budget": 0.0, "volume_tolerance": 0.01}}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_whatever_is_edited_the_champion_s_next_day_is_an_unedited_twin_s(story: Story, tmp_path: Path, edit: str):
    day = SERVED[0]
    shutil.copytree(story.untouched, tmp_path, dirs_exist_ok=True)
    sql, fields = EDITS[edit]
    churn = Churn.make(tmp_path, sql, **fields)
    churn.ingest(delivery(day, more={"plan": pa.array(["a", "b"] * 100)}), day)
    churn.step("features", day)
    churn.step("score", day)
    assert predictions(churn, day)[2] == predictions(story.twin, day)[2]
    assert churn.record("score", day).detail["model_version"] == "1"


def test_a_column_that_the_champion_reads_and_nobody_delivers_stops_it_with_a_sentence(story: Story, tmp_path: Path):
    shutil.copytree(story.untouched, tmp_path, dirs_exist_ok=True)
    sql, fields = EDITS["a column that the champion reads is taken out"]
    churn = Churn.make(tmp_path, sql, **fields)
    churn.ingest(delivery(SERVED[0]).drop_columns(["minutes"]), SERVED[0])
    for step in ("features", "score"):
        with pytest.raises(SpecError, match=f"version 1 reads minutes, which the rows of {SERVED[0]} do not have"):
            churn.step(step, SERVED[0])


def test_another_label_stops_a_champion_whose_views_read_the_old_one_and_no_other(story: Story):
    spec = story.edited.spec
    renamed = spec.model_copy(update={"label": spec.label.model_copy(update={"column": "left"})})
    assert with_definitions(renamed, definitions_of(spec)).label.column == "left"
    reader = story.edited.spec.frozen({"usage.sql": HEAD + "churned as c from history"}, {})
    with pytest.raises(SpecError, match="is 'left' now, but registered versions read 'churned' in usage"):
        with_definitions(renamed, {**definitions_of(spec), "views": definitions_of(reader)["views"]})
