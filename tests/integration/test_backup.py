"""A backup that was taken while days ran is restored elsewhere and gone on with; whoever is cut off says what is next.

The installation is the one that version 0.1 left, with its databases; days run as steps in a process beside the backup.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fixture_v0_1 import MODELS, database, golden, mlflow_server, sql, unpack, upgraded
from kill import DieAt, run_in_child, snapshot
from runbook import START, lines_of, run_line
from whole_chain import online_content
from windsock import promotions, store
from windsock.backup.target import Target
from windsock.cli import main
from windsock.errors import SpecError
from windsock.ledger import Ledger
from windsock.registry.versions import alias_version
from windsock.reproduce import reproduce
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.steps import run_step
from windsock.store import Store
from windsock_local.stack.backup import back_up, restore

pytestmark = pytest.mark.integration

STAGES = ["ingest", "labels", "features", "score"]
CHAIN = ["ingest", "labels", "features", "materialize", "score"]
RUN_DAYS = """
import sys
from datetime import date, timedelta
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.steps import run_step

settings = Settings.from_env()

def steps():
    while True:
        for model in sys.argv[1:]:
            spec = get_spec(settings, model)
            day = Ledger.of(settings, model, "score").days()[-1] + timedelta(days=1)
            for stage in ("ingest", "labels", "features", "materialize", "score"):
                if stage != "labels" or spec.label.files is not None:
                    run_step(stage, model=model, key=str(day), settings=settings)
                    yield f"{model} {day} {stage}"

for _, done in zip(sys.stdin, steps()):  # one step for each line
    print(done, flush=True)
"""
BACKUPS = 4
STEPS = 6
"""How many steps run beside each backup: of all together the deliveries of three days are enough for."""


def quiet(_what: str, _done: int, _of: int) -> None:
    """Show no progress."""


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes this a process that has looked at no store yet."""

    def forget() -> None:
        monkeypatch.setattr(store, "_opened", set())
        monkeypatch.setattr(store, "_marked", set())

    forget()
    return forget


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="windsock-"))  # short: a socket's name may have 107 bytes
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    """The installation, at rest, with its databases, of today's version."""
    return upgraded(unpack(folder / "home"))


def elsewhere(folder: Path, name: str) -> Settings:
    place = folder / name
    return Settings.from_env({"WINDSOCK_HOME": str(place / "home"), "WINDSOCK_STORE": str(place / "store")})


def runs_of_airflow(settings: Settings) -> str:
    with database(settings) as server:
        return sql(server, "airflow", "select dag_id, run_id, state from dag_run order by 1, 2")


@pytest.fixture(scope="module")
def under_load(folder: Path, settings: Settings) -> tuple[Target, list[dict[str, Any]]]:
    """Backups that were taken one after the other while days ran, and the readers' view of each, restored elsewhere."""
    target = Target(str(folder / "backups"))
    env = {"WINDSOCK_HOME": str(settings.home), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN_DAYS, *MODELS]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as days:
        assert days.stdin is not None
        assert days.stdout is not None
        for _ in range(BACKUPS):
            days.stdin.write("go\n" * STEPS)
            days.stdin.flush()
            assert days.stdout.readline(), "no step ran"  # the others run while the backup is taken
            back_up(settings, target, quiet)
            assert all(days.stdout.readline() for _ in range(STEPS - 1)), "the days ended early"
        days.stdin.close()
        assert days.wait() == 0
    views = []
    for number, name in enumerate(target.names()):
        place = elsewhere(folder, f"view{number}")
        restore(place, target, target.manifest(name), "store", quiet)
        views.append({model: snapshot(place, model, STAGES) for model in MODELS})
        shutil.rmtree(place.store)
    return target, views


def test_each_backup_under_load_is_a_moment_of_the_store_with_all_that_its_records_name(
    under_load: tuple[Target, list[dict[str, Any]]], settings: Settings
) -> None:
    _, views = under_load
    final = {model: snapshot(settings, model, STAGES) for model in MODELS}
    for view in views:
        for model in MODELS:
            for key, (hashed, inputs, _) in view[model].items():
                stage, _, day = key.rpartition("/")
                kept = Path(settings.store, model, "ledger", stage, "history", day, f"{hashed}.json")
                assert kept.is_file(), f"{key} was never in force"
                lacking = {name for name, _ in inputs if name in final[model]} - view[model].keys()
                assert not lacking, f"{key} was made from days that are not there"
    assert len({sum(map(len, view.values())) for view in views}) > 1, "days were added between the backups"


def test_what_did_not_change_is_kept_once(under_load: tuple[Target, list[dict[str, Any]]], settings: Settings) -> None:
    target, _ = under_load
    again = Target(target.store.root)
    made = back_up(settings, again, quiet)
    before = target.manifest(target.names()[0])
    assert again.brought < 0.2 * made.bytes
    assert len(made.files) > 0.9 * len(before.files)


def test_it_is_restored_elsewhere_and_gone_on_with(
    under_load: tuple[Target, list[dict[str, Any]]], settings: Settings, folder: Path, afresh: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    target, views = under_load
    place = elsewhere(folder, "other")
    for name, value in (("WINDSOCK_STORE", place.store), ("WINDSOCK_HOME", str(place.home))):
        monkeypatch.setenv(name, value)
    name = target.names()[0]
    assert main(["restore", str(target), "--backup", name]) == 0, capsys.readouterr().err
    afresh()
    place = elsewhere(folder, "other")  # with the models that the backup brought
    assert {model: snapshot(place, model, STAGES) for model in MODELS} == views[0]
    assert runs_of_airflow(place) == runs_of_airflow(settings)
    assert (place.home / "secrets").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (place.home / "secrets").iterdir()} <= {0o600}
    with mlflow_server(place) as running:
        for model in MODELS:
            spec = get_spec(running, model)
            assert promotions.history(running, spec) == promotions.history(settings, spec)
            in_force = promotions.current(running, spec)
            assert in_force is not None
            day = Ledger.of(running, model, "score").days()[-1] + timedelta(days=1)
            for stage in CHAIN:
                if stage != "labels" or spec.label.files is not None:
                    run_step(stage, model=model, key=str(day), settings=running)
            assert alias_version(running, spec, "champion") == in_force.version
            scored = Ledger.of(running, model, "score").get(day)
            assert scored is not None
            assert scored.detail["model_version"] == in_force.version
        assert reproduce(running, "cards", golden(place.home)["cards"]["versions"]["1"]["run"]).equal
    assert any(online_content(place).values())


