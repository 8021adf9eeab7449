"""What maintenance lets go and what it keeps of deliveries, pages and trainings; killed, and beside running steps."""

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from churn_model import DAY, Churn, delivery
from examples import number_of
from kill import DieAt, Steps
from windsock import promotions, tables
from windsock.completeness import feature_stages
from windsock.features.frozen import definitions_of
from windsock.ingest.kept import derivable_since, kept_delivery
from windsock.ledger import Ledger
from windsock.listing import AREAS, disk_use
from windsock.maintenance import step
from windsock.plan.base import Revision
from windsock.plan.compare import plan_model
from windsock.promotions import Promotion
from windsock.runs.run_folder import METRICS, REQUEST, TRAIN, RunFolder
from windsock.store import Store
from windsock.validate import docs
from windsock.version_index import VersionInfo, record_version

LAST = DAY + timedelta(days=7)
OLD = 200
VERSIONS = {"retired": "1", "recent": "2", "refused": "3", "champion": "4", "challenger": "5"}
PARTS = (
    "train.parquet", "holdout.parquet", "reference.parquet", "lineage.json", "model/model.txt", "gate.html",
    "candidates/lightgbm/request.json", "candidates/lightgbm/metrics.json", "candidates/lightgbm/train.csv.gz",
    "candidates/lightgbm/model/model.txt", "candidates/lightgbm/checkpoints/trials.json", REQUEST, METRICS,
)  # fmt: skip
"""Files of a training, as it is once its model is chosen and a kill kept its checkpoints."""
CHECKPOINT = "candidates/lightgbm/checkpoints/trials.json"
AGAIN = {"train.parquet", "candidates/lightgbm/train.csv.gz", "candidates/lightgbm/model/model.txt"}
"""What can be made again."""


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Churn:
    """A store that was lived in 200 days ago, with a training of each fate."""
    churn = Churn.make(tmp_path_factory.mktemp("lived"), serving={"rollback_days": 2})
    churn.ingest(delivery(rows=40))
    churn.ingest(delivery(rows=44))  # the day comes again
    for n in range(1, 8):
        churn.ingest(delivery(DAY + timedelta(days=n), rows=40), DAY + timedelta(days=n))
    for day, name in ((DAY, "superseded"), (LAST + timedelta(days=1), "all-there-is")):
        folder = f"quarantine/churn/{day}/{name}"
        churn.store.write_bytes(b"not a table", folder, "d.parquet")
        churn.store.write_json({"reasons": ["it is no table"]}, folder, "reasons.json")
    source = {"source": {"name": "d.parquet", "hash": "h", "origin": "", "raw": folder}}
    rejected = churn.record().__class__(str(LAST + timedelta(days=1)), "rejected", detail=source)
    Ledger(churn.store, "churn", "ingest").publish(rejected)
    orphan = tables.write_day(churn.store, "churn", "events", DAY, delivery(rows=3).drop_columns(["churned"]))
    assert orphan.files
    for name in (*VERSIONS, "abandoned", "half-assembled", "at-work"):
        for part in PARTS:
            RunFolder(churn.store.root, None, f"runs/churn/{name}").write_bytes(b"{}", part)
    for name, parts in (("half-assembled", PARTS), ("at-work", (METRICS,))):
        for part in parts if name == "at-work" else [p for p in parts if p != TRAIN]:
            churn.store.remove("runs", "churn", name, part)
    churn.store.write_json({"passed": False}, "runs/churn/refused/gate.json")
    for name, version in VERSIONS.items():
        record_version(churn.settings, VersionInfo("churn", version, name, DAY, definitions=definitions_of(churn.spec)))
    for name, day in (("retired", DAY), ("recent", LAST - timedelta(days=4)), ("champion", LAST)):
        entry = Promotion(0, "promote", VERSIONS[name], name, None, day, DAY, "test")
        promotions.append(churn.settings, churn.spec, entry, after=promotions.current(churn.settings, churn.spec))
    for day in (DAY, LAST):
        churn.store.write_bytes(b"<p>", "reports", "churn", str(day), "drift.html")
    churn.store.write_json({"as_of": str(DAY)}, "churn", "trainings", "0123.json")
    for stage in ("features", "retrain"):
        churn.store.write_json({"live": False}, "churn", "started", stage, "0123.json")
    churn.store.write_json({}, "steps", "churn", "0123.json")
    return churn


