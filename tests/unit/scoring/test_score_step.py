import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feature_days import put_day
from feature_tables import table_of
from training_world import AS_OF, payments, world_spec
from windsock import tables
from windsock.errors import DamagedRecord, NotReady, SpecError
from windsock.features.feature_tables import feature_tables
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import Promotion, append, current
from windsock.steps import run_step
from windsock.store import Store

DAY = AS_OF
NEXT = AS_OF + timedelta(days=1)


def score(settings, day=DAY, **options):
    return run_step("score", model="fraud", key=str(day), settings=settings, options=options)


def record_of(settings, day=DAY):
    return Ledger.of(settings, "fraud", "score").get(day)


def rows_of(settings, day=DAY):
    return tables.read(Store.of(settings), [record_of(settings, day)], "predictions")


def file_bytes(settings, day=DAY):
    store = Store.of(settings)
    return {f.rsplit("/", 1)[0]: store.read_bytes(f) for f in record_of(settings, day).outputs["predictions"].files}


def change_features(settings, spec):
    """Re-ingest an earlier day, which makes the features of DAY stale, and compute them anew."""
    put_day(settings, spec, DAY - timedelta(days=1), payments(NEXT))
    for day in (DAY - timedelta(days=1), DAY):
        run_step("features", model="fraud", key=str(day), settings=settings)


def test_every_event_gets_one_prediction_of_the_champion_in_its_order(scored_world):
    settings, spec = scored_world
    result = score(settings)

    events = tables.read(Store.of(settings), [Ledger.of(settings, "fraud", "ingest").get(DAY)], "events")
    rows = rows_of(settings)
    assert rows.column_names == ["TRANSACTION_ID", "event_time", "score", "model_version"]
    assert rows["TRANSACTION_ID"].equals(events["TRANSACTION_ID"])
    assert rows["event_time"].equals(events["TX_DATETIME"])
    assert rows["model_version"].unique().to_pylist() == ["1"]
    assert np.corrcoef(rows["score"].to_numpy(), events["TX_AMOUNT"].to_numpy())[0, 1] > 0.3
    assert {k: result[k] for k in ("status", "rows", "model_version", "kept")} == {
        "status": "published", "rows": events.num_rows, "model_version": "1", "kept": False,
    }  # fmt: skip
    tables_read = {f"{table.name}/{DAY}" for table in feature_tables(spec)}
    assert set(record_of(settings).inputs) == {f"ingest/{DAY}", "model", *tables_read}


def test_the_same_day_scored_again_or_elsewhere_gives_the_same_bytes(scored_world, trained, tmp_path_factory):
    settings, _ = scored_world
    score(settings)
    first = record_of(settings), file_bytes(settings)
    assert score(settings)["kept"]
    assert score(settings, rescore=True)["kept"] is False
    assert (record_of(settings), file_bytes(settings)) == first

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(trained, elsewhere, dirs_exist_ok=True)
    other, _ = world_spec(elsewhere)
    score(other)
    assert list(file_bytes(other).values()) == list(first[1].values())


def test_a_day_before_the_first_champion_is_not_scored(scored_world):
    settings, _ = scored_world
    result = score(settings, DAY - timedelta(days=1))

    assert (result["status"], result["rows"], result["model_version"]) == ("no_champion", 0, None)


def test_a_day_scored_by_nobody_can_be_scored_later_by_an_explicit_version_only(scored_world):
    settings, _ = scored_world
    day = DAY - timedelta(days=2)
    assert score(settings, day)["status"] == "no_champion"
    assert score(settings, day)["status"] == "no_champion"

    assert score(settings, day, model_version="2")["model_version"] == "2"
    assert rows_of(settings, day)["model_version"].unique().to_pylist() == ["2"]
    assert record_of(settings, day).detail["chosen_by"] == "option model_version"


def test_the_champion_of_the_day_scores_it_not_the_one_of_today(scored_world):
    settings, spec = scored_world
    append(settings, spec, Promotion(0, "promote", "2", "any", "1", NEXT, AS_OF, "test"), after=current(settings, spec))
    put_day(settings, spec, NEXT, payments(NEXT))
    run_step("features", model="fraud", key=str(NEXT), settings=settings)

    assert score(settings, DAY)["model_version"] == "1"
    assert score(settings, NEXT)["model_version"] == "2"


def test_predictions_stay_when_only_features_have_changed_unless_asked(scored_world):
    settings, spec = scored_world
    score(settings)
    before = record_of(settings)
    change_features(settings, spec)

    assert score(settings)["kept"]
    assert record_of(settings) == before
    assert score(settings, rescore=True)["kept"] is False
    assert record_of(settings).outputs["predictions"].hash != before.outputs["predictions"].hash
    changed = {name for name, mark in record_of(settings).inputs.items() if before.inputs[name] != mark}
    assert f"{table_of(spec, 'customer_spending').name}/{DAY}" in changed


def test_a_day_whose_own_events_have_changed_is_scored_again(scored_world):
    settings, spec = scored_world
    score(settings)
    put_day(settings, spec, DAY, payments(DAY)[:100])
    run_step("features", model="fraud", key=str(DAY), settings=settings)

    result = score(settings)

    assert (result["kept"], result["rows"]) == (False, 100)


def test_where_promotions_are_lost_nobody_scores_and_predictions_stay(scored_world):
    settings, spec = scored_world
    score(settings)
    before, entry = record_of(settings), Path(settings.store, "fraud/promotions/000001.json")
    put_day(settings, spec, NEXT, payments(NEXT))
    run_step("features", model="fraud", key=str(NEXT), settings=settings)
    entry.unlink()

    for again in ({"day": DAY, "rescore": True}, {"day": NEXT}):
        with pytest.raises(DamagedRecord, match=f"no version is champion on {DAY} by its entries"):
            score(settings, **again)
    assert record_of(settings) == before
    assert record_of(settings, NEXT) is None


def test_labels_do_not_matter(scored_world):
    settings, spec = scored_world
    score(settings)
    before = record_of(settings)
    put_day(settings, spec, DAY, [(*p[:4], None) for p in payments(DAY)])

    assert score(settings)["kept"]
    assert record_of(settings) == before


def test_unknown_customers_and_days_without_rows_are_no_trouble(scored_world):
    settings, spec = scored_world
    stages = [table.name for table in feature_tables(spec)]
    put_day(settings, spec, DAY, [(60, 999_999, 888_888, 12.5, None)])
    for stage in stages:
        Ledger.of(settings, "fraud", stage).publish(DayRecord(str(DAY), "published"))  # no feature row at all
    assert score(settings)["rows"] == 1
    assert np.isfinite(rows_of(settings)["score"].to_numpy()).all()

    for status in ("empty", "rejected"):
        for stage in ("ingest", *stages):
            Ledger.of(settings, "fraud", stage).publish(DayRecord(str(DAY), status))
        result = score(settings)
        assert (result["status"], result["rows"]) == (status, 0)


def test_what_is_missing_is_named(scored_world):
    settings, spec = scored_world
    with pytest.raises(NotReady, match="its step 'ingest' has not been run"):
        score(settings, NEXT)
    put_day(settings, spec, NEXT, payments(NEXT))
    with pytest.raises(NotReady, match=r"its features/customer_spending@\w{8} have not been computed"):
        score(settings, NEXT)
    with pytest.raises(SpecError, match="No version of model 'fraud' named '7'"):
        score(settings, model_version="7")


def test_predictions_hold_no_clock(scored_world):
    settings, _ = scored_world
    score(settings)

    assert isinstance(rows_of(settings), pa.Table)
    assert "seconds" not in record_of(settings).detail
