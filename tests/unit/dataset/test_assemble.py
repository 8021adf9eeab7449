import copy
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from feature_days import put_day
from training_world import AS_OF, FIRST, GAP, HOLDOUT, TRAIN, TRAINING, copy_world, payments, world_spec
from windsock import tables
from windsock.dataset.ahead import compute
from windsock.dataset.assemble import assemble, pin
from windsock.dataset.lacking import lacking
from windsock.dataset.step import ingested_windows
from windsock.dataset.time_split import windows_of
from windsock.days import day_range, start_of
from windsock.errors import DataContractError, NotReady, SpecError
from windsock.features.feature_tables import feature_tables
from windsock.features.frame import event_frame
from windsock.featurestore.retrieval import point_in_time
from windsock.ledger import DayRecord, Ledger
from windsock.steps import run_step
from windsock.store import Store

FILES = ("request.json", "lineage.json", "train.parquet", "holdout.parquet")
LABEL = "TX_FRAUD"


def made(settings, spec, as_of=AS_OF):
    """Assemble without Feast, which other tests compare it with."""
    windows = windows_of(spec, as_of)
    for each in lacking(settings, spec, spec.first_day, windows.holdout[-1]):
        for day in each.days:  # what a test has changed
            compute(settings, spec, day, each)
    pins = pin(settings, spec, windows)
    return assemble(settings, spec, windows, pins, join_of(settings, spec))


def join_of(settings, spec):
    """Return what adds features by pins of each table."""

    def join(rows, feature_pins):
        records = {name: Ledger.of(settings, spec.name, name).pinned(pins) for name, pins in feature_pins.items()}
        return point_in_time(Store.of(settings), spec, rows, records)

    return join


def run_files(settings, run):
    return {name: Store.of(settings).read_bytes("runs", "fraud", run, name) for name in FILES}


def days_of(rows):
    return sorted({t.date() for t in rows["event_timestamp"].to_pylist()})


def test_every_labelled_row_comes_once_in_its_order_with_features_in_model_order(world):
    _, settings, spec = world
    got = made(settings, spec)

    assert (days_of(got.train)[0], days_of(got.train)[-1]) == TRAIN
    assert (days_of(got.holdout)[0], days_of(got.holdout)[-1]) == HOLDOUT
    records = Ledger.of(settings, "fraud", "ingest").between(*TRAIN).values()
    labels = tables.read(Store.of(settings), records, "labels")
    events = event_frame(Store.of(settings), spec, records)
    labelled = pc.is_in(events["TRANSACTION_ID"], value_set=labels["TRANSACTION_ID"].combine_chunks())
    assert got.train["TRANSACTION_ID"].to_pylist() == events.filter(labelled)["TRANSACTION_ID"].to_pylist()
    assert got.report["unlabelled"]["train"] == events.num_rows - got.train.num_rows > 0
    assert got.train.column_names[-1] == LABEL
    assert list(got.features) == got.train.column_names[4:-1]
    assert not {LABEL, "TRANSACTION_ID", "event_timestamp", "known_at"} & set(got.features)
    assert got.train["CUSTOMER_ID_NB_TX_1DAY_WINDOW"].null_count == 0


def test_the_step_gives_the_same_through_feast_and_the_same_bytes_again(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path)
    direct = made(settings, spec)

    first = run_step("assemble", model="fraud", settings=settings, origin="manual__2026-03-13T00:00:00+00:00")
    before = run_files(settings, first["run"])
    put_day(settings, spec, AS_OF + timedelta(days=1), payments(AS_OF + timedelta(days=1)))
    again = run_step(
        "assemble", model="fraud", settings=settings, origin="manual__2026-03-13T00:00:00+00:00",
        options={"as_of": str(AS_OF)},
    )  # fmt: skip

    assert first["run"].startswith("2026-03-13-manual-2026-03-13")
    assert again["run"] == first["run"]
    assert run_files(settings, again["run"]) == before
    from windsock.runs.run_folder import RunFolder

    stored = RunFolder.named(Store.of(settings), "fraud", first["run"]).read_table("train.parquet")
    assert stored.equals(direct.train)
    assert {k: v for k, v in first.items() if k in direct.report} == direct.report


