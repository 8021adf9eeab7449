"""A store that is gone, another one, or mistyped is refused in one sentence, wherever one asks: it is not empty."""

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import s3fs

from small_model import small_fraud
from windsock import __version__, store, store_upgrade
from windsock.cli import main
from windsock.errors import SpecError, UpstreamUnavailable
from windsock.ledger import Ledger
from windsock.promotions import history
from windsock.runs.run_folder import RunFolder
from windsock.settings import Settings
from windsock.spec import ModelSpec, load_specs
from windsock.steps import run_step
from windsock.store import MARKER, Store
from windsock.store_memory import MARK, REMEMBERED
from windsock_local.stack.lifecycle import WIPED, prepared_stack

DAY = "2026-05-02"


def begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a process that has looked at no store yet."""
    monkeypatch.setattr(store, "_opened", set())
    monkeypatch.setattr(store, "_marked", set())


@pytest.fixture
def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, ModelSpec]:
    """An installation that has written into its store; what follows is another process."""
    settings, spec = small_fraud(tmp_path)
    begin(monkeypatch)
    Store.of(settings).write_bytes(b"", "fraud", "anything")
    begin(monkeypatch)
    monkeypatch.setenv("WINDSOCK_HOME", str(settings.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(settings.models[0]))
    return settings, spec


def mark_of(settings: Settings) -> str:
    return str(json.loads(Path(settings.store, MARKER).read_text())[MARK])


def refused(settings: Settings, spec: ModelSpec, kind: type[Exception], said: str) -> None:
    """Ask in every way, and be refused each time."""
    asked = (
        lambda: Store.of(settings).exists("anything"),
        lambda: Store.of(settings).write_bytes(b"", "anything"),
        lambda: Store.of(settings).create_bytes(b"", "anything"),
        lambda: RunFolder.named(Store.of(settings), "fraud", "r").files(),
        lambda: Ledger.of(settings, "fraud", "ingest").days(),
        lambda: history(settings, spec),
        lambda: run_step("score", model="fraud", key=DAY, settings=settings),
        lambda: prepared_stack(settings, lambda _url, _seconds: None).__enter__(),
    )
    for ask in asked:
        with pytest.raises(kind, match=said) as told:
            ask()
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "all but the marker"])
def test_a_store_that_is_gone_is_refused_by_whoever_asks_and_nothing_is_written_in_its_place(
    used: tuple[Settings, ModelSpec], left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, spec = used
    folder = Path(settings.store)
    if left == "all but the marker":
        (folder / MARKER).unlink()
    else:
        shutil.rmtree(folder)
        if left == "an empty folder":
            folder.mkdir()
    before = sorted(folder.rglob("*"))

    refused(settings, spec, UpstreamUnavailable, f"^{folder}: here is no store, but .*{folder}, says .*{REMEMBERED}")
    for command in (["models"], ["step", "score", "-m", "fraud", "-k", DAY], ["canary"],
                    ["void", "fraud", "score", DAY, "--reason", "x"], ["reproduce", "--model", "fraud"]):  # fmt: skip
        assert main(command) == 75, command
        shown = capsys.readouterr().err.strip().splitlines()[-1]
        assert "here is no store" in shown, command
    assert sorted(folder.rglob("*")) == before


def test_another_store_is_refused_until_the_person_says_that_it_is_meant(
    used: tuple[Settings, ModelSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, spec = used
    other = replace(settings, home=tmp_path / "other home", store=str(tmp_path / "other"))
    other.home.mkdir()
    Store.of(other).write_bytes(b"", "anything")
    mixed = replace(settings, store=other.store)

    refused(
        mixed,
        spec,
        SpecError,
        f"^{other.store}: is another store .*{mark_of(other)[:12]}, not {mark_of(settings)[:12]}",
    )
    (settings.home / REMEMBERED).unlink()
    assert Store.of(mixed).exists("anything")
    begin(monkeypatch)
    assert Store.of(mixed).exists("anything")
    refused(settings, spec, SpecError, "is another store")


def test_a_store_that_was_moved_or_restored_is_the_same_and_a_fresh_home_adopts_it(
    used: tuple[Settings, ModelSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = used
    shutil.copytree(settings.store, tmp_path / "restored")
    shutil.rmtree(settings.store)
    moved = replace(settings, store=str(tmp_path / "restored"))
    assert Store.of(moved).exists("fraud", "anything")

    fresh = replace(moved, home=tmp_path / "fresh")
    Store.of(fresh).look()
    assert not fresh.home.exists()  # looking makes no home
    fresh.home.mkdir()
    begin(monkeypatch)
    Store.of(fresh).look()
    assert json.loads((fresh.home / REMEMBERED).read_text()) == {MARK: mark_of(moved), "store": moved.store}


def test_a_pod_knows_its_store_by_the_mark_in_its_environment(
    used: tuple[Settings, ModelSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, spec = used
    env = {"WINDSOCK_HOME": str(tmp_path / "pod"), "WINDSOCK_STORE": settings.store}
    given = Settings.from_env({**env, "WINDSOCK_STORE_MARK": mark_of(settings)})
    assert Store.of(given).exists("fraud")
    pod = replace(settings, home=tmp_path / "pod", store_mark="0" * 32)
    refused(pod, spec, SpecError, "is another store .*WINDSOCK_STORE_MARK.*remove the variable")
    shutil.rmtree(settings.store)
    begin(monkeypatch)
    refused(pod, spec, UpstreamUnavailable, "here is no store, .*WINDSOCK_STORE_MARK")


def test_a_store_of_0_1_gets_a_mark_by_its_upgrade_and_so_does_one_with_a_marker_alone(
    used: tuple[Settings, ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = used
    marker = Path(settings.store, MARKER)
    Path(settings.store, "fraud", "ledger").mkdir(parents=True)
    for before in (None, b'{"format": 1}'):
        (settings.home / REMEMBERED).unlink()
        marker.unlink() if before is None else marker.write_bytes(before)
        begin(monkeypatch)
        assert store_upgrade.is_earlier(settings)
        store_upgrade.begin(settings, "none")
        store_upgrade.finish(settings)
        assert not store_upgrade.is_earlier(settings)
        begin(monkeypatch)
        assert Store.of(settings).exists("fraud")
        assert json.loads(marker.read_text()) == {"format": 2, MARK: mark_of(settings), "windsock": __version__}
        assert mark_of(settings) in (settings.home / REMEMBERED).read_text()


def test_of_many_first_writers_all_know_the_same_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(monkeypatch)
    homes = [tmp_path / str(n) for n in range(8)]
    for home in homes:
        home.mkdir()

    def write(home: Path) -> str:
        settings = Settings.from_env({"WINDSOCK_HOME": str(home), "WINDSOCK_STORE": str(tmp_path / "store")})
        Store.of(settings).write_bytes(b"", home.name)
        return str(json.loads((home / REMEMBERED).read_text())[MARK])

    with ThreadPoolExecutor(8) as pool:
        marks = set(pool.map(write, homes))
    assert len(marks) == 1


def test_what_a_home_remembers_may_be_damaged_and_is_forgotten_with_the_home(used: tuple[Settings, ModelSpec]) -> None:
    settings, spec = used
    for content in ("", "{", "[]", "{}"):
        (settings.home / REMEMBERED).write_text(content)
        refused(settings, spec, SpecError, f"{REMEMBERED}: which store .* cannot be read")
    assert REMEMBERED in WIPED


@pytest.fixture
def nothing_there(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An object store without any bucket."""

    class NoBucket(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), NoBucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    named = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in {**named, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()


def test_a_bucket_that_does_not_exist_is_no_empty_store(
    nothing_there: None, used: tuple[Settings, ModelSpec], tmp_path: Path
) -> None:
    settings, spec = used
    fresh = replace(settings, home=tmp_path / "fresh", store="s3://mistyped/store")
    refused(fresh, spec, SpecError, "s3://mistyped/store: there is no bucket 'mistyped'")


def test_a_folder_of_models_that_does_not_exist_is_refused_and_not_a_folder_without_models(
    used: tuple[Settings, ModelSpec], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, _ = used
    for folders in ((Path("/nowhere"),), (*settings.models, Path("/nowhere"))):
        with pytest.raises(SpecError, match=r"^/nowhere: there is no such folder of models"):
            load_specs(replace(settings, models=folders))
    monkeypatch.setenv("WINDSOCK_MODELS", "/nowhere")
    for command in (["models"], ["lint"], ["plan"], ["step", "score", "-m", "fraud"], ["canary"]):
        assert main(command) == 64, command
        assert "/nowhere: there is no such folder of models" in capsys.readouterr().err
