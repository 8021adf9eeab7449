"""What a training wrote is not written again, whatever becomes of the spec, the days and the libraries."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from churn_model import DAY, Churn, delivery
from windsock.errors import SpecError
from windsock.runs import contract

LAST, NEXT = DAY + timedelta(days=11), DAY + timedelta(days=12)
OTHER_TREES = {"trials": 1, "rounds": 5, "params": {"num_leaves": 3, "min_child_samples": 5}}
SCHEDULED = "scheduled__2026-03-13T00:00:00+00:00"


@pytest.fixture(scope="module")
def finished(churn_days: Churn, tmp_path_factory: pytest.TempPathFactory) -> tuple[Churn, str]:
    churn = churn_days.copied(tmp_path_factory.mktemp("finished"))
    return churn, churn.train(LAST)


@pytest.fixture
def sealed(finished: tuple[Churn, str], tmp_path: Path) -> tuple[Churn, str]:
    """A copy of an installation with one finished run."""
    return finished[0].copied(tmp_path), finished[1]


def upgrade_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    before = contract.libraries()
    monkeypatch.setattr(contract, "version", lambda name: "99.0")
    assert contract.libraries() != before


def steps_again(churn: Churn, run: str) -> None:
    """Run every step of a training again."""
    assert churn.unkeyed("prepare", as_of=str(LAST))["days"] == []
    assert churn.unkeyed("assemble", as_of=str(LAST))["run"] == run
    churn.unkeyed("fit", run=run)
    churn.unkeyed("choose", run=run)


def test_a_finished_run_that_is_run_again_stays_as_it_is_to_the_byte_and_second(sealed):
    churn, run = sealed
    before = churn.files("runs")
    steps_again(churn, run)
    assert churn.files("runs") == before


def test_a_library_upgrade_and_a_new_layout_of_the_spec_change_nothing_of_a_finished_run(sealed, monkeypatch):
    churn, run = sealed
    before = churn.files("runs")
    upgrade_libraries(monkeypatch)
    file = churn.spec.folder / "model.yaml"
    file.write_text(f"# Reviewed.\n{file.read_text()}")

    steps_again(churn, run)

    assert churn.files("runs") == before


def test_a_spec_that_has_changed_gives_a_run_of_its_own_and_leaves_the_finished_one(sealed):
    churn, run = sealed
    before = churn.files("runs")
    edited = Churn.make(churn.home, training__estimator=OTHER_TREES)

    other = edited.train(LAST)
    edited.unkeyed("fit", run=run)
    edited.unkeyed("choose", run=run)

    assert other != run
    assert {file: found for file, found in churn.files("runs").items() if f"/{run}/" in f"/{file}"} == before


def test_what_a_killed_assemble_left_is_written_by_the_next_and_from_then_on_sealed(sealed):
    churn, run = sealed
    folder = Path(churn.settings.store, "runs", "churn", run)
    before = churn.files("runs")
    (folder / "request.json").unlink()
    (folder / "train.parquet").write_bytes(b"half")

    steps_again(churn, run)

    assert {file: found[0] for file, found in churn.files("runs").items()} == {n: f[0] for n, f in before.items()}


@pytest.mark.parametrize("estimator", [OTHER_TREES, {"kind": "torch", "epochs": 1, "params": {"hidden": [4]}}])
def test_fit_trains_what_the_run_was_asked_for_also_if_the_spec_wants_something_else_by_now(
    churn_days: Churn, finished: tuple[Churn, str], tmp_path: Path, estimator: dict[str, Any]
):
    churn = churn_days.copied(tmp_path)
    run = str(churn.unkeyed("assemble", as_of=str(LAST))["run"])
    edited = Churn.make(churn.home, training__estimator=estimator)

    assert edited.unkeyed("fit", run=run)["estimator"] == "lightgbm"
    edited.unkeyed("choose", run=run)

    twin, same = finished
    assert run == same
    model = churn.store.read_bytes("runs", "churn", run, "model", "model.txt")
    assert model == twin.store.read_bytes("runs", "churn", run, "model", "model.txt")


def test_an_estimator_that_the_run_was_not_asked_for_is_refused_by_name(sealed):
    churn, run = sealed
    with pytest.raises(SpecError, match=r"'network'.*lightgbm"):
        churn.unkeyed("fit", run=run, estimator="network")


def days_chosen(churn: Churn, origin: str, step: str = "assemble", **options: str) -> date:
    return date.fromisoformat(churn.unkeyed(step, origin=origin, **options)["as_of"])


@pytest.mark.parametrize("first", ["prepare", "assemble"])
def test_a_run_of_airflow_that_is_tried_again_trains_as_of_the_day_of_its_first_try(
    churn_days: Churn, tmp_path: Path, first: str
):
    churn = churn_days.copied(tmp_path)
    assert days_chosen(churn, SCHEDULED, first) == LAST
    churn.ingest(delivery(NEXT), NEXT)
    churn.step("features", NEXT)

    assert days_chosen(churn, SCHEDULED) == LAST
    assert days_chosen(churn, "scheduled__2026-03-20T00:00:00+00:00") == NEXT
    assert days_chosen(churn, SCHEDULED, as_of=str(NEXT)) == NEXT
    assert days_chosen(churn, SCHEDULED) == LAST


def test_a_run_by_hand_takes_the_newest_day_each_time(churn_days: Churn, tmp_path: Path):
    churn = churn_days.copied(tmp_path)
    assert days_chosen(churn, "manual") == LAST
    churn.ingest(delivery(NEXT), NEXT)
    churn.step("features", NEXT)
    assert days_chosen(churn, "manual") == NEXT
    assert not churn.files("churn", "trainings")