def label_files(world, tmp_path, delay_days=2):
    """Copy the world with its labels delivered as files, each two days after its payment."""
    files = {"url": "labels/{ds}.parquet", "key": "TRANSACTION_ID", "horizon_days": 10}
    label = {"column": LABEL, "task": "binary", "delay_days": delay_days, "files": files}
    settings, spec = copy_world(world[0], tmp_path, label=label)
    for day, record in Ledger.of(settings, "fraud", "ingest").all().items():
        deliver_labels(settings, day + timedelta(days=2), tables.read(Store.of(settings), [record], "labels"))
    return settings, spec


def deliver_labels(settings, day, labels):
    output = tables.write_day(Store.of(settings), "fraud", "labels", day, labels)
    Ledger.of(settings, "fraud", "labels").publish(DayRecord(str(day), "published", {"labels": output}))


def correct_later(settings, day, known_at):
    """Say of every payment of a day, later, that it was fraud."""
    ledger, store = Ledger.of(settings, "fraud", "labels"), Store.of(settings)
    labels = tables.read(store, [ledger.get(day + timedelta(days=2))], "labels")
    corrected = labels.set_column(1, LABEL, pa.array([1] * labels.num_rows, pa.int64())).set_column(
        3, "known_at", pa.array([known_at] * labels.num_rows, pa.timestamp("us"))
    )
    there = tables.read(store, filter(None, [ledger.get(known_at.date())]), "labels")
    both = pa.concat_tables([corrected, *filter(None, [there])]).combine_chunks()
    deliver_labels(settings, known_at.date(), both)


def test_nothing_that_happens_after_as_of_changes_the_training_set(world, tmp_path):
    settings, spec = label_files(world, tmp_path)
    before = made(settings, spec, AS_OF)

    put_day(settings, spec, AS_OF + timedelta(days=1), payments(FIRST))
    correct_later(settings, HOLDOUT[1], known_at=start_of(AS_OF + timedelta(days=2)))

    after = made(settings, spec, AS_OF)
    assert after.train.equals(before.train)
    assert after.holdout.equals(before.holdout)


def test_a_correction_counts_from_when_it_was_known(world, tmp_path):
    settings, spec = label_files(world, tmp_path)
    before = made(settings, spec)

    # Known after the model would have been made, but before as_of: the training rows do not know it.
    correct_later(settings, TRAIN[1], known_at=start_of(HOLDOUT[1]))
    assert made(settings, spec).train[LABEL].equals(before.train[LABEL])
    correct_later(settings, HOLDOUT[0], known_at=start_of(AS_OF))
    first_day = made(settings, spec).holdout.filter(
        pc.less(before.holdout["event_timestamp"], pa.scalar(start_of(HOLDOUT[1])))
    )
    assert set(first_day[LABEL].to_pylist()) == {1}


def test_a_delay_that_was_found_to_be_longer_holds_for_labels_that_were_stored_before(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path, label={"column": LABEL, "task": "binary", "delay_days": 4})
    (record,) = Ledger.of(settings, "fraud", "ingest").between(FIRST, FIRST).values()
    labels = tables.read_labels(Store.of(settings), spec, [record])
    stored = tables.read(Store.of(settings), [record], "labels")
    assert set(pc.subtract(stored["known_at"], stored["event_time"]).to_pylist()) == {timedelta(days=2)}
    assert set(pc.subtract(labels["known_at"], labels["event_time"]).to_pylist()) == {timedelta(days=4)}