@pytest.fixture
def churn(lived: Churn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Churn:
    monkeypatch.setattr(step, "rebuild_docs", lambda cleaning: True)
    return copied(lived, tmp_path)


def copied(lived: Churn, home: Path, **retention: Any) -> Churn:
    churn = lived.copied(home, serving={"rollback_days": 2}, **({"retention": retention} if retention else {}))
    age(churn)
    young = Path(churn.settings.store, "runs", "churn", "at-work", CHECKPOINT)
    os.utime(young)
    return churn


def age(churn: Churn, *parts: str, days: float = OLD) -> None:
    then = time.time() - days * 86_400
    for path in Path(churn.settings.store, *parts).rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def maintain(churn: Churn, **options: Any) -> dict[str, Any]:
    return churn.unkeyed("maintain", **options)


def run_files(churn: Churn, run: str) -> set[str]:
    return set(churn.files("runs", "churn", run))


def test_of_trainings_goes_what_nobody_needs_and_what_is_needed_stays_whole(churn: Churn) -> None:
    result = maintain(churn)

    whole = set(PARTS) - {CHECKPOINT}
    for name in ("champion", "recent", "challenger"):
        assert run_files(churn, name) == whole, name
    assert run_files(churn, "retired") == whole - AGAIN
    assert run_files(churn, "refused") == {*whole, "gate.json"} - AGAIN
    assert run_files(churn, "abandoned") == run_files(churn, "half-assembled") == set()
    assert run_files(churn, "at-work") == set(PARTS) - {METRICS}, "it is written to"
    assert not Path(churn.settings.store, "runs", "churn", "abandoned").exists()
    assert result["removed"]["checkpoints"]["files"] == len(VERSIONS) + 1
    assert result["removed"]["notes"]["files"] == 3
    assert churn.files("churn", "started").keys() == {"retrain/0123.json"}, "or the drift would be asked about again"
    assert result["freed_bytes"] == sum(kind["bytes"] for kind in result["removed"].values()) > 0


def test_nothing_of_a_training_goes_before_its_time(lived: Churn, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(step, "rebuild_docs", lambda cleaning: True)
    churn = copied(lived, tmp_path, run_days=30)
    age(churn, "runs", days=29.9)
    before = churn.files("runs")
    maintain(churn)
    assert churn.files("runs") == {name: f for name, f in before.items() if CHECKPOINT not in name or "at-work" in name}


def test_deliveries_stay_for_ever_unless_the_spec_says_otherwise_and_plan_says_how_far_back_days_can_be_derived(
    lived: Churn, churn: Churn, tmp_path: Path
) -> None:
    raw = churn.files("raw")
    maintain(churn)
    assert churn.files("raw") == raw
    assert derivable_since(churn.store, churn.spec) == DAY

    churn = copied(lived, tmp_path / "other", raw_days=30)
    young = LAST - timedelta(days=2)
    for day in (young, young + timedelta(days=1), LAST):
        os.utime(Path(churn.settings.store, churn.record(day=day).detail["source"]["raw"]))

    def planned() -> str:
        return " ".join(
            plan_model(churn.settings, "churn", churn.spec.folder / "model.yaml", Revision(""), named=False).notes
        )

    said = f"the first day that can be derived again is {young}"
    assert said in planned(), "what the next cleaning removes counts as gone"
    assert maintain(churn)["removed"]["raw"]["files"] == len(raw) - 3
    assert said in planned()
    assert kept_delivery(churn.store, churn.record(day=LAST)) is not None
    assert kept_delivery(churn.store, churn.record(day=DAY)) is None
    assert churn.rows("events", days=8).num_rows == 44 + 7 * 40, "what was derived stays"


def test_a_refused_delivery_goes_unless_it_is_all_that_there_is_of_its_day(churn: Churn) -> None:
    assert maintain(churn)["removed"]["quarantine"]["files"] == 2
    assert {name.split("/")[1] for name in churn.files("quarantine", "churn")} == {"all-there-is"}


def test_pages_of_reports_go_by_age(churn: Churn) -> None:
    os.utime(Path(churn.settings.store, "reports", "churn", str(LAST), "drift.html"))
    assert maintain(churn)["removed"]["reports"] == {"files": 1, "bytes": 3}
    assert set(churn.files("reports", "churn")) == {f"{LAST}/drift.html"}


def test_results_of_validation_go_with_their_pages_and_data_docs_are_built_without_them(
    lived: Churn, tmp_path: Path
) -> None:
    churn = copied(lived, tmp_path)
    docs.build(churn.settings)
    old, young = (docs.result_path(churn.settings, churn.spec, day) for day in (DAY, LAST))
    pages = [docs.page_path(churn.settings, churn.spec, day) for day in (DAY, LAST)]
    assert all(file.is_file() for file in (old, young, *pages))
    then = time.time() - OLD * 86_400
    os.utime(old, (then, then))

    result = maintain(churn)

    assert (result["docs"], result["removed"]["docs"]["files"]) == (True, 1)
    assert [file.is_file() for file in (old, young, *pages)] == [False, True, False, True]
    assert str(DAY) not in (pages[1].parents[4] / "index.html").read_text()


def test_what_a_model_takes_of_the_disk_is_told_by_part(churn: Churn) -> None:
    use = disk_use(churn.store, ["churn", "another"])
    assert tuple(use["churn"]) == tuple(AREAS)
    for area, folder in AREAS.items():
        files = Path(churn.settings.store, folder.format(model="churn")).rglob("*")
        assert use["churn"][area] == sum(path.stat().st_size for path in files if path.is_file()) > 0, area
    assert set(use["another"].values()) == {0}


def steps_while(monkeypatch: pytest.MonkeyPatch, act, *, after: bool) -> list[str]:
    """Let something happen right before or after each removal; return the names of what was removed."""
    removed: list[str] = []
    real = Store.remove

    def remove(self: Store, *parts: str) -> None:
        name = "/".join(filter(None, (self.prefix, *parts)))
        if not after:
            act(name)
        real(self, *parts)
        removed.append(name)
        if after:
            act(name)

    monkeypatch.setattr(Store, "remove", remove)
    return removed


@pytest.mark.parametrize("after", [False, True])
def test_rows_that_a_step_writes_anew_while_their_old_file_goes_are_there(churn: Churn, monkeypatch, after) -> None:
    rows = delivery(rows=3).drop_columns(["churned"])
    written = []

    def act(name: str) -> None:
        if "/events/" in name:
            written.append(tables.write_day(churn.store, "churn", "events", DAY, rows))

    steps_while(monkeypatch, act, after=after)
    maintain(churn)

    (output,) = written
    assert all(churn.store.exists(file) for file in output.files)


@pytest.mark.parametrize("after", [False, True])
def test_a_training_that_is_assembled_anew_while_it_goes_is_never_taken_for_complete(
    churn: Churn, monkeypatch, after
) -> None:
    """Wherever it begins: what its next step then finds is the whole of it, or no request."""
    begun = [part for part in PARTS if part not in (METRICS, REQUEST, CHECKPOINT)]
    for place in range(len(PARTS)):
        folder = RunFolder(churn.store.root, None, f"runs/churn/again-{place}")
        for part in PARTS:
            folder.write_bytes(b"{}", part)
        age(churn, "runs", "churn", folder.run)
        with monkeypatch.context() as patch:
            seen: list[str] = []

            def act(name: str, folder=folder, place=place, seen=seen) -> None:
                if folder.run in name:
                    seen.append(name)
                    if len(seen) == place + 1 and not folder.exists(REQUEST):
                        for part in (*begun, REQUEST):
                            folder.write_bytes(b"{}", part)

            steps_while(patch, act, after=after)
            maintain(churn)
        left = run_files(churn, folder.run)
        assert REQUEST not in left or {*begun, REQUEST} <= left, place
        assert METRICS not in left
        if after and seen[place].endswith(f"{folder.run}/{REQUEST}"):
            assert {*begun, REQUEST} <= left, "what was begun before the rest goes is kept"


def broken(churn: Churn) -> Iterator[str]:
    """Yield what looks whole in the store and is not."""
    for run in Path(churn.settings.store, "runs", "churn").glob("*"):
        left = run_files(churn, run.name)
        needed = set(PARTS) - {CHECKPOINT, METRICS} - (AGAIN if run.name in ("retired", "refused") else set())
        if REQUEST in left and run.name != "half-assembled" and not needed <= left:
            yield f"{run.name}: {needed - left}"
    for reasons in Path(churn.settings.store, "quarantine").rglob("reasons.json"):
        if not (reasons.parent / "d.parquet").exists():
            yield str(reasons)
    for stage in ("ingest", *feature_stages(churn.store, "churn")):
        ledger = Ledger(churn.store, "churn", stage)
        for day, record in ledger.all().items():
            ledger.pinned({str(day): record.content_hash})
            yield from (f for o in record.outputs.values() for f in o.files if not churn.store.exists(f))


class Killed(BaseException):
    """What no handler of ours holds up."""


def test_a_cleaning_that_ends_at_any_file_leaves_nothing_half_removed_and_the_next_one_goes_on(
    lived: Churn, churn: Churn, tmp_path: Path, monkeypatch
) -> None:
    retention = {"raw_days": 30}
    whole = copied(lived, tmp_path / "whole", **retention)
    total = sum(kind["files"] for kind in maintain(whole)["removed"].values())
    expected = set(whole.files())
    assert not list(broken(whole))
    places = sorted({round(total * n / (number_of(12) - 1)) for n in range(number_of(12))} | {1, 2, total})
    for place in places:
        churn = copied(lived, tmp_path / f"killed-{place}", **retention)
        count = iter(range(total * 2))

        def die(name: str, count=count, place=place) -> None:
            if next(count) == place:
                raise Killed

        with monkeypatch.context() as patch:
            steps_while(patch, die, after=False)
            if place < total:
                with pytest.raises(Killed):
                    maintain(churn)
        assert not list(broken(churn)), place
        maintain(churn)
        assert set(churn.files()) == expected, place


@pytest.mark.kill
def test_a_cleaning_that_is_killed_is_gone_on_with(lived: Churn, tmp_path: Path, monkeypatch) -> None:
    churn = copied(lived, tmp_path)
    trial = Steps(churn.settings, "churn").run("maintain", die_at=DieAt("windsock.store:Store.remove", call=20))
    assert trial.killed
    assert not list(broken(churn))
    monkeypatch.setattr(step, "rebuild_docs", lambda cleaning: True)
    maintain(churn)
    assert run_files(churn, "abandoned") == set()
    assert maintain(churn)["removed"] == {}
