import json
import multiprocessing
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from small_model import small_fraud
from windsock.errors import ChampionChanged
from windsock.ledger import DayRecord, Ledger
from windsock.promotions import CHOSEN_BY, Promotion, append, champion_on, current, first_day_in_force, history
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store


def entry(version: str, from_day: str = "2026-05-02", **changed: object) -> Promotion:
    values = {
        "seq": 0,
        "kind": "promote",
        "version": version,
        "run": f"run-{version}",
        "previous": None,
        "in_force_from": date.fromisoformat(from_day),
        "as_of": date(2026, 5, 1),
        "reason": "test",
    }
    return Promotion(**{**values, **changed})  # type: ignore[arg-type]


@pytest.fixture
def fraud(tmp_path: Path) -> tuple[Settings, ModelSpec]:
    return small_fraud(tmp_path)


def test_before_the_first_promotion_nobody_is_champion(fraud: tuple[Settings, ModelSpec]) -> None:
    assert current(*fraud) is None
    assert champion_on(*fraud, date(2026, 5, 1)) is None
    assert history(*fraud) == []


def test_an_entry_comes_back_as_it_was_written(fraud: tuple[Settings, ModelSpec]) -> None:
    written = append(*fraud, entry("3", gate_summary={"passed": True}, by="ann", origin="manual__1"), after=None)

    assert current(*fraud) == written
    assert (written.seq, written.by) == (1, "ann")
    assert written.recorded_at


def test_each_day_belongs_to_the_latest_entry_in_force_by_then(fraud: tuple[Settings, ModelSpec]) -> None:
    first = append(*fraud, entry("1", "2026-05-02"), after=None)
    second = append(*fraud, entry("2", "2026-05-10", previous="1"), after=first)
    append(*fraud, entry("1", "2026-05-12", previous="2", kind="rollback"), after=second)

    on = {
        day: getattr(champion_on(*fraud, date.fromisoformat(f"2026-05-{day}")), "seq", None)
        for day in ("01", "02", "09", "10", "11", "12", "30")
    }

    assert on == {"01": None, "02": 1, "09": 1, "10": 2, "11": 2, "12": 3, "30": 3}


def test_an_entry_based_on_an_old_champion_is_refused_and_leaves_no_trace(fraud: tuple[Settings, ModelSpec]) -> None:
    first = append(*fraud, entry("1"), after=None)
    append(*fraud, entry("2", previous="1", by="ann"), after=first)

    with pytest.raises(ChampionChanged, match=r"version 3 was to follow version 1.*version 2 became champion.*ann"):
        append(*fraud, entry("3", previous="1"), after=first)

    assert [p.version for p in history(*fraud)] == ["1", "2"]
    folder = Path(fraud[0].store) / "fraud" / "promotions"
    assert sorted(p.name for p in folder.iterdir()) == ["000001.json", "000002.json"]


def test_a_version_is_in_force_after_all_that_has_arrived_and_never_before_its_predecessor(
    fraud: tuple[Settings, ModelSpec],
) -> None:
    settings, spec = fraud
    assert first_day_in_force(settings, spec, date(2026, 5, 1)) == date(2026, 5, 2)
    Ledger.of(settings, "fraud", "ingest").publish(DayRecord("2026-05-06", "empty"))
    assert first_day_in_force(settings, spec, date(2026, 5, 1)) == date(2026, 5, 7)
    append(settings, spec, entry("1", "2026-06-01"), after=None)
    assert first_day_in_force(settings, spec, date(2026, 5, 1)) == date(2026, 6, 1)


def test_a_day_ahead_of_a_history_that_is_still_to_be_brought_does_not_put_off_the_first_champion(
    fraud: tuple[Settings, ModelSpec],
) -> None:
    settings, spec = fraud
    for stage, days in {"ingest": ("2026-05-02", "2026-05-20", "2026-10-25"), "score": ("2026-05-03",)}.items():
        for day in days:
            Ledger.of(settings, "fraud", stage).publish(DayRecord(day, "no_champion" if stage == "score" else "empty"))
    assert first_day_in_force(settings, spec, date(2026, 5, 1)) == date(2026, 5, 21)
    append(settings, spec, entry("1", "2026-05-21"), after=None)
    detail = {"chosen_by": CHOSEN_BY, "model_version": "1"}
    Ledger.of(settings, "fraud", "score").publish(DayRecord("2026-10-25", "published", detail=detail))
    assert first_day_in_force(settings, spec, date(2026, 5, 1)) == date(2026, 10, 26)


def _race(settings: Settings, spec: ModelSpec, version: str, start: object, won: object) -> None:
    start.wait(30)  # type: ignore[attr-defined]
    for seq in range(1, 6):
        entries = history(settings, spec)
        after = entries[seq - 2] if seq > 1 else None
        try:
            append(settings, spec, entry(version, previous=after.version if after else None), after=after)
            won.put((seq, version))  # type: ignore[attr-defined]
        except ChampionChanged:
            pass


def test_of_eight_processes_exactly_one_wins_each_place(fraud: tuple[Settings, ModelSpec]) -> None:
    context = multiprocessing.get_context("fork")
    start, won = context.Barrier(8), context.Queue()
    racers = [context.Process(target=_race, args=(*fraud, str(n), start, won)) for n in range(8)]
    for racer in racers:
        racer.start()
    winners = [won.get(timeout=60) for _ in range(5)]
    for racer in racers:
        racer.join(60)

    assert all(racer.exitcode == 0 for racer in racers)
    assert won.empty()
    assert sorted(seq for seq, _ in winners) == [1, 2, 3, 4, 5]
    assert {p.seq: p.version for p in history(*fraud)} == dict(winners)


class _ObjectStore(BaseHTTPRequestHandler):
    """As much of S3 as a conditional PUT needs; can lose its answer after having stored."""

    objects: dict[str, bytes]
    lose_answers: int = 0
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING"):
            body = body.split(b"\r\n", 1)[1].rsplit(b"\r\n0", 1)[0]
        taken = self.headers.get("If-None-Match") == "*" and self.path in self.objects
        if not taken:
            self.objects[self.path] = body
        if type(self).lose_answers:
            type(self).lose_answers -= 1
            self.close_connection = True
            return
        self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>") if taken else self._answer(200, b"")

    def do_GET(self) -> None:
        found = self.objects.get(self.path.split("?")[0])
        self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>") if found is None else self._answer(200, found)

    def do_HEAD(self) -> None:
        self._answer(200 if self.path in self.objects else 404, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> object:
    handler = type("Handler", (_ObjectStore,), {"objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield handler
    server.shutdown()


def test_an_object_store_lets_one_writer_win_by_a_conditional_put(bucket: type[_ObjectStore]) -> None:
    store = Store("s3://bucket/store")

    store.create_bytes(b'{"a": 1}', "fraud", "promotions", "000001.json")
    with pytest.raises(FileExistsError):
        store.create_bytes(b'{"a": 2}', "fraud", "promotions", "000001.json")

    assert json.loads(store.read_bytes("fraud", "promotions", "000001.json")) == {"a": 1}


def test_a_conditional_put_whose_answer_was_lost_is_still_won(bucket: type[_ObjectStore]) -> None:
    bucket.lose_answers = 1
    store = Store("s3://bucket/store")

    store.create_bytes(b'{"a": 1}', "fraud", "promotions", "000001.json")

    assert json.loads(store.read_bytes("fraud", "promotions", "000001.json")) == {"a": 1}
