"""The supervisor's loop, with small programs as parts."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from windsock.errors import UpstreamUnavailable
from windsock_local.stack import supervisor
from windsock_local.stack.guardian import end_leftovers
from windsock_local.stack.home import Home, StackInfo
from windsock_local.stack.parts import Part
from windsock_local.stack.processes import family
from windsock_local.stack.supervisor import Supervisor

SLEEP = ["sleep", "60"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.create()
    yield home
    end_leftovers(home)


@pytest.fixture
def supervise(home: Home) -> Callable[..., Supervisor]:
    def make(*parts: Part) -> Supervisor:
        info = StackInfo(str(home.root), "starting", "http://a", "http://m", "", time.time())
        return Supervisor(home, list(parts), dict(os.environ), info)

    return make


def part(name: str, command: list[str] = SLEEP, **more: object) -> Part:
    return Part(name, command, **{"ready": lambda _started: True, **more})  # type: ignore[arg-type]


def script(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_parts_start_when_what_they_need_is_ready_and_all_end(home: Home, supervise: Callable[..., Supervisor]) -> None:
    order: list[str] = []
    stack = supervise(
        part("last", needs=("once",), after=lambda: order.append("last")),
        part("once", ["true"], needs=("first",), one_shot=True, after=lambda: order.append("once")),
        part("first", after=lambda: order.append("first")),
    )

    assert stack.boot()

    assert order == ["first", "once", "last"]
    recorded = home.recorded()
    assert recorded is not None
    assert recorded.ready
    assert {"supervisor", "guardian", "first", "last"} == set(recorded.parts)
    assert {p.pid for p in family(home.root)} == {recorded.parts[name].pid for name in ("first", "last")}

    stack.stop()

    assert not any(p.process for name, p in recorded.parts.items() if name != "supervisor")
    assert home.recorded() is None


def test_a_part_told_to_go_gets_a_line_when_the_time_has_come(
    home: Home, supervise: Callable[..., Supervisor], tmp_path: Path
) -> None:
    went = tmp_path / "went"
    waiter = script(f"import time; input(); open({str(went)!r}, 'w').close(); time.sleep(60)")
    stack = supervise(
        part("waiter", waiter, go_after=("once",), ready=lambda _started: went.exists()),
        part("once", ["sleep", "0.2"], one_shot=True),
    )

    assert stack.boot()
    stack.stop()


def test_a_part_that_dies_during_boot_stops_it_with_the_end_of_its_log(
    supervise: Callable[..., Supervisor],
) -> None:
    stack = supervise(
        part("broken", script("print('no such table: dag'); raise SystemExit(3)"), ready=lambda _started: False),
        part("other"),
    )

    with pytest.raises(
        UpstreamUnavailable, match=r"broken ended by itself \(exit code 3\) during boot[\s\S]*no such table: dag"
    ):
        stack.boot()
    stack.stop()


def test_a_part_that_dies_again_and_again_is_started_for_ever_but_ever_less_often(
    supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "_QUIET_TURN_SECONDS", 0.1)
    starts: list[int] = []

    def count() -> None:
        starts.append(1)
        if len(starts) == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    stack = supervise(part("steady"), part("frail", ["sleep", "0.3"], after=count))
    assert stack.boot()
    stack.watch()
    stack.stop()

    assert len(starts) == 8
    assert sum(message.startswith("Started steady ") for message in caplog.messages) <= 1, "the others stay"
    monkeypatch.undo()
    frail = supervisor.Child(part("frail"))
    waited = []
    for _death in range(7):
        stack._signals, before = 0, time.monotonic()
        stack._bury(frail, "ended by itself")
        waited.append(round(frail.not_before - before))
    assert waited == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("error", [UpstreamUnavailable("Airflow has gone away again"), OSError(28, "disk full")])
def test_a_part_whose_setting_up_fails_after_it_came_back_is_started_again_too(
    supervise: Callable[..., Supervisor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE_SECONDS", 0.0)
    tries: list[int] = []

    def set_up() -> None:
        tries.append(1)
        if len(tries) == 1:
            return
        if len(tries) == 2:
            raise error
        os.kill(os.getpid(), signal.SIGTERM)

    stack = supervise(part("server", ["sleep", "0.2"], after=set_up))
    assert stack.boot()
    stack.watch()
    stack.stop()

    assert len(tries) == 3
    assert any(f"server cannot be used ({error})" in message for message in caplog.messages)


def test_a_part_that_hangs_is_started_again_and_nobody_who_is_asked_through_it(
    home: Home, supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, seconds in (("_QUIET_TURN_SECONDS", 0.05), ("_LOOK_SECONDS", 0.0), ("_SILENT_LOOK_SECONDS", 0.0)):
        monkeypatch.setattr(supervisor, name, seconds)
    monkeypatch.setattr(supervisor, "_LONGEST_SILENCE_SECONDS", 1.0)
    beat, starts = tmp_path / "beat", []
    beating = script(f"import os, time; os.fork()\nwhile True: open({str(beat)!r}, 'w').close(); time.sleep(0.05)")

    def beats(_started: float) -> bool:
        return beat.exists() and time.time() - beat.stat().st_mtime < 0.5

    def asked() -> None:
        """End the watch once the part is back; before that stop it, and what it forked, as the kernel can."""
        starts.append(time.monotonic())
        pids = [p.pid for p in family(home.root) if "while True" in " ".join(p.cmdline())]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP if len(starts) == 1 else signal.SIGCONT)
        if len(starts) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    stack = supervise(
        part("beating", beating, ready=beats, after=asked), part("asker", ready=beats, asked_through=("beating",))
    )
    assert stack.boot()
    asker = home.recorded().parts["asker"]  # type: ignore[union-attr]

    stack.watch()

    assert len(starts) == 2
    assert home.recorded().parts["asker"] == asker  # type: ignore[union-attr]
    assert len([p for p in family(home.root) if "while True" in " ".join(p.cmdline())]) <= 2, "none of the first pair"
    stack.stop()


def test_a_signal_ends_the_watch(supervise: Callable[..., Supervisor]) -> None:
    stack = supervise(part("one"))
    assert stack.boot()

    os.kill(os.getpid(), signal.SIGTERM)
    stack.watch()
    stack.stop()

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "what signals did before, they do again"


def test_what_a_dead_part_forked_does_not_work_on_beside_its_successor(
    home: Home, supervise: Callable[..., Supervisor]
) -> None:
    stack = supervise(part("forker", script("import os, time; os.fork(); time.sleep(60)")))
    assert stack.boot()
    recorded = home.recorded()
    assert recorded is not None
    leader = recorded.parts["forker"]
    deadline = time.monotonic() + 5
    while not (children := leader.process.children()) and time.monotonic() < deadline:  # type: ignore[union-attr]
        time.sleep(0.05)

    os.kill(leader.pid, signal.SIGKILL)
    while leader.process:
        time.sleep(0.05)
    stack._turn()

    assert len(children) == 1
    assert not children[0].is_running() or children[0].status() == "zombie"
    stack.stop()
