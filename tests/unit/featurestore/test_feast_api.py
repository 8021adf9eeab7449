"""What Feast's own API sees: definitions from the specs, history point-in-time, online values."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from feature_tables import at, feature_days, publish, table_of, two_views
from windsock.errors import SpecError
from windsock.features.feature_tables import feature_tables, pinned
from windsock.featurestore import definitions
from windsock.featurestore.repo import feast_home, feature_store, import_feast
from windsock.featurestore.retrieval import point_in_time, training_frame
from windsock.ledger import Ledger
from windsock.settings import REPO_ROOT, Settings
from windsock.steps import run_step
from windsock.store import Store

import_feast()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three days of two views, registered."""
    settings, spec = two_views(tmp_path_factory.mktemp("world"), ttl_days=10)
    for day in (2, 3, 4):
        spending = [(1, at(day), day, day / 2), (2, at(day, 13), None, None)]
        everything = [(at(day, 14), 100 + day, day % 2 == 0, f"w{day}", at(day))]
        publish(settings, spec, date(2026, 3, day), {"spending": spending, "everything": everything})
    definitions.apply(settings)
    return settings, spec


def name_of(spec, view: str = "spending") -> str:
    """Return the name that Feast knows a view by."""
    return table_of(spec, view).feast_name


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "TRANSACTION_ID": [5, 4, 3, 2, 1],
            "CUSTOMER_ID": [1, 1, 99, 2, 1],
            "event_timestamp": pd.to_datetime([at(3, 18), at(2, 6), at(4), at(4, 18), at(3, 18)]),
            "note": ["a", "b", "c", "d", "e"],
        }
    )


EXPECTED_N_TX = [3, None, None, None, 3]


def plain(column) -> list:
    return [None if v is None or v is pd.NA or v != v else v for v in column]


def test_history_keeps_every_row_in_order_with_all_columns(world, frame):
    settings, _ = world
    store = feature_store(settings)

    job = store.get_historical_features(entity_df=frame, features=store.get_feature_service("fraud"))

    result = job.to_df()
    assert result[["TRANSACTION_ID", "CUSTOMER_ID", "note"]].equals(frame[["TRANSACTION_ID", "CUSTOMER_ID", "note"]])
    assert (result["event_timestamp"] == frame["event_timestamp"].dt.tz_localize("UTC")).all()
    assert str(result["N_TX"].dtype) == "Int64"
    assert plain(result["N_TX"]) == EXPECTED_N_TX
    assert plain(result["N_ALL"]) == [103, None, 103, 104, 103]
    assert job.to_arrow().schema.field("BUSY").type == pa.bool_()


