"""Every kind of file that outlives an upgrade carries its format number, and an unknown number is refused."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import yaml

from training_world import AS_OF, FIRST, make_world
from windsock import __version__, format_numbers, living_versions, promotions, store
from windsock.backup.target import Manifest, Target, time_name
from windsock.errors import DataContractError, SpecError
from windsock.features import frozen
from windsock.features.feature_tables import FeatureTable, feature_tables
from windsock.features.frozen import spec_of_version
from windsock.format_numbers import NEWEST, check, numbered, written
from windsock.gate.sequential import Look, take_look
from windsock.outbox import Message, Outbox
from windsock.runs.contract import TrainerRequest, request_url
from windsock.runs.run_folder import DEFINITIONS, REQUEST, RunFolder
from windsock.served.model import load
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec
from windsock.steps import run_step
from windsock.store import Store
from windsock.trainers.learn import spec_of
from windsock.upkeep.told import Told
from windsock.upkeep.waits import Wait, note, waits_of
from windsock.validate.profile import find_profile
from windsock.version_index import VersionInfo, record_version, version_info
from windsock_airflow.runs import STARTED, RunFacts
from windsock_local.stack.home import Home

LATER = 99


@dataclass(frozen=True)
class Installation:
    """One with a file of every kind, written by the code of today."""

    settings: Settings
    spec: ModelSpec
    run: RunFolder

    @property
    def store(self) -> Store:
        return Store.of(self.settings)

    @property
    def table(self) -> FeatureTable:
        return feature_tables(self.spec)[0]

    def file(self, kind: str) -> Path:
        below = {
            "day record": f"fraud/ledger/{self.table.name}/{AS_OF}.json",
            "feature definitions": f"{self.run.prefix}/{DEFINITIONS}",
            "promotion": "fraud/promotions/000001.json",
            "look": "fraud/recovery/0001.json",
            "model version": "fraud/versions/1.json",
            "training request": f"{self.run.prefix}/{REQUEST}",
            "trainer request": f"{self.run.prefix}/candidates/lightgbm/{REQUEST}",
            "profile": "fraud/profile.json",
            "store": store.MARKER,
            "wait": f"fraud/waits/score/{AS_OF}.json",
            "told": "fraud/told.json",
        }
        if kind in (found := {"run of a DAG": f"fraud/{STARTED}/score", "alert": "alerts"}):
            return next(Path(self.settings.store, found[kind]).glob("*.json"))
        if kind in below:
            return Path(self.settings.store, below[kind])
        if kind == "backup":
            return next(Path(self.settings.home, "backups").glob("*.json"))
        return {"definition": self.spec.folder / "model.yaml", "home": Home.of(self.settings).marker}[kind]

    def read(self, kind: str) -> Any:
        """Read a file of the kind as the product does."""
        readers: dict[str, Callable[[], Any]] = {
            "day record": lambda: self.table.ledger(self.store).get(AS_OF),
            "feature definitions": lambda: spec_of_version(self.settings, self.spec, "1"),
            "promotion": lambda: promotions.current(self.settings, self.spec),
            "look": lambda: look_at_it(self.store),
            "model version": lambda: version_info(self.settings, self.spec, "1"),
            "training request": lambda: self.run.read_json(REQUEST),
            "trainer request": lambda: TrainerRequest.read(request_url(self.run, "lightgbm")),
            "definition": lambda: get_spec(self.settings, "fraud"),
            "profile": lambda: find_profile(self.settings, self.spec),
            "store": lambda: self.store.exists("fraud"),
            "home": lambda: Home.of(self.settings).create(),
            "run of a DAG": lambda: RunFacts.recorded(self.store, "fraud", "fraud_score", "r"),
            "alert": lambda: Outbox(self.store).waiting(),
            "wait": lambda: list(waits_of(self.store, "fraud")),
            "backup": lambda: Target(str(self.settings.home / "backups")).manifest(),
            "told": lambda: Told.of(self.store, "fraud"),
        }
        return readers[kind]()


def look_at_it(own: Store) -> Look | None:
    subject = {"request": f"1@{AS_OF}", "version": "2", "model_hash": "x", "champion": "1"}
    return take_look(own, "fraud", subject, error_rate=0.05, most=10)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    settings, spec = make_world(tmp_path_factory.mktemp("formats"))
    run = str(run_step("assemble", model="fraud", settings=settings)["run"])
    for step in ("fit", "choose"):
        run_step(step, model="fraud", settings=settings, options={"run": run})
    record_version(settings, VersionInfo("fraud", "1", run, AS_OF))
    entry = promotions.Promotion(0, "promote", "1", run, None, AS_OF + timedelta(days=1), AS_OF, "a test")
    promotions.append(settings, spec, entry, after=None)
    assert find_profile(settings, spec) is not None
    Home.of(settings).create()
    own = Store.of(settings)
    look_at_it(own)
    RunFacts("fraud_score", "r", None, True, False, None, ())._record(own, "fraud")
    note(own, "fraud", Wait("score", str(AS_OF), "fraud_score", "r", True, "A day is missing."))
    Outbox(own).put(Message("a cause", "2026-03-01T00:00:00+00:00", "#alerts", "A text."))
    told = Told.of(own, "fraud")
    told.mark("paused", ["fraud_score"])
    told.save()
    Target(str(settings.home / "backups")).finish(Manifest(time_name(), own.root, "", "", {}))
    return Installation(settings, spec, RunFolder.named(Store.of(settings), "fraud", run))


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not looked at any store yet."""
    monkeypatch.setattr(frozen, "read_definitions", living_versions.read_definitions.__wrapped__)
    monkeypatch.setattr(store, "_opened", set())
    monkeypatch.setattr(store, "_marked", set())


