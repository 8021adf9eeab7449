"""Records of the store that are damaged in any way: one sentence with path and next step, never a wrong answer."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from churn_model import DAY, Churn, delivery
from windsock.errors import DamagedRecord
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import CHOSEN_BY, Promotion, append, champion_on, current, first_day_in_force, history
from windsock.runs.run_folder import REQUEST, RunFolder
from windsock.version_index import VersionInfo, record_version, version_info

NEXT = DAY + timedelta(days=1)


def promotion(version: str, previous: str | None, day: date = DAY, kind: str = "promote") -> Promotion:
    return Promotion(0, kind, version, f"run-{version}", previous, day, day - timedelta(days=1), "a test")  # type: ignore[arg-type]


def scored(churn: Churn, day: date, version: str, chosen_by: str = CHOSEN_BY) -> None:
    detail = {"model_version": version, "chosen_by": chosen_by}
    Ledger.of(churn.settings, "churn", "score").publish(DayRecord(str(day), "published", detail=detail))


@pytest.fixture
def delivered(tmp_path: Path) -> Churn:
    """Two days."""
    churn = Churn.make(tmp_path)
    for day in (DAY, NEXT):
        churn.ingest(delivery(day), day)
    return churn


@pytest.fixture
def churn(delivered: Churn) -> Churn:
    """Both days are scored, the second by a second champion, which a third one follows."""
    churn, last = delivered, None
    for day, version in ((DAY, "1"), (NEXT, "2")):
        scored(churn, day, version)
    for version, day, kind in (("1", DAY, "promote"), ("2", NEXT, "promote"), ("1", NEXT + timedelta(9), "rollback")):
        previous = last.version if last is not None else None
        last = append(churn.settings, churn.spec, promotion(version, previous, day, kind), after=last)
    for version in ("1", "2"):
        record_version(churn.settings, VersionInfo("churn", version, f"run-{version}", DAY))
    churn.store.write_json({"format": "windsock-request/1"}, "runs", "churn", "run-1", REQUEST)
    return churn


def without_a_field(raw: bytes) -> bytes:
    content = json.loads(raw)
    return json.dumps(
        {name: value for name, value in content.items() if name not in ("ds", "version", "spec")}
    ).encode()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[: len(raw) // 2],
    "zeros, as after a power cut": lambda raw: bytes(len(raw)),
    "no text": lambda raw: b"\xff\xfe" + raw,
    "a list": lambda raw: b"[1]",
    "a number": lambda raw: b"7",
    "nested deep": lambda raw: b"[" * 100_000,
    "lacks a field": without_a_field,
    "a field of another type": lambda raw: raw.replace(b'"2026-', b'"the 2026-'),
}


def test_whatever_happened_to_a_file_its_reader_names_it_and_what_to_do_and_never_says_that_there_is_none(
    churn: Churn,
) -> None:
    settings, spec = churn.settings, churn.spec
    readers: dict[str, Callable[[], object]] = {
        f"churn/ledger/ingest/{DAY}.json": lambda: churn.record(),
        f"churn/ledger/score/{NEXT}.json": lambda: churn.record("score", NEXT),
        "churn/promotions/000001.json": lambda: champion_on(settings, spec, NEXT),
        "churn/promotions/000003.json": lambda: current(settings, spec),
        "churn/versions/2.json": lambda: version_info(settings, spec, "2"),
        f"runs/churn/run-1/{REQUEST}": lambda: RunFolder.named(churn.store, "churn", "run-1").read_json(REQUEST),
    }
    for file, read in readers.items():
        path = Path(settings.store, file)
        whole = path.read_bytes()
        for name, damage in DAMAGE.items():
            if damage(whole) == whole or (file.startswith("runs") and name == "lacks a field"):
                continue
            path.write_bytes(damage(whole))
            with pytest.raises(DamagedRecord) as told:
                read()
            sentence = str(told.value)
            assert sentence.startswith(f"{path}: is damaged: "), (file, name)
            assert "\n" not in sentence, (file, name)
            assert len(sentence) < 700, (file, name)
            assert any(step in sentence for step in ("Put ", "put back")), (file, name)
        path.write_bytes(whole)
        read()


def test_a_file_that_lies_in_another_s_place_is_not_taken_for_it(churn: Churn) -> None:
    root = Path(churn.settings.store, "churn")
    pairs: list[tuple[str, str, Callable[[], object]]] = [
        (f"ledger/ingest/{NEXT}.json", f"ledger/ingest/{DAY}.json", lambda: churn.record()),
        ("versions/1.json", "versions/2.json", lambda: version_info(churn.settings, churn.spec, "2")),
        ("promotions/000001.json", "promotions/000002.json", lambda: history(churn.settings, churn.spec)),
        ("promotions/000001.json", "promotions/copy of 000001.json", lambda: history(churn.settings, churn.spec)),
        (f"ledger/ingest/{NEXT}.json", "ledger/ingest/copy.json", Ledger(churn.store, "churn", "ingest").days),
    ]  # fmt: skip
    for source, target, read in pairs:
        before = (root / target).read_bytes() if (root / target).exists() else None
        (root / target).write_bytes((root / source).read_bytes())
        with pytest.raises(DamagedRecord, match=f"{root / target}: is damaged"):
            read()
        (root / target).unlink() if before is None else (root / target).write_bytes(before)


def test_a_changed_number_in_a_record_is_seen_by_its_hash(churn: Churn) -> None:
    path = Path(churn.settings.store, f"churn/ledger/ingest/{DAY}.json")
    path.write_text(path.read_text().replace('"rows": 200', '"rows": 201', 1))
    with pytest.raises(DamagedRecord, match="its content is not what the hash beside it says"):
        churn.record()


def test_a_promotion_that_is_lost_or_contradicts_the_others_stops_whoever_asks_for_a_champion(churn: Churn) -> None:
    folder, settings, spec = Path(churn.settings.store, "churn/promotions"), churn.settings, churn.spec
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    first, second, third = whole
    content = json.loads(whole[second])
    changes: dict[str, tuple[Path, object]] = {
        "000001.json: is damaged: it is lost, and 000002.json follows it": (first, None),
        "000002.json: is damaged: it is lost, and 000003.json follows it": (second, None),
        "it says that it is number 4": (second, {"seq": 4}),
        "it follows version 7, but version 1 was champion": (second, {"previous": "7"}),
        "it follows version none, but version 1 was champion": (second, {"previous": None}),
        "it follows version 2, but version 1 was champion": (second, {"kind": "correct"}),
        "it goes back to version 8, which was never champion": (third, {"version": "8", "previous": "2"}),
        "it calls run other version 1, which is run run-1": (third, {"run": "other"}),
    }
    for said, (path, change) in changes.items():
        content = json.loads(whole[path])
        path.unlink() if change is None else path.write_text(json.dumps(content | dict(change)))  # type: ignore[call-overload]
        for ask in (
            lambda: champion_on(settings, spec, NEXT),
            lambda: current(settings, spec),
            lambda: first_day_in_force(settings, spec, DAY),
        ):
            with pytest.raises(DamagedRecord, match=said):
                ask()
        path.write_bytes(whole[path])
    assert [entry.version for entry in history(settings, spec)] == ["1", "2", "1"]


def test_entries_that_are_lost_at_the_end_are_missed_by_the_days_that_their_champions_scored(churn: Churn) -> None:
    settings, spec, folder = churn.settings, churn.spec, Path(churn.settings.store, "churn/promotions")
    (folder / "000003.json").unlink()  # no day of it was scored yet: nobody can know
    assert first_day_in_force(settings, spec, DAY) > NEXT
    (folder / "000002.json").unlink()
    with pytest.raises(DamagedRecord, match=f"version 1 is champion on {NEXT} .* scored by champion 2.*windsock void"):
        first_day_in_force(settings, spec, DAY)
    (folder / "000001.json").unlink()
    with pytest.raises(DamagedRecord, match="no version is champion"):
        first_day_in_force(settings, spec, DAY)


def test_a_day_that_somebody_had_scored_by_another_version_says_nothing_of_the_champion(churn: Churn) -> None:
    scored(churn, NEXT, "9", chosen_by="option model_version")
    assert first_day_in_force(churn.settings, churn.spec, DAY) > NEXT


def test_the_day_that_is_delivered_or_computed_again_is_whole_again(delivered: Churn) -> None:
    delivered.step("features")
    stages = ("ingest", delivered.table.name)
    files = {file: file.read_bytes() for stage in stages for file in records_of(delivered, stage)}
    before = [what_it_says(delivered.record(stage)) for stage in stages]
    for file, whole in files.items():
        file.write_bytes(DAMAGE["cut"](whole))
    with pytest.raises(DamagedRecord, match=f"windsock step ingest --model churn --key {DAY}"):
        delivered.record()
    with pytest.raises(DamagedRecord, match=f"windsock step features --model churn --key {DAY}"):
        delivered.step("ingest")  # the day is recorded, and then its features are asked whether they are out of date
    delivered.step("features")
    assert delivered.step("ingest")["changed"] is False
    assert [what_it_says(delivered.record(stage)) for stage in stages] == before
    assert sorted(file for stage in stages for file in records_of(delivered, stage)) == sorted(files)


def what_it_says(record: DayRecord) -> DayRecord:
    """Return a record without when it was made, and without the names of its files: orphans keep theirs."""
    outputs = {name: replace(output, files=()) for name, output in record.outputs.items()}
    return replace(record, recorded_at="", seconds=0.0, outputs=outputs)


def records_of(churn: Churn, stage: str) -> list[Path]:
    """List the records of the first day, with their copies in the history."""
    return [
        file for file in Path(churn.settings.store, "churn", "ledger", stage).rglob("*.json") if str(DAY) in str(file)
    ]