def test_pins_give_the_old_rows_after_a_day_has_changed(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path)
    windows = windows_of(spec, AS_OF)
    pins = pin(settings, spec, windows)
    join = join_of(settings, spec)
    before = assemble(settings, spec, windows, pins, join)
    put_day(settings, spec, TRAIN[0], payments(FIRST, rows=10))
    for day in day_range(TRAIN[0], AS_OF):
        run_step("features", model="fraud", key=str(day), settings=settings)

    assert assemble(settings, spec, windows, pins, join).train.equals(before.train)
    assert made(settings, spec).train.num_rows < before.train.num_rows


def test_a_gap_shorter_than_the_delay_is_refused_and_the_days_are_named(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path, training={**TRAINING, "gap_days": 0})

    with pytest.raises(SpecError) as caught:
        made(settings, spec)

    text = str(caught.value)
    assert "training.gap_days is 0, but labels take 2 days" in text
    assert f"events of {GAP[0]}..{GAP[1]}" in text
    assert f"the holdout had begun on {HOLDOUT[0]}" in text


def test_a_delay_that_labels_do_not_keep_is_refused(world, tmp_path):
    settings, spec = label_files(world, tmp_path, delay_days=0)

    with pytest.raises(DataContractError, match=r"labels are said to take 0 days, but \d+ of \d+ labels"):
        made(settings, spec, AS_OF - timedelta(days=2))


@pytest.mark.parametrize(
    ("name", "expression"),
    [("TRANSACTION_ID", "TRANSACTION_ID"), ("number", "TRANSACTION_ID"), ("event_timestamp", "TX_DATETIME")],
)
def test_key_and_time_are_no_features(world, tmp_path, name, expression):
    _, _, spec = world
    features = {"row": {name: expression}, "views": [v.model_dump() for v in spec.features.views]}
    training = copy.deepcopy(TRAINING) | {"categorical": []}
    settings, changed = copy_world(world[0], tmp_path, features=features, training=training)

    with pytest.raises(SpecError, match=f"{name!r} is the (key|event time)"):
        made(settings, changed)


def test_customers_known_to_be_defrauded_are_marked_from_the_day_it_was_known(world):
    _, settings, spec = world
    got = made(settings, spec).holdout

    rows = tables.read(Store.of(settings), Ledger.of(settings, "fraud", "ingest").all().values(), "events")
    labels = tables.read(Store.of(settings), Ledger.of(settings, "fraud", "ingest").all().values(), "labels")
    fraud = set(labels.filter(pc.equal(labels[LABEL], 1))["TRANSACTION_ID"].to_pylist())
    frauds = [
        (c, t.date())
        for c, t, i in zip(
            *(rows[n].to_pylist() for n in ("CUSTOMER_ID", "TX_DATETIME", "TRANSACTION_ID")), strict=True
        )
        if i in fraud
    ]
    expected = [
        any(c == card and TRAIN[0] <= day <= t.date() - timedelta(days=3) for card, day in frauds)
        for c, t in zip(got["CUSTOMER_ID"].to_pylist(), got["event_timestamp"].to_pylist(), strict=True)
    ]
    assert got["known_positive"].to_pylist() == expected
    assert 0 < sum(expected) < len(expected)


def test_one_class_is_refused(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path)
    for day in day_range(*TRAIN):
        put_day(settings, spec, day, [(*p[:4], 0) for p in payments(day)])

    with pytest.raises(DataContractError, match="have TX_FRAUD = 0; a binary model needs both classes"):
        made(settings, spec)


def test_labels_that_never_came_leave_nothing_to_learn_and_say_so(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path)
    for day in day_range(*HOLDOUT):
        put_day(settings, spec, day, [(*p[:4], None) for p in payments(day)])

    with pytest.raises(DataContractError, match=f"no labelled row to be judged on in {HOLDOUT[0]}"):
        made(settings, spec)


def test_rejected_and_empty_days_are_allowed_and_reported(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path)
    Ledger.of(settings, "fraud", "ingest").publish(DayRecord(str(TRAIN[1]), "rejected"))
    for day in day_range(TRAIN[1], AS_OF):
        run_step("features", model="fraud", key=str(day), settings=settings)

    got = made(settings, spec)

    assert got.report["days_without_rows"] == [str(TRAIN[1])]
    assert days_of(got.train)[-1] == TRAIN[1] - timedelta(days=1)