def with_number(file: Path, number: Any) -> bytes:
    """Return a file's content with another format number, or with none."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".json":  # the home's marker and model.yaml
        rest = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("format:"))
        return (rest if number is None else f"{rest}\nformat: {number}\n").encode()
    raw = {name: value for name, value in json.loads(text).items() if name != "format"}
    return json.dumps(raw if number is None else {**raw, "format": number}).encode()


@pytest.mark.parametrize("kind", sorted(set(NEWEST) - {"definition"}))
def test_what_is_written_today_carries_its_number(made: Installation, kind: str):
    text = made.file(kind).read_text(encoding="utf-8")
    if kind == "home":
        assert f"\nformat: {written(kind)}\n" in text
    else:
        assert json.loads(text)["format"] == written(kind)


def test_the_definition_that_a_request_freezes_carries_its_number(made: Installation):
    for kind in ("training request", "trainer request"):
        frozen = json.loads(made.file(kind).read_text(encoding="utf-8"))
        assert frozen["spec"]["format"] == NEWEST["definition"]
        assert spec_of(frozen).name == "fraud"
        frozen["spec"]["format"] = LATER
        with pytest.raises(SpecError, match=rf"spec in the request of training fraud .*format {LATER}"):
            spec_of(frozen)


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("kind", sorted(NEWEST))
def test_an_unknown_number_is_refused_with_a_sentence(made: Installation, kind: str):
    file, found = made.file(kind), re.sub(r"\d+$", str(LATER), str(written(kind)))
    before = file.read_bytes()
    file.write_bytes(with_number(file, found if "/" in found else LATER))
    try:
        with pytest.raises(SpecError) as told:
            made.read(kind)
    finally:
        file.write_bytes(before)
    sentence = str(told.value)
    assert sentence.endswith(f"Windsock {__version__} wrote it; this is {__version__}.") == (kind in ("store", "home"))
    for part in (str(file), found, f"reads {written(kind, 1)!r}", "go on with the version that wrote it"):
        assert part in sentence
    assert "\n" not in sentence
    made.read(kind)


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("kind", sorted(set(NEWEST) - {"trainer request", "store", "home"}))
def test_a_file_of_0_1_without_a_number_is_read(made: Installation, kind: str):
    file = made.file(kind)
    before, read = file.read_bytes(), made.read(kind)
    file.write_bytes(with_number(file, None))
    try:
        again = made.read(kind)
    finally:
        file.write_bytes(before)
    if isinstance(read, dict) and "format" in read:
        again["format"] = read["format"]
    assert again == read


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize(
    ("kind", "number", "wrote"),
    [("store", 1, __version__), ("store", "gone", "0.1"), ("home", 1, __version__), ("home", None, "0.1")],
)
def test_an_earlier_layout_is_refused_with_the_command_that_brings_it_to_this_version(
    made: Installation, kind: str, number: Any, wrote: str
):
    file = made.file(kind)
    before = file.read_bytes()
    file.unlink() if number == "gone" else file.write_bytes(with_number(file, number))
    (made.settings.home / "store-mark.json").unlink(missing_ok=True)
    if number is None:
        file.write_text("State of a Windsock stack.\n")
    try:
        with pytest.raises(SpecError) as told:
            made.read(kind)
    finally:
        file.write_bytes(before)
    sentence = f"is laid out in format 1, by Windsock {wrote}; this is Windsock {__version__}, which"
    for part in (str(file), sentence, "Run `windsock upgrade", "takes a backup first"):
        assert part in str(told.value)
    assert "\n" not in str(told.value)
    made.read(kind)


@pytest.mark.parametrize("found", [0, 3, 1.0, True, "1", "windsock-request/1", [1], {}])
def test_only_the_number_itself_is_known(found: object):
    with pytest.raises(SpecError, match="here: is a store of format"):
        check("store", found, "here")


def test_a_later_version_reads_all_before_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(format_numbers, "NEWEST", {**NEWEST, "store": 3})
    for found in (None, 1, 2, 3):
        check("store", found, "here")
    assert numbered("store", {}) == {"format": 3}
    with pytest.raises(SpecError, match="reads 1, 2, 3"):
        check("store", 4, "here")


def test_the_number_is_no_part_of_a_record_s_hash(made: Installation, monkeypatch: pytest.MonkeyPatch):
    ledger = made.table.ledger(made.store)
    record = ledger.get(FIRST)
    assert record is not None
    monkeypatch.setattr(format_numbers, "NEWEST", {**NEWEST, "day record": 2})
    assert record.to_json()["format"] == 2
    assert record.to_json()["content_hash"] == record.content_hash
    assert ledger.publish(record) == record


@pytest.mark.usefixtures("afresh")
def test_a_store_gets_its_marker_when_it_is_first_written_to_and_not_by_reading(tmp_path: Path):
    fresh = Store.of(Settings.from_env({"WINDSOCK_HOME": str(tmp_path)}))
    assert not fresh.exists("anything")
    assert not Path(fresh.root).exists()
    fresh.write_bytes(b"", "fraud", "anything")
    assert fresh.read_json(store.MARKER) == {"format": NEWEST["store"], "mark": ANY, "windsock": __version__}


def test_a_card_of_an_unknown_format_is_no_model(made: Installation, tmp_path: Path):
    folder = Path(made.run.url("model"))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.json").write_bytes(with_number(folder / "model.json", "windsock-lightgbm/99"))
    with pytest.raises(DataContractError, match=r"windsock-lightgbm/99.*reads windsock-lightgbm/1"):
        load(tmp_path)


def test_a_definition_with_its_number_is_the_same_definition(made: Installation):
    file = made.file("definition")
    before = file.read_bytes()
    file.write_bytes(with_number(file, 1))
    try:
        assert get_spec(made.settings, "fraud") == made.spec
        assert yaml.safe_load(file.read_bytes())["format"] == 1
    finally:
        file.write_bytes(before)