def test_the_runbook_s_lines_bring_back_what_was_lost(
    under_load: tuple[Target, list[dict[str, Any]]], settings: Settings, folder: Path, afresh: Callable[[], None]
) -> None:
    lines_folder, target = folder / "lines", folder / "by the runbook"
    lines_folder.mkdir()
    for line in lines_of("Backups"):
        done = run_line(line, lines_folder, target, WINDSOCK_HOME=str(settings.home))
        assert done.returncode == 0, done.stderr
    place = Settings.from_env({"WINDSOCK_HOME": str(lines_folder / "var")})
    for lost in ("**The disk is lost**", "**The database is lost**", "**The store is lost**"):
        for line in lines_of("Backups", lost):
            if line != START:  # by an upgrade it is run as it stands
                done = run_line(line, lines_folder, target)
                assert done.returncode == 0, (line, done.stderr)
        afresh()
        place = Settings.from_env({"WINDSOCK_HOME": str(place.home)})
        assert {m: snapshot(place, m, STAGES) for m in MODELS} == {m: snapshot(settings, m, STAGES) for m in MODELS}
        assert runs_of_airflow(place) == runs_of_airflow(settings), lost
    assert any(online_content(place).values())


class Work:
    """A backup or a restoring, to be done in another process."""

    def __init__(self, settings: Settings, target: str, *, back: bool) -> None:
        self.settings, self.target, self.back = settings, target, back

    def __call__(self) -> None:
        target = Target(self.target)
        if self.back:
            restore(self.settings, target, target.manifest(), None, quiet)
        else:
            back_up(self.settings, target, quiet)


@pytest.mark.kill
@pytest.mark.parametrize(
    "place",
    ["windsock.backup.target:Target.keep_file", "windsock_local.stack.postgres:Postgres.dump",
     "windsock.backup.target:Target.finish"],
)  # fmt: skip
def test_a_backup_that_was_cut_off_is_no_backup_and_the_next_one_goes_on(
    settings: Settings, folder: Path, tmp_path: Path, place: str
) -> None:
    target = tmp_path / "backups"
    run_in_child(Work(settings, str(target), back=False), DieAt(place, call=1 if "keep_file" not in place else 40))
    with pytest.raises(SpecError, match=r"backups: this backup is unfinished, .* Run `windsock backup` again"):
        Target(str(target)).manifest()
    again = Target(str(target))
    made = back_up(settings, again, quiet)
    assert again.brought < made.bytes
    assert Target(str(target)).manifest() == made


@pytest.mark.kill
def test_a_restoring_that_was_cut_off_is_refused_everywhere_and_run_again_goes_on(
    settings: Settings, folder: Path, afresh: Callable[[], None]
) -> None:
    target = str(folder / "kill")
    made = back_up(settings, Target(target), quiet)
    assert "home/feast/online.db" in made.files
    place = elsewhere(folder, "cut")
    places = [DieAt("windsock.backup.target:Target.parts", call) for call in (1, 40)]
    places += [
        DieAt(f"windsock_local.stack.backup:{name}", after=name == "_load") for name in ("_put_back_home", "_load")
    ]
    places.insert(-1, DieAt("windsock_local.stack.postgres:Postgres.load", 2))
    for die_at in places:
        run_in_child(Work(place, target, back=True), die_at)
        afresh()
        said = f"half restored: .*`windsock restore {target} --backup {made.made_at}` again"
        if (place.home / ".windsock-home").exists():
            assert main(["up", "--home", str(place.home)]) == 64
        if (Path(place.store) / store.MARKER).exists() and b"restoring" in (
            Path(place.store) / store.MARKER
        ).read_bytes():
            with pytest.raises(SpecError, match=said):
                Store.of(place).exists("anything")
    run_in_child(Work(place, target, back=True))
    afresh()
    for name, entry in made.part("store").items():
        assert (Path(place.store) / name).stat().st_size == entry.size
    found = {f.relative_to(place.store) for f in Path(place.store).rglob("*") if f.is_file() and f.suffix != ".tmp"}
    assert found == {Path(name) for name in made.part("store")}
    assert runs_of_airflow(place) == runs_of_airflow(settings)
    with pytest.raises(SpecError, match=r"is not empty .* Move it away"):
        restore(place, Target(target), made, None, quiet)
    with pytest.raises(SpecError, match=r"is not empty .* Move it away"):
        restore(replace(place, home=folder / "nowhere"), Target(target), made, None, quiet)


def test_a_damaged_content_is_found_before_it_is_in_place(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target(str(tmp_path / "backups"))
    made = back_up(settings, target, quiet)
    name, entry = next((n, e) for n, e in made.part("store").items() if n.endswith(".parquet"))
    content = tmp_path / "backups" / "files" / entry.sha256[:2] / entry.sha256
    content.write_bytes(b"x" * entry.size)
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WINDSOCK_STORE", str(tmp_path / "store"))
    assert main(["restore", str(target), "--only", "store"]) == 65
    assert f"{name}: its content has hash" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "store" / name).exists()