def test_times_in_another_zone_are_converted(world, frame):
    settings, spec = world
    frame["event_timestamp"] = frame["event_timestamp"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    job = feature_store(settings).get_historical_features(entity_df=frame, features=[f"{name_of(spec)}:N_TX"])
    assert plain(job.to_df()["N_TX"]) == EXPECTED_N_TX


def test_times_written_as_text_are_read(world, frame):
    settings, spec = world
    frame["event_timestamp"] = frame["event_timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    job = feature_store(settings).get_historical_features(entity_df=frame, features=[f"{name_of(spec)}:N_TX"])
    assert plain(job.to_df()["N_TX"]) == EXPECTED_N_TX


def test_full_names_aliases_and_renamed_keys_work(world, frame):
    from feast import FeatureService

    settings, spec = world
    store = feature_store(settings)
    view = store.get_feature_view(name_of(spec))
    frame["PAYER"] = [2, 1, 1, 1, 1]
    payer = view[["N_TX"]].with_name("payer").with_join_key_map({"CUSTOMER_ID": "PAYER"})
    service = FeatureService(name="by_payer", features=[payer])
    store.apply([service])

    own = store.get_historical_features(frame, [f"{name_of(spec)}:N_TX"], full_feature_names=True).to_df()
    other = store.get_historical_features(frame, service, full_feature_names=True).to_df()

    assert plain(own[f"{name_of(spec)}__N_TX"]) == EXPECTED_N_TX
    assert plain(other["payer__N_TX"]) == [None, None, 4, 4, 3]


@pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature")
def test_on_demand_views_are_computed_from_the_result(world, frame):
    from feast import Field, RequestSource
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64

    settings, spec = world
    store = feature_store(settings)
    request = RequestSource(name="amount_now", schema=[Field(name="AMOUNT", dtype=Float64)])

    @on_demand_feature_view(
        sources=[store.get_feature_view(name_of(spec)), request], schema=[Field(name="ratio", dtype=Float64)]
    )
    def amount_ratio(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"ratio": inputs["AMOUNT"] / inputs["LAST_AMOUNT"]})

    store.apply([request, amount_ratio])
    frame["AMOUNT"] = 3.0
    result = store.get_historical_features(entity_df=frame, features=["amount_ratio:ratio"]).to_df()

    assert plain(result["ratio"]) == [2.0, None, None, None, 2.0]
    assert store.get_online_features(["amount_ratio:ratio"], [{"CUSTOMER_ID": 1, "AMOUNT": 1.0}]).to_dict()["ratio"]


def test_sql_over_the_models_events_gives_entity_rows(world):
    from windsock import tables
    from windsock.ledger import DayRecord

    settings, spec = world
    store = Store.of(settings)
    events = pa.table({"CUSTOMER_ID": [1], "TX_DATETIME": pa.array([at(3, 18)], pa.timestamp("us"))})
    output = tables.write_day(store, "fraud", "events", date(2026, 3, 3), events)
    Ledger.of(settings, "fraud", "ingest").publish(DayRecord("2026-03-03", "published", {"events": output}))
    query = "select CUSTOMER_ID, TX_DATETIME as event_timestamp from events"

    job = feature_store(settings).get_historical_features(entity_df=query, features=[f"{name_of(spec)}:N_TX"])

    assert job.to_df()["N_TX"].tolist() == [3]
    with pytest.raises(SpecError, match="SQL over events and labels of fraud does not run"):
        feature_store(settings).get_historical_features(entity_df="select nothing", features=[f"{name_of(spec)}:N_TX"])


def test_a_time_range_without_entity_rows_gives_every_entity_and_time(world):
    settings, spec = world
    job = feature_store(settings).get_historical_features(
        features=[f"{name_of(spec)}:N_TX"], start_date=at(3), end_date=at(4)
    )
    rows = job.to_arrow().select(["CUSTOMER_ID", "N_TX"]).to_pylist()
    assert rows == [
        {"CUSTOMER_ID": 1, "N_TX": 3},
        {"CUSTOMER_ID": 2, "N_TX": None},
        {"CUSTOMER_ID": 1, "N_TX": 4},
    ]


@pytest.mark.filterwarnings("ignore:Saving dataset is an experimental feature")
def test_a_result_can_be_saved_and_read_back(world, frame, tmp_path: Path):
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    settings, spec = world
    store = feature_store(settings)
    job = store.get_historical_features(entity_df=frame, features=[f"{name_of(spec)}:N_TX"])
    storage = SavedDatasetFileStorage(str(tmp_path / "set.parquet"))

    saved = store.create_saved_dataset(job, "march", storage)

    assert saved.to_df()["N_TX"].notna().sum() == 2
    with pytest.raises(Exception, match="already exists"):
        job.persist(storage)


def test_training_frames_equal_the_direct_join_and_follow_their_pins(tmp_path: Path, frame):
    settings, spec = two_views(tmp_path)
    store, pins, records = Store.of(settings), [], []
    ledgers = {table.name: table.ledger(store) for table in feature_tables(spec)}
    for value in (3, 7):
        publish(settings, spec, date(2026, 3, 3), {"spending": [(1, at(3), value, 0.5)], "everything": []})
        pins.append({name: ledger.pins([date(2026, 3, 3)]) for name, ledger in ledgers.items()})
        records.append(feature_days(settings, spec))
    rows = pa.Table.from_pandas(frame, preserve_index=False)

    old, new = (training_frame(settings, spec, rows, given) for given in pins)

    assert old["N_TX"].to_pylist() == [3, None, None, None, 3]
    for frame_then, records_then in zip((old, new), records, strict=True):
        assert frame_then.equals(point_in_time(store, spec, rows, records_then))
    with pytest.raises(SpecError, match="is gone from the store"):
        training_frame(settings, spec, rows, {name: {"2026-03-03": "0" * 64} for name in ledgers})


def test_a_job_keeps_the_pins_of_the_moment_it_was_asked_for(world, frame):
    settings, spec = world
    fs = feature_store(settings)
    with pinned(spec.name, {}):
        job = fs.get_historical_features(entity_df=frame, features=[f"{name_of(spec)}:N_TX"])
    assert plain(job.to_df()["N_TX"]) == [None] * 5
    assert plain(fs.get_historical_features(frame, [f"{name_of(spec)}:N_TX"]).to_df()["N_TX"]) == EXPECTED_N_TX


def test_online_features_are_what_the_step_wrote(world):
    settings, spec = world
    for day in (4, 3):
        run_step("materialize", model="fraud", key=f"2026-03-0{day}", settings=settings)
    store = feature_store(settings)

    rows = [{"CUSTOMER_ID": 1}, {"CUSTOMER_ID": 2}, {"CUSTOMER_ID": 99}]
    answer = store.get_online_features(store.get_feature_service(spec.name), rows)

    values = answer.to_dict()
    assert values["N_TX"] == [4, None, None]
    assert values["LAST_AMOUNT"] == [2.0, None, None]
    assert values["N_ALL"] == [104] * 3
    assert values["BUSY"] == [True] * 3
    assert values["WORD"] == ["w4"] * 3
    times = answer.to_dict(include_event_timestamps=True)["N_TX__ts"]
    assert times[0] == int(at(4).replace(tzinfo=UTC).timestamp())
    everything = store.get_online_features(
        [f"{name_of(spec, 'everything')}:{f}" for f in ("N_ALL", "SEEN")], [{}]
    ).to_dict()
    assert everything == {"N_ALL": [104], "SEEN": [at(4).replace(tzinfo=UTC)]}


def test_feasts_own_materialize_and_writes_never_go_backwards(world):
    settings, spec = world
    run_step("materialize", model="fraud", key="2026-03-04", settings=settings)
    store = feature_store(settings)
    before = store.get_online_features([f"{name_of(spec)}:N_TX"], [{"CUSTOMER_ID": 1}]).to_dict()

    store.materialize(datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 4, tzinfo=UTC), [name_of(spec)])
    old = pd.DataFrame({"CUSTOMER_ID": [1], "event_timestamp": [at(2)], "N_TX": [0], "LAST_AMOUNT": [0.0]})
    store.write_to_online_store(name_of(spec), old)
    assert store.get_online_features([f"{name_of(spec)}:N_TX"], [{"CUSTOMER_ID": 1}]).to_dict() == before

    store.write_to_online_store(name_of(spec), old.assign(event_timestamp=at(9), CUSTOMER_ID=7))
    assert store.get_online_features([f"{name_of(spec)}:N_TX"], [{"CUSTOMER_ID": 7}]).to_dict()["N_TX"] == [0]
    assert table_of(spec, "spending").features == ("N_TX", "LAST_AMOUNT")


