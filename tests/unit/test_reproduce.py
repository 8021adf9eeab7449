import pytest
from click.testing import CliRunner

from feature_days import put_day
from training_world import FIRST, TRAIN, copy_world, payments
from windsock.cli.models import reproduce as command
from windsock.days import day_range
from windsock.errors import SpecError
from windsock.ledger import Ledger
from windsock.reproduce import reproduce
from windsock.steps import run_step
from windsock.store import Store


@pytest.fixture
def trained(world, tmp_path):
    settings, spec = copy_world(world[0], tmp_path)
    run = run_step("assemble", model="fraud", settings=settings)["run"]
    first = run_step("fit", model="fraud", settings=settings, options={"run": run})
    run_step("choose", model="fraud", settings=settings, options={"run": run})
    return settings, spec, run, first


def test_a_run_can_be_made_again_after_spec_sql_and_days_have_changed(trained, tmp_path):
    settings, spec, run, _ = trained
    put_day(settings, spec, TRAIN[0], payments(FIRST, rows=20))
    for day in day_range(*TRAIN):
        run_step("features", model="fraud", key=str(day), settings=settings)
    (spec.folder / "customer_spending.sql").write_text("select 1")
    (spec.folder / "model.yaml").unlink()

    made = reproduce(settings, "fraud", run)

    assert set(made.files) == {"train.parquet", "holdout.parquet", "model/model.txt", "model/model.json"}
    assert made.equal
    assert made.differing == {}


def test_a_finished_training_is_not_done_again(trained):
    settings, _, run, first = trained
    store, path = Store.of(settings), ("runs", "fraud", run, "candidates", "lightgbm", "metrics.json")
    before = store.fs.modified(store.path(*path))

    again = run_step("fit", model="fraud", settings=settings, options={"run": run})

    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    assert store.fs.modified(store.path(*path)) == before


def test_a_training_that_was_killed_half_way_gives_the_same_bytes(trained):
    settings, _, run, _ = trained
    store = Store.of(settings)
    candidate = ("candidates/lightgbm/model/model.txt", "candidates/lightgbm/request.json")
    names = (
        *candidate,
        "model/model.txt",
        "model/model.json",
        "holdout_scores.parquet",
        "reference.parquet",
        "metrics.json",
    )
    before = {n: store.read_bytes("runs", "fraud", run, *n.split("/")) for n in names}
    gone = ("candidates/lightgbm/metrics.json", "model/model.json", "metrics.json", "reference.parquet")
    for name in (*gone, "candidates/lightgbm/model/model.txt"):
        store.fs.rm(store.path("runs", "fraud", run, *name.split("/")))

    run_step("fit", model="fraud", settings=settings, options={"run": run})
    run_step("choose", model="fraud", settings=settings, options={"run": run})

    assert {n: store.read_bytes("runs", "fraud", run, *n.split("/")) for n in names} == before


def test_a_training_set_that_was_changed_is_refused(trained):
    settings, _, run, _ = trained
    store = Store.of(settings)
    store.fs.rm(store.path("runs", "fraud", run, "candidates", "lightgbm", "metrics.json"))
    holdout = store.read_bytes("runs", "fraud", run, "holdout.parquet")
    store.write_bytes(holdout, "runs", "fraud", run, "train.parquet")

    with pytest.raises(SpecError, match=r"train\.parquet is not the file that its request names"):
        run_step("fit", model="fraud", settings=settings, options={"run": run})


def test_a_pinned_day_that_is_gone_is_named(trained):
    settings, _, run, _ = trained
    store = Store.of(settings)
    store.fs.rm(store.path("fraud", "ledger", "ingest", "history", str(TRAIN[1])), recursive=True)

    with pytest.raises(SpecError, match=f"ingest of {TRAIN[1]} with content .* is gone from the store"):
        reproduce(settings, "fraud", run)


def test_the_command_tells_what_is_equal_and_what_is_not(trained, monkeypatch, tmp_path):
    settings, _, run, _ = trained
    monkeypatch.setenv("WINDSOCK_HOME", str(settings.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(settings.models[0]))

    good = CliRunner().invoke(command, ["--model", "fraud", "--run", run], standalone_mode=False)
    assert good.return_value == 0, good.output
    assert "byte for byte" in good.output
    store = Store.of(settings)
    text = store.read_bytes("runs", "fraud", run, "model", "model.txt")
    store.write_bytes(text.replace(b"shrinkage=", b"shrinkage=0", 1), "runs", "fraud", run, "model", "model.txt")
    bad = CliRunner().invoke(command, ["--model", "fraud", "--run", run], standalone_mode=False)
    assert bad.return_value == 1
    assert "model/model.txt    differs" in bad.output
    assert Ledger.of(settings, "fraud", "ingest").days()  # nothing was changed by either
