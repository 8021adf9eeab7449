"""Whose features are computed for a day: the champion's first, then those of whoever is or was about to be it."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from feature_tables import table_of, two_views
from windsock.errors import SpecError
from windsock.features.demand import demanded, usable, versions_needed
from windsock.features.frozen import definitions_of
from windsock.promotions import Promotion, append, current
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.version_index import VersionInfo, record_version

DAY = date(2026, 3, 10)
ROLLBACK = 3


def register(settings: Settings, spec: ModelSpec, version: str) -> None:
    made = VersionInfo(spec.name, version, f"run-{version}", DAY, definitions=definitions_of(spec))
    record_version(settings, made)


def promote(settings: Settings, spec: ModelSpec, version: str, first: date) -> None:
    entry = Promotion(0, "promote", version, f"run-{version}", None, first, DAY, "test")
    append(settings, spec, entry, after=current(settings, spec))


@pytest.fixture
def world(tmp_path: Path) -> tuple[Settings, ModelSpec]:
    return two_views(tmp_path, serving={"rollback_days": ROLLBACK})


@pytest.mark.parametrize(
    ("day", "needed"),
    [
        (DAY - timedelta(days=1), ["1", "2", "3"]),
        (DAY, ["2", "1", "3"]),
        (DAY + timedelta(days=ROLLBACK - 1), ["2", "1", "3"]),
        (DAY + timedelta(days=ROLLBACK), ["2", "3"]),
    ],
)
def test_a_day_needs_its_champion_the_next_one_a_waiting_challenger_and_who_may_come_back(world, day, needed):
    settings, spec = world
    for version in ("1", "2", "3"):
        register(settings, spec, version)
    promote(settings, spec, "1", date(2026, 3, 1))
    promote(settings, spec, "2", DAY)
    assert versions_needed(settings, spec, day) == needed

    Store.of(settings).write_json({"passed": False}, "runs", "fraud", "run-3", "gate.json")
    assert versions_needed(settings, spec, day) == [version for version in needed if version != "3"]


def edit(spec: ModelSpec) -> None:
    file = spec.folder / "spending.sql"
    file.write_text(file.read_text().replace("count(*)", "2 * count(*)"))


def test_a_definition_that_several_need_is_computed_once_and_required_if_the_champion_is_among_them(world):
    settings, spec = world
    register(settings, spec, "1")
    before, everything = table_of(spec, "spending"), table_of(spec, "everything")
    promote(settings, spec, "1", DAY)
    edit(spec)

    assert [(each.table.name, each.by, each.required) for each in demanded(settings, spec, DAY)] == [
        (before.name, ("version 1",), True),
        (everything.name, ("version 1", "the next training"), True),
        (table_of(spec, "spending").name, ("the next training",), False),
    ]


def test_another_ttl_is_another_view_of_the_feature_store_over_the_same_table(world, tmp_path: Path):
    settings, spec = world
    register(settings, spec, "1")
    promote(settings, spec, "1", DAY)
    _, longer = two_views(tmp_path, ttl_days=20, serving={"rollback_days": ROLLBACK})

    wanted = [each.table for each in demanded(settings, longer, DAY) if each.view.name == "spending"]

    assert [table.name for table in wanted] == [table_of(spec, "spending").name] * 2
    assert [table.feast_name.rpartition("__")[2] for table in wanted] == ["10d", "20d"]


def test_before_the_first_champion_every_view_of_the_spec_is_required(world):
    settings, spec = world
    assert all(each.required for each in demanded(settings, spec, DAY))
    (spec.folder / "spending.sql").write_text("select nonsense")
    with pytest.raises(SpecError, match="nonsense"):
        list(usable(demanded(settings, spec, DAY)))

    edit_undone = two_views(spec.folder.parent.parent)[1]
    register(settings, edit_undone, "1")
    promote(settings, edit_undone, "1", DAY)
    (spec.folder / "spending.sql").write_text("select nonsense")
    assert {each.view.name for each in usable(demanded(settings, spec, DAY))} == {"spending", "everything"}
