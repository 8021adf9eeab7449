"""An online store that only Feast knows (here Feast's own SQLite store) is kept from going backwards too."""

from datetime import date
from pathlib import Path

import pytest

from feature_tables import at, publish, table_of, two_views
from windsock.errors import ParityError, SpecError
from windsock.featurestore.repo import embedded_online_path, feature_store, raw_config
from windsock.featurestore.sinks import open_sink
from windsock.settings import Settings
from windsock.steps import run_step

CONFIG = """
project: windsock
provider: local
entity_key_serialization_version: 3
registry: {registry_store_type: windsock.featurestore.registry_store.WindsockRegistryStore}
offline_store: {type: windsock.featurestore.offline.WindsockOfflineStore}
online_store: {type: sqlite, path: PATH}
"""


@pytest.fixture
def world(tmp_path: Path):
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(CONFIG.replace("PATH", str(tmp_path / "plain.db")))
    settings, spec = two_views(tmp_path)
    env = {
        "WINDSOCK_HOME": str(tmp_path),
        "WINDSOCK_MODELS": str(settings.models[0]),
        "WINDSOCK_FEATURE_REPO": str(repo),
    }
    settings = Settings.from_env(env)
    for day in (2, 3):
        spending = [(1, at(day, 9), day, 0.5), (day, at(day, 10), day, None)]
        publish(
            settings,
            spec,
            date(2026, 3, day),
            {"spending": spending, "everything": [(at(day), day, True, "w", at(day))]},
        )
    return settings, spec


def materialize(settings: Settings, day: int, **options) -> dict:
    return run_step("materialize", model="fraud", key=f"2026-03-0{day}", settings=settings, options=options)


def counts_of(result: dict, spec) -> dict:
    return result["views"][table_of(spec, "spending").feast_name]


def served(settings: Settings, spec) -> dict:
    return {e: r.values[0] for e, r in open_sink(settings, []).read(table_of(spec, "spending"), [1, 2, 3, 9]).items()}


def test_newer_rows_stay_equal_times_are_replaced_and_corrections_go_back(world):
    settings, spec = world
    assert embedded_online_path(settings) is None

    assert counts_of(materialize(settings, 3), spec) == {"written": 2, "skipped": 0}
    assert counts_of(materialize(settings, 2), spec) == {"written": 1, "skipped": 1}
    assert served(settings, spec) == {1: 3, 2: 2, 3: 3}
    assert counts_of(materialize(settings, 3), spec) == {"written": 0, "skipped": 2}

    publish(settings, spec, date(2026, 3, 3), {"spending": [(1, at(3, 9), 33, 0.5)], "everything": []})
    materialize(settings, 3)
    assert served(settings, spec)[1] == 33

    publish(settings, spec, date(2026, 3, 3), {"spending": [(1, at(3, 8), 44, 0.5)], "everything": []})
    result = materialize(settings, 3)  # the older row is left alone; without notes only newer rows are told apart
    assert counts_of(result, spec)["written"] == 0
    materialize(settings, 3, correct=True)
    assert served(settings, spec)[1] == 44


def test_a_wrong_value_is_found_there_as_well(world):
    settings, spec = world
    materialize(settings, 3)
    publish(settings, spec, date(2026, 3, 3), {"spending": [(9, at(3, 9), 1, 0.5)], "everything": []})
    materialize(settings, 3)
    sink = open_sink(settings, [])
    sink.write = lambda *_, **__: 0
    publish(settings, spec, date(2026, 3, 3), {"spending": [(9, at(3, 9), 2, 0.5)], "everything": []})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("windsock.featurestore.step.open_sink", lambda *_: sink)
        with pytest.raises(ParityError, match=r"entity 9: the values differ; online .*N_TX=1.*offline .*N_TX=2"):
            materialize(settings, 3)
    asked = [f"{table_of(spec, 'spending').feast_name}:N_TX"]
    answer = feature_store(settings).get_online_features(asked, [{"CUSTOMER_ID": 9}]).to_dict()
    assert answer["N_TX"] == [1]


def test_a_missing_configuration_says_where_it_was_looked_for(tmp_path: Path):
    settings = Settings.from_env({"WINDSOCK_FEATURE_REPO": str(tmp_path)})
    with pytest.raises(SpecError, match=r"feature_store\.yaml: cannot be read.*WINDSOCK_FEATURE_REPO"):
        raw_config(settings)
