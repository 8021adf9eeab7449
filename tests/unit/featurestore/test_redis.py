"""On a real Redis the online store keeps what the embedded one promises, and its troubles are told in sentences."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from bench.stack import free_ports
from click.testing import CliRunner
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from examples import examples
from feature_tables import at, publish, table_of, two_views
from windsock.cli.step import materialize as materialize_command
from windsock.errors import SpecError, UpstreamUnavailable, WindsockError
from windsock.featurestore.definitions import apply
from windsock.featurestore.online_db import OnlineRow, micros_of
from windsock.featurestore.repo import feature_store, import_feast
from windsock.featurestore.sinks import open_sink
from windsock.settings import Settings
from windsock.steps import run_step
from windsock_local.stack.doctor import within
from windsock_local.stack.service_checks import check_online_store

CONFIG = """
project: windsock
provider: local
entity_key_serialization_version: 3
registry: {registry_store_type: windsock.featurestore.registry_store.WindsockRegistryStore}
offline_store: {type: windsock.featurestore.offline.WindsockOfflineStore}
online_store: {type: redis, connection_string: "${WINDSOCK_REDIS}"}
"""
PASSWORD = 'of "the: tests #{}'
DAYS = {
    2: [(1, at(2, 9), 1, 1.0), (1, at(2, 20), 2, 1.5), (2, at(2, 10), 1, 2.0)],
    3: [(2, at(3, 10), 2, 3.0), (3, at(3, 11, micro=250_000), None, float("nan"))],
    4: [(1, at(4, 8), 3, 4.0)],
    5: [(3, at(5, 8), 2, 5.0), (4, at(5, 9), 1, 6.0)],
}
EVERYBODY = [1, 2, 3, 4, 5, 9]


class Server:
    """A Redis of the tests' own."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_ports(1)[0], folder
        self.address = f"127.0.0.1:{self.port},password={PASSWORD},socket_timeout=2"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        quiet = ["--save", "", "--daemonize", "no", "--logfile", str(self._folder / "redis.log")]
        own = ["--bind", "127.0.0.1", "--port", str(self.port), "--requirepass", PASSWORD, "--dir", str(self._folder)]
        self.process = subprocess.Popen(["redis-server", *own, *quiet])
        while self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise AssertionError((self._folder / "redis.log").read_text())

    @property
    def client(self):
        """A client of it."""
        from redis import Redis

        return Redis(port=self.port, password=PASSWORD)

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (Debian's package of this name)")
    found = Server(tmp_path_factory.mktemp("redis"))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def world(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, object]]:
    """Two views with days in the tables, and a Redis."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "repo").mkdir()
    (folder / "repo" / "feature_store.yaml").write_text(CONFIG)
    settings, spec = two_views(folder)
    env = {
        "WINDSOCK_HOME": str(folder),
        "WINDSOCK_MODELS": str(settings.models[0]),
        "WINDSOCK_FEATURE_REPO": str(folder / "repo"),
        "WINDSOCK_REDIS": server.address,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        settings = Settings.from_env()
        for day, rows in DAYS.items():
            everything = [(t, n, n is not None, f"day {day}", t) for _, t, n, _ in rows]
            publish(settings, spec, date(2026, 3, day), {"spending": rows, "everything": everything})
        yield settings, spec


@pytest.fixture
def new(world, server: Server) -> tuple[Settings, object]:
    """The same with nothing online, as before the first day."""
    settings, spec = world
    forget(settings, spec, server)
    return settings, spec


def forget(settings: Settings, spec, server: Server) -> None:
    shutil.rmtree(Path(settings.store) / spec.name / "online", ignore_errors=True)
    server.client.flushall()


def materialize(settings: Settings, day: int, **options) -> dict:
    result = run_step("materialize", model="fraud", key=f"2026-03-{day:02}", settings=settings, options=options)
    return {view.partition("__")[2].partition("__")[0]: counts for view, counts in result["views"].items()}


def online(settings: Settings, spec) -> dict:
    table = table_of(spec, "spending")
    return open_sink(settings, [table]).read(table, EVERYBODY)


def latest(days, rows=DAYS) -> dict:
    ordered = sorted((r for d in days for r in rows[d]), key=lambda r: r[1])
    return {r[0]: OnlineRow(micros_of(r[1]), (r[2], b"nan" if r[3] != r[3] else r[3])) for r in ordered}


@examples(20, suppress=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.sampled_from(sorted(DAYS)), min_size=1, max_size=9))
def test_any_order_and_any_repetition_serve_the_latest_of_what_was_materialized(world, server, order):
    settings, spec = world
    forget(settings, spec, server)
    before: dict = {}
    for day in order:
        materialize(settings, day)
        now = online(settings, spec)
        assert all(now[e].micros >= row.micros for e, row in before.items()), "an entity went backwards"
        before = now
    assert before == latest(set(order))


def test_feast_serves_what_was_written_with_every_type(new):
    settings, spec = new
    for day in DAYS:
        materialize(settings, day)
    spending, everything = (table_of(spec, view).feast_name for view in ("spending", "everything"))
    store = feature_store(settings)
    found = store.get_online_features([f"{spending}:N_TX", f"{spending}:LAST_AMOUNT"], [{"CUSTOMER_ID": 1}]).to_dict()
    assert (found["N_TX"], found["LAST_AMOUNT"]) == ([3], [4.0])
    asked = [f"{everything}:{name}" for name in ("N_ALL", "BUSY", "WORD")]
    found = store.get_online_features(asked, [{"__dummy_id": ""}]).to_dict()
    assert [found[name] for name in ("N_ALL", "BUSY", "WORD")] == [[1], [True], ["day 5"]]


@pytest.mark.parametrize("regardless", [False, True])
def test_writers_in_parallel_never_leave_an_older_row(new, regardless):
    settings, spec = new
    apply(settings, remove_gone=False)
    table, rounds, entities = table_of(spec, "spending"), 100, list(range(40))
    sinks = [open_sink(settings, [table]) for _ in range(4)]
    barrier = threading.Barrier(len(sinks))
    older: list = []

    def write(number: int) -> None:
        for each in range(rounds):
            hour = (number + each) % len(sinks)
            new = {
                entity: OnlineRow(micros_of(at(1 + each % 28, hour, each // 28)), (each, float(hour)))
                for entity in entities
            }
            barrier.wait()
            sinks[number].write(table, new, regardless_of_time=regardless and hour == len(sinks) - 1)
            if barrier.wait() == 0:
                served = sinks[number].read(table, entities)
                older.extend(e for e, row in served.items() if row.values != (each, float(len(sinks) - 1)))
                sinks[number].delete(table, entities)
            barrier.wait()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(sinks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert older == []


def test_a_replaced_day_takes_its_rows_back_and_a_correction_removes_what_nobody_has(new):
    settings, spec = new
    for day in DAYS:
        materialize(settings, day)
    fewer = [(4, at(5, 9), 1, 6.0)]
    try:
        publish(settings, spec, date(2026, 3, 5), {"spending": fewer, "everything": []})
        assert materialize(settings, 5)["spending"] == {"written": 0, "skipped": 1, "retracted": 1}
        assert online(settings, spec) == latest(DAYS, {**DAYS, 5: fewer})

        publish(settings, spec, date(2026, 3, 5), {"spending": [], "everything": []})
        assert materialize(settings, 5, correct=True)["spending"]["removed"] == 1
        assert online(settings, spec) == latest([2, 3, 4])
    finally:
        everything = [(t, n, n is not None, "day 5", t) for _, t, n, _ in DAYS[5]]
        publish(settings, spec, date(2026, 3, 5), {"spending": DAYS[5], "everything": everything})


def test_an_emptied_server_is_filled_again_by_the_next_day_or_by_one_command(new, server):
    settings, spec = new
    for day in DAYS:
        materialize(settings, day)
    server.client.flushall()
    assert materialize(settings, 2)["spending"] == {"written": 0, "skipped": 2, "refilled": 4}
    assert online(settings, spec) == latest(DAYS)

    server.client.flushall()
    told = CliRunner().invoke(materialize_command, [spec.name, "--all"])
    assert told.exit_code == 0, told.output
    assert "spending" in told.output
    assert "4 days, 4 rows were missing or older" in told.output
    assert online(settings, spec) == latest(DAYS)


def test_a_view_that_feast_removes_takes_its_rows_and_notes_along(new, server):
    settings, spec = new
    materialize(settings, 3)
    store = feature_store(settings)
    view = store.get_feature_view(table_of(spec, "spending").feast_name)
    assert [key for key in server.client.keys("*") if b"CUSTOMER_ID" in key]
    store.apply([], objects_to_delete=[view], partial=False)
    assert not [key for key in server.client.keys("*") if b"CUSTOMER_ID" in key]

    (settings.home / "feast" / "applied.json").unlink()
    assert materialize(settings, 4)["spending"]["refilled"] > 0, "it comes back with all that it had"
    assert online(settings, spec) == latest(DAYS)


@pytest.mark.parametrize(
    ("trouble", "kind", "sentence"),
    [
        ("wrong password", SpecError, "refuses this login"),
        ("no right", SpecError, "refuses this login.*may use every command"),
        ("full", UpstreamUnavailable, "gives no answer.*maxmemory"),
        ("read only", UpstreamUnavailable, "gives no answer.*read only replica"),
        ("mute", UpstreamUnavailable, "gives no answer.*[Tt]imeout"),
        ("gone", UpstreamUnavailable, "gives no answer.*refused"),
    ],
)
def test_trouble_with_the_server_is_told_in_a_sentence_without_the_password(
    new, server, monkeypatch, trouble, kind, sentence
):
    settings, spec = new
    materialize(settings, 2)
    client = server.client
    if trouble == "wrong password":
        monkeypatch.setenv("WINDSOCK_REDIS", server.address.replace(PASSWORD, "of others"))
    elif trouble == "no right":
        client.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection")
        monkeypatch.setenv("WINDSOCK_REDIS", f"127.0.0.1:{server.port},username=reader,password=pw")
    elif trouble == "full":
        client.config_set("maxmemory", 1)
    elif trouble == "read only":
        client.replicaof("127.0.0.1", 1)
    elif trouble == "mute":
        os.kill(server.process.pid, signal.SIGSTOP)
    else:
        server.stop()
    try:
        begun = time.monotonic()
        doctors = within(10, check_online_store, settings)
        assert time.monotonic() - begun < 11
        assert doctors[0][0] == "problem"
        assert re.search(sentence, doctors[0][1])
        assert PASSWORD not in str(doctors)
        with pytest.raises(WindsockError, match=sentence) as told:
            materialize(settings, 3)
        assert type(told.value) is kind
        assert f"Redis at 127.0.0.1:{server.port}" in str(told.value)
        assert PASSWORD not in str(told.value)
    finally:
        if trouble == "full":
            client.config_set("maxmemory", 0)
        elif trouble == "read only":
            client.replicaof("NO", "ONE")
        elif trouble == "mute":
            os.kill(server.process.pid, signal.SIGCONT)
        elif trouble == "gone":
            server.start()
    monkeypatch.setenv("WINDSOCK_REDIS", server.address)
    materialize(settings, 3)
    assert online(settings, spec)[2] == latest([3])[2]


def test_doctor_tries_redis_and_says_what_would_lose_features(new, server):
    settings, _ = new
    ((verdict, finding, *_),) = within(10, check_online_store, settings)
    assert (verdict, server.client.dbsize()) == ("ok", 0), finding
    assert "forgets them at a restart" in finding, "this server saves nothing"
    materialize(settings, 2)
    keys = server.client.dbsize()
    server.client.config_set("maxmemory", 1 << 30)
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    server.client.config_set("save", "60 1")
    try:
        ((verdict, finding, step),) = within(10, check_online_store, settings)
        assert (verdict, server.client.dbsize()) == ("problem", keys)
        assert "evicts keys (allkeys-lru) when it is full" in finding
        server.client.config_set("maxmemory-policy", "noeviction")
        ((verdict, finding, *_),) = within(10, check_online_store, settings)
        assert verdict == "ok"
        assert f"keeps them over a restart; {keys} keys" in finding
    finally:
        server.client.config_set("maxmemory-policy", "noeviction")
        server.client.config_set("maxmemory", 0)
        server.client.config_set("save", "")
    server.client.flushall()
    ((verdict, finding, step),) = within(10, check_online_store, settings)
    assert (verdict, step) == ("problem", "windsock materialize fraud --all")
    assert "is empty, though features of fraud were there" in finding


@pytest.mark.parametrize("given", ["", "localhost", "redis://h:6379/0", "password=hidden", "h:port,password=hidden"])
def test_an_address_that_names_no_server_is_told_with_the_form_and_without_the_password(world, monkeypatch, given):
    monkeypatch.setenv("WINDSOCK_REDIS", given)
    with pytest.raises(SpecError, match=r"WINDSOCK_REDIS.*host:6379,db=0,password=\.\.\.") as told:
        materialize(world[0], 2)
    assert "hidden" not in str(told.value)


def test_a_variable_that_is_not_set_is_named(world, monkeypatch):
    settings, _ = world
    monkeypatch.delenv("WINDSOCK_REDIS")
    import_feast()
    with pytest.raises(SpecError, match="needs the environment variable WINDSOCK_REDIS"):
        materialize(settings, 2)
