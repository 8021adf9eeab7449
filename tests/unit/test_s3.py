"""In a bucket the store keeps what it promises in a folder, and a bad day of the object store is told in a sentence."""

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from bench.s3_server import BUCKET, Relay, clear_clients, environment, s3_server

from small_model import small_fraud
from windsock import faults, store
from windsock.backup.target import Target
from windsock.cli import main
from windsock.days import utc_now
from windsock.errors import SpecError, UpstreamUnavailable, WindsockError
from windsock.faults import fault_behind
from windsock.ledger import Ledger
from windsock.listing import listed
from windsock.settings import Settings
from windsock.steps import run_step
from windsock.store import Store
from windsock.store_memory import REMEMBERED
from windsock_local.stack import service_checks
from windsock_local.stack.backup import back_up
from windsock_local.stack.doctor import within
from windsock_local.stack.service_checks import check_store

STEPS = ("ingest", "features")


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A bucket behind a relay."""
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        relay = Relay(url)
        yield relay
        relay.close()


@pytest.fixture
def bucket(relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The small model with a bucket as its store; requests that hang end within seconds."""
    settings, _ = small_fraud(tmp_path)
    for name, value in environment(relay.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(faults._LIMITS, "read_timeout", 0.5)
    clear_clients()
    relay.fault = lambda *_: None
    store = f"s3://{BUCKET}/{tmp_path.name}"
    monkeypatch.setenv("WINDSOCK_STORE", store)
    monkeypatch.setenv("WINDSOCK_HOME", str(settings.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(settings.models[0]))
    yield replace(settings, store=store)
    relay.fault = lambda *_: None
    clear_clients()


def days(settings: Settings, *wanted: int) -> None:
    for day in wanted:
        for step in STEPS:
            run_step(step, model="fraud", key=f"2026-03-{day:02}", settings=settings)


def contents(settings: Settings) -> dict[str, bytes]:
    """Return name to bytes of all that a store holds, without the times at which it was written."""
    store = Store.of(settings)
    names = [name for name in store.files() if name != "windsock.json"]
    return {name: re.sub(rb'"(recorded_at|seconds)": [^,\n]*', b"", store.read_bytes(name)) for name in names}


def test_of_many_writers_exactly_one_creates_an_object(bucket):
    store = Store.of(bucket)
    store.write_json({}, "first")

    def create(number: int) -> bool:
        try:
            store.create_bytes(f"writer {number}".encode(), "promotions", "1.json")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, mine in enumerate(pool.map(create, range(8))) if mine]
    assert len(won) == 1
    assert store.read_bytes("promotions", "1.json") == f"writer {won[0]}".encode()


def test_a_folder_that_gets_its_first_file_while_it_is_listed_is_no_file(bucket, relay):
    written = Store.of(bucket)
    written.write_json({}, "other", "1.json")

    def then_comes_a_file(path: str, body: bytes) -> bytes:
        if "list-type=2" in path and "new" in path:
            relay.alter = lambda _path, body: body
            written.write_json({}, folder, "1.json")
        return body

    for folder, find in (("new", written.files), ("newer", partial(listed, written))):
        relay.alter = then_comes_a_file
        assert find(folder) == []
        assert len(find(folder)) == 1


AWAY = [503, 500, "hang", "cut"]
REFUSED = ["AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "RequestTimeTooSkewed", "ExpiredToken"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_store_that_is_away_is_asked_again_and_one_that_refuses_is_not(bucket, relay, monkeypatch, method):
    monkeypatch.setitem(faults._LIMITS, "retries", {"mode": "standard", "total_max_attempts": 1})
    if method == "PUT":
        Store.of(bucket).look()
    for fault in [*AWAY, *REFUSED]:
        relay.fault = lambda asked, _path, fault=fault: fault if asked == method else None
        with pytest.raises(WindsockError, match=f"[Tt]he object store at {relay.url} ") as told:
            run_step("ingest", model="fraud", key="2026-03-01", settings=bucket)
        assert type(told.value) is (UpstreamUnavailable if fault in AWAY else SpecError), told.value
        assert "admin-secret" not in str(told.value)
    relay.fault = lambda *_: None
    run_step("ingest", model="fraud", key="2026-03-01", settings=bucket)


def test_a_day_in_a_bucket_is_that_in_a_folder_though_a_tenth_of_all_requests_fails(bucket, relay, tmp_path):
    asked = iter(range(10_000))
    relay.fault = lambda *_: 503 if next(asked) % 10 == 3 else None
    days(bucket, 1)
    relay.fault = lambda *_: None
    in_folder = replace(bucket, store=str(tmp_path / "store"), home=tmp_path / "other")
    days(in_folder, 1)
    assert contents(bucket) == contents(in_folder)


def test_what_the_day_before_has_read_is_asked_for_again_only_if_it_was_replaced(bucket, relay):
    asked: Counter[str] = Counter()
    days(bucket, 1, 2, 3, 4)
    relay.fault = lambda method, path: asked.update([path.partition("?")[0]]) if method == "GET" else None
    days(bucket, 5)
    assert [path for path in asked if re.search("2026-03-0[1-4]", path)] == []
    assert [path for path in asked if re.search("events/.*2026-03-05", path)], "it reads what is new"

    ledger, copies = Ledger.of(bucket, "fraud", "ingest"), bucket.home / "copies"
    first, *_, last = ledger.days()
    ledger.publish(replace(ledger.get(first), detail={"replaced": True}))
    known = ledger.between(first, last)
    assert known[first].detail == {"replaced": True}
    for copy in copies.iterdir():
        copy.write_bytes(b"nothing that was ever written")
    assert ledger.between(first, last) == known
    (copies / "old").touch()
    os.utime(copies / "old", (0, 0))
    ledger.publish(replace(ledger.get(last), detail={"replaced": True}))
    assert ledger.between(first, last)[last].detail == {"replaced": True}
    assert not (copies / "old").exists()
    assert {copy.stat().st_mode & 0o077 for copy in copies.iterdir()} == {0}


@pytest.mark.parametrize(
    ("login", "code", "sentence"),
    [
        ({"key": "admin", "secret": "of-another"}, 64, "refuses .*Key or secret is wrong|The secret does not fit"),
        ({"key": "nobody"}, 64, "refuses .*There is no such key|Key or secret is wrong"),
        ({"key": "reader"}, 64, "refuses PutObject.*lacks this right"),
    ],
)
def test_a_login_that_the_store_does_not_take_ends_a_command_with_a_sentence(
    bucket, relay, monkeypatch, capsys, login, code, sentence
):
    for name, value in environment(relay.url, **login).items():
        monkeypatch.setenv(name, value)
    clear_clients()
    assert main(["step", "ingest", "-m", "fraud", "-k", "2026-03-01"]) == code
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(sentence, told), told
    assert "Traceback" not in told


def test_without_a_login_or_a_server_a_command_ends_with_a_sentence(bucket, relay, monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    clear_clients()
    assert main(["models"]) == 64
    assert "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in capsys.readouterr().err

    for name, value in environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    clear_clients()
    assert main(["models"]) == 75
    assert "The object store at http://127.0.0.1:9 gives no answer" in capsys.readouterr().err


def test_other_errors_are_left_alone():
    assert fault_behind(ValueError("no store is behind it")) is None
    assert fault_behind(PermissionError("Forbidden")) is None


def test_doctor_tries_the_store_and_leaves_nothing_there(bucket):
    ((verdict, finding, *_),) = within(10, check_store, bucket)
    assert (verdict, finding) == ("ok", f"{bucket.store} creates, replaces, reads, lists and removes")
    assert not list(filter(None, Store(bucket.store).files()))


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ({"key": "reader"}, "refuses PutObject.*AccessDenied. The key lacks this right"),
        ({"secret": "wrong"}, "refuses HeadObject: 403. Key or secret is wrong"),
        ({"fault": ("GET", "list-type", "AccessDenied")}, "refuses ListObjectsV2.*AccessDenied"),
        ({"fault": ("DELETE", "doctor-", "AccessDenied")}, "AccessDenied. The key lacks this right"),
        ({"fault": ("PUT", "doctor-", 503)}, "gives no answer that helps"),
        ({"fault": ("GET", "", "hang")}, "no answer within 2 s|gives no answer that helps"),
        ({"fault": ("PUT", "doctor-", 200)}, "overwrites what it was told to create: of two promotions"),
        ({"minutes": 5}, r"is (29|30)\d s behind"),
        ({"minutes": -5}, r"is (29|30)\d s ahead"),
    ],
    ids=lambda value: " ".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else "",
)
def test_doctor_says_what_the_store_cannot_do(bucket, relay, monkeypatch, trouble, sentence):
    if {"key", "secret"} & trouble.keys():
        for name, value in environment(relay.url, **trouble).items():
            monkeypatch.setenv(name, value)
        clear_clients()
    if "fault" in trouble:
        method, part, wrong = trouble["fault"]
        hits = iter(range(100))
        spared = 2 if wrong == 200 else 0  # it is asked to create, to replace, and to create what is there
        own = bucket.store.rpartition("/")[2]  # who hung in a test before may still be on its way

        def fault(asked: str, path: str) -> int | str | None:
            return wrong if asked == method and part in path and own in path and next(hits) >= spared else None

        relay.fault = fault
    apart = timedelta(minutes=trouble.get("minutes", 0))
    monkeypatch.setattr(service_checks, "utc_now", lambda: utc_now() + apart)
    begun = time.monotonic()
    verdict, finding, step = within(2 if trouble.get("fault", "")[-1:] == ("hang",) else 10, check_store, bucket)[0]
    assert time.monotonic() - begun < 11
    assert verdict == "problem"
    assert re.search(sentence, finding), finding
    assert step
    assert "windsock up" not in finding + step


def test_a_store_of_0_1_in_a_bucket_is_upgraded_and_its_backup_in_a_bucket_brings_nothing_twice(
    bucket: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def another_process() -> None:
        for name in ("_opened", "_marked"):
            monkeypatch.setattr(store, name, set())

    days(bucket, 1, 2)
    before, place = contents(bucket), Target(f"s3://{BUCKET}/{tmp_path.name}-backups")
    Store.of(bucket).remove(store.MARKER)  # 0.1 wrote none
    (bucket.home / REMEMBERED).unlink()
    another_process()
    with pytest.raises(SpecError, match=r"by Windsock 0\.1; .*`windsock upgrade`"):
        Store.of(bucket).look()
    assert main(["upgrade", "--backup", str(place)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "windsock restore" in line]
    assert contents(bucket).items() >= before.items()

    back_up(bucket, place, lambda *_: None)
    again = Target(str(place))
    made = back_up(bucket, again, lambda *_: None)
    assert again.brought == 0 < made.bytes

    monkeypatch.setenv("WINDSOCK_STORE", f"{bucket.store}-elsewhere")
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path / "elsewhere"))
    another_process()
    assert main(line.partition("windsock ")[2].split()) == 0
    restored = replace(bucket, store=f"{bucket.store}-elsewhere", home=tmp_path / "elsewhere")
    another_process()
    with pytest.raises(SpecError, match=r"by Windsock 0\.1; .*`windsock upgrade`"):
        Store.of(restored).look()
    Store.of(restored).look(earlier=True)
    assert contents(restored) == before