def test_apply_registers_once_and_the_source_survives_the_registry(world):
    settings, spec = world
    definitions.apply(settings)
    registry = feast_home(settings) / "registry.db"
    stamp = registry.stat().st_mtime_ns

    assert definitions.apply(settings).changed is False
    assert registry.stat().st_mtime_ns == stamp

    view = feature_store(settings).get_feature_view(name_of(spec))
    assert (view.batch_source.model, view.batch_source.table) == ("fraud", table_of(spec, "spending").name)
    assert view.batch_source.columns == table_of(spec, "spending").columns
    assert view.ttl == timedelta(days=10)
    assert view.owner == spec.owner
    assert view.join_keys == ["CUSTOMER_ID"]


def test_a_broken_model_blocks_no_other_and_keeps_what_it_had(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    other = tmp_path / "models" / "other"
    shutil.copytree(spec.folder, other)
    usual = {name_of(spec, view) for view in ("everything", "spending")}
    (other / "model.yaml").write_text((other / "model.yaml").read_text().replace("name: fraud", "name: other", 1))
    assert definitions.apply(settings).models == ("fraud", "other")

    (other / "spending.sql").write_text("select nonsense")
    (spec.folder / "all.sql").write_text((spec.folder / "all.sql").read_text().replace("N_ALL", "N_EVERY"))
    broken = definitions.apply(settings)

    assert broken.models == ("fraud",)
    assert "nonsense" in broken.broken["other"]
    views = {v.name: [f.name for f in v.features] for v in feature_store(settings).list_feature_views()}
    edited = name_of(spec, "everything")
    kept = {name.replace("fraud", "other", 1) for name in usual}
    assert set(views) == {edited, name_of(spec), *kept}
    assert "N_EVERY" in views[edited]


def test_a_model_that_is_gone_is_removed_by_apply_but_never_by_a_step(tmp_path: Path):
    settings, spec = two_views(tmp_path)
    publish(settings, spec, date(2026, 3, 2), {"spending": [(1, at(2), 2, 1.0)], "everything": []})
    run_step("materialize", model="fraud", key="2026-03-02", settings=settings)
    hidden = tmp_path / "hidden"
    shutil.move(spec.folder, hidden)

    assert definitions.apply(settings, remove_gone=False).models == ()
    assert [s.name for s in feature_store(settings).list_feature_services()] == ["fraud"]
    definitions.apply(settings)

    store = feature_store(settings)
    assert store.list_feature_views() == store.list_feature_services() == store.list_data_sources() == []
    assert [e.name for e in store.list_entities() if e.name != "__dummy"] == []


def test_parallel_callers_register_once(tmp_path: Path):
    settings, _ = two_views(tmp_path)
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: definitions.apply(settings).changed, range(6)))
    assert sorted(done) == [False] * 5 + [True]


def test_feasts_own_command_line_applies_the_repository(tmp_path: Path):
    env = {**os.environ, "WINDSOCK_HOME": str(tmp_path)}
    feast = [str(Path(sys.executable).parent / "feast"), "-c", str(REPO_ROOT / "feature_repo")]
    done = subprocess.run([*feast, "apply"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    views = feature_store(Settings.from_env(env)).list_feature_views()
    assert {v.name.split("__")[1] for v in views if v.name.startswith("fraud__")} >= {"customer_spending"}