def test_without_as_of_the_latest_day_up_to_which_all_is_delivered_is_taken(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path)
    assert ingested_windows(settings, spec, None).as_of == AS_OF

    ahead = AS_OF + timedelta(days=2)  # a hole before it
    put_day(settings, spec, ahead, payments(ahead))
    assert ingested_windows(settings, spec, None).as_of == AS_OF


def test_missing_days_are_named(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path)

    with pytest.raises(NotReady, match=f"still missing: {AS_OF + timedelta(days=1)}"):
        made(settings, spec, AS_OF + timedelta(days=3))


def test_nothing_ingested_and_too_early_are_explained(tmp_path, world):
    settings, spec = world_spec(tmp_path)
    with pytest.raises(NotReady, match="there is nothing to train on yet"):
        ingested_windows(settings, spec, None)
    with pytest.raises(DataContractError, match="Training is possible as of 2026-03-11"):
        windows_of(spec, FIRST + timedelta(days=5))
    with pytest.raises(SpecError, match="The as_of 'yesterday' is not a day"):
        ingested_windows(settings, spec, "yesterday")


def test_the_step_refuses_a_run_that_is_none(world):
    _, settings, _ = world
    with pytest.raises(SpecError, match=r"no request\.json"):
        run_step("fit", model="fraud", settings=settings, options={"run": "nothing"})
    with pytest.raises(SpecError, match="is no run"):
        run_step("fit", model="fraud", settings=settings, options={"run": "../elsewhere"})


def test_lineage_names_everything_that_went_in(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path)
    run = run_step("assemble", model="fraud", settings=settings)["run"]
    lineage = Store.of(settings).read_json("runs", "fraud", run, "lineage.json")

    assert lineage["as_of"] == str(AS_OF)
    assert set(lineage["pins"]["ingest"]) == {str(d) for d in day_range(TRAIN[0], HOLDOUT[1])}
    for table in feature_tables(spec):
        assert set(lineage["pins"]["ingest"]) <= set(lineage["pins"][table.name])
    assert "TERMINAL_ID_RISK_30DAY_WINDOW" in lineage["sql"]["terminal_risk.sql"]
    assert lineage["libraries"]["lightgbm"]
    assert lineage["seed"] == spec.training.seed
    assert yaml.safe_load((spec.folder / "model.yaml").read_text())["owner"] == lineage["spec"]["owner"]


def test_a_recovery_has_no_gap_and_learns_from_no_label_that_is_not_known_as_of_its_day(world, tmp_path):
    settings, _ = copy_world(world[0], tmp_path)
    onset = FIRST + timedelta(days=8)  # days 8 to 10 have matured as of day 12: one of them judges
    options = {"as_of": str(AS_OF), "recovery": str(onset), "dedupe_key": f"1@{onset}", "trigger": "drift"}

    result = run_step("assemble", model="fraud", settings=settings, origin="recovery", options=options)

    assert (result["gap_days"], result["holdout_days"]) == ([], [str(HOLDOUT[1]), str(HOLDOUT[1])])
    assert result["train_days"] == [str(FIRST + timedelta(days=6)), str(FIRST + timedelta(days=9))]
    folder = ("runs", "fraud", str(result["run"]))
    lineage = Store.of(settings).read_json(*folder, "lineage.json")
    assert (lineage["recovery"], lineage["request"], lineage["trigger"]) == (str(onset), f"1@{onset}", "drift")
    assert "gap none" in lineage["summary"]
    assert f"the new regime began on {onset}" in lineage["summary"]
    assert lineage["report"]["labels_too_late"] == 0
    too_soon = {**options, "recovery": str(AS_OF)}
    with pytest.raises(SpecError, match="no label is known of the regime that began on"):
        run_step("assemble", model="fraud", settings=settings, origin="too soon", options=too_soon)
