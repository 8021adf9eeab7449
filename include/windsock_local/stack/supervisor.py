"""The parent of the stack: starts the parts in order, keeps them alive, stops them all.

One thread and one loop. Each turn starts what may start, asks the unready whether they are ready, and looks after those
that died. Booting is only the turns until all are ready; afterwards a turn comes when a child ends, or every few
seconds, so that watching costs next to nothing.
"""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from windsock.errors import UpstreamUnavailable, WindsockError
from windsock_local.stack import processes
from windsock_local.stack.guardian import end_family, release_guardian, start_guardian
from windsock_local.stack.home import GUARDIAN, SUPERVISOR, Home, PartInfo, StackInfo
from windsock_local.stack.parts import SCHEDULER, Part

log = logging.getLogger(__name__)

BOOT_SECONDS = 240.0
"""Longest boot; a cold disk and a busy machine included."""
_BUSY_TURN_SECONDS, _QUIET_TURN_SECONDS = 0.1, 5.0
_LONGEST_PAUSE_SECONDS, _DEATHS_COUNT_SECONDS = 30.0, 600.0
"""A part that dies again and again is started for ever, as nobody but people can end the cause, but ever less often."""
_LOOK_SECONDS, _SILENT_LOOK_SECONDS = 15.0, 5.0
_LONGEST_SILENCE_SECONDS = 60.0
"""A busy machine makes everybody slow; who says nothing for so long, asked every five seconds, hangs."""
_TASKS_FINISH_SECONDS = 5.0
_PARTS_END_SECONDS = 2.0


@dataclass
class Child:
    """A part and the process that runs it now, if one does."""

    part: Part
    process: subprocess.Popen[bytes] | None = None
    info: PartInfo | None = None
    deaths: list[float] = field(default_factory=list)
    not_before: float = 0.0
    """Monotonic time before which it is not started again."""
    silent_since: float | None = None
    """Monotonic time since when it, once ready, has not answered."""

    @property
    def ready(self) -> bool:
        """Whether it has answered or, if it is to end by itself, ended well."""
        return self.info is not None and self.info.ready


class Supervisor:
    """Runs one stack until it is told to stop.

    ``info`` holds the addresses to publish; process ids are filled in here. ``on_ready`` is called with a part's name
    and its boot seconds when it is ready, ``on_quiet_turn`` every few seconds while all is well.
    """

    def __init__(
        self,
        home: Home,
        parts: list[Part],
        env: dict[str, str],
        info: StackInfo,
        on_ready: Callable[[str, float], None] = lambda _name, _seconds: None,
        on_quiet_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._home, self._on_ready, self._on_quiet_turn, self.info = home, on_ready, on_quiet_turn, info
        self._env, self._mark = env, {processes.MARKER_VARIABLE: str(home.root)}
        self._children = {part.name: Child(part) for part in parts}
        self._own = {SUPERVISOR: PartInfo(os.getpid(), processes.birth(os.getpid()), info.started, ready=True)}
        self._guardian: subprocess.Popen[bytes] | None = None
        self._signals = 0
        self._handlers_before: dict[signal.Signals, Any] = {}
        self._began = self._next_look = time.monotonic()
        self._wakeups: SimpleQueue[int] = SimpleQueue()
        """Signals that have come: its ``put`` may be called from a handler."""

    def boot(self) -> bool:
        """Start everything and wait until all is ready; return False if a signal asked to stop before that.

        Raises:
            UpstreamUnavailable: A part failed or did not get ready.
        """
        self._listen_to_signals()
        self._turn()
        while not self._ready(self._children):
            if time.monotonic() - self._began > BOOT_SECONDS:
                waiting = next(name for name, child in self._children.items() if not child.ready)
                raise self._failure(waiting, f"was not ready after {BOOT_SECONDS:.0f} s")
            self._pause()
            if self._signals:
                return False
            self._turn()
        self._publish(state="ready", boot_seconds=round(time.monotonic() - self._began, 1))
        return True

    def watch(self) -> None:
        """Keep the parts alive until a signal comes."""
        while not self._signals:
            self._turn()
            if time.monotonic() >= self._next_look:
                self._end_hung()
            if self._ready(self._children):
                self._on_quiet_turn()
            self._pause()

    def stop(self) -> None:
        """Stop everything: the scheduler first, so that tasks may end, the database last."""
        self._publish(state="stopping")
        self._let_tasks_finish()
        end_family(self._home, term_seconds=0.2 if self._signals > 1 else _PARTS_END_SECONDS)
        for child in self._children.values():
            if child.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(5)
        self._home.forget_run()
        for sig, handler in self._handlers_before.items():
            signal.signal(sig, handler)
        if self._guardian is not None:
            release_guardian(self._guardian)

    def _let_tasks_finish(self) -> None:
        """Ask the scheduler to leave, and give running tasks a moment to end well: its workers leave once done.

        The scheduler itself then spends seconds unloading libraries, which nobody needs to wait for.
        """
        scheduler = self._children.get(SCHEDULER)
        if scheduler is None or scheduler.process is None or not scheduler.ready:
            return
        process = scheduler.process
        process.terminate()
        deadline = time.monotonic() + _TASKS_FINISH_SECONDS
        while self._signals < 2 and time.monotonic() < deadline:
            if all(member.pid == process.pid for member in processes.session_members(process.pid)):
                return
            time.sleep(_BUSY_TURN_SECONDS)

    # --- one turn

    def _turn(self) -> None:
        self._guard()
        for child in self._children.values():
            part = child.part
            if child.process is None or child.info is None:
                if self._ready(part.needs) and time.monotonic() >= child.not_before:
                    self._start(child)
                continue
            exit_code = child.process.poll()
            if exit_code is not None and not (part.one_shot and exit_code == 0):
                self._bury(child, f"ended by itself ({_how(exit_code)})")
                continue
            stdin = child.process.stdin
            if stdin is not None and not stdin.closed and self._ready(part.go_after):
                with contextlib.suppress(OSError):  # it has died: the next turn sees that
                    stdin.write(b"go\n")
                    stdin.close()
            if not child.ready and (exit_code == 0 if part.one_shot else part.ready(child.info.started)):
                self._note_ready(child, child.info)

    def _start(self, child: Child) -> None:
        part, log_file = child.part, self._home.log(child.part.name)
        # A file's time may be a clock tick older than the process that wrote it.
        started = time.time() - 0.05
        try:
            child.process = processes.spawn(
                part.command,
                env={**(self._env if part.environment is None else part.environment), **part.env, **self._mark},
                log_file=log_file,
                # The database changes into its own folder, the others need one they can write.
                cwd=self._home.airflow if part.user is None else self._home.postgres,
                death_signal=part.stop_signal,
                user=part.user,
                stdin=subprocess.PIPE if part.go_after else subprocess.DEVNULL,
            )
        except OSError as err:  # its log cannot be written, for instance
            self._bury(child, f"could not be started ({err})")
            return
        child.info = PartInfo(child.process.pid, processes.birth(child.process.pid), started)
        child.silent_since = None
        log.info("Started %s (pid %d).", part.name, child.process.pid)
        self._publish()

    def _note_ready(self, child: Child, info: PartInfo) -> None:
        part, seconds = child.part, time.time() - info.started
        try:
            part.after()
        except (WindsockError, OSError) as err:  # it is away again, or the disk is full
            self._bury(child, f"cannot be used ({err})")
            return
        child.info = replace(info, ready=True)
        log.info("%s is ready after %.1f s.", part.name, seconds)
        self._on_ready(part.name, seconds)
        self._publish()

    def _end_hung(self) -> None:
        """End the parts that run but have said nothing for too long; they are started again like those that died.

        A part whose answer comes through another that is silent is not judged.
        """
        silent: set[str] = set()
        for name, child in self._children.items():
            part, info = child.part, child.info
            if part.one_shot or info is None:
                continue
            if silent & set(part.asked_through) or not self._ready(part.asked_through):
                child.silent_since = None
                continue
            now = time.monotonic()
            if child.ready and part.ready(info.started):
                child.silent_since = None
                continue
            silent.add(name)
            # One that was started again gets as long as a boot.
            patience = _LONGEST_SILENCE_SECONDS if child.ready else BOOT_SECONDS
            child.silent_since = child.silent_since or now
            if now - child.silent_since >= patience:
                self._bury(child, f"hung, without an answer for {now - child.silent_since:.0f} s")
        self._next_look = time.monotonic() + (_SILENT_LOOK_SECONDS if silent else _LOOK_SECONDS)

    def _bury(self, child: Child, how: str) -> None:
        """Clear up after a part that died or hangs, and plan its next start."""
        name, now = child.part.name, time.monotonic()
        # What it forked would work on beside its successor.
        if child.info is not None and child.process is not None:
            of_session = processes.session_members(child.info.pid)
            processes.end([*of_session, *processes.descendants(child.info.pid)], signal.SIGKILL, wait_seconds=2)
            child.process.poll()
        child.process, child.info = None, None  # what needs it waits until it is back
        if self._signals:
            return
        if self.info.state == "starting":
            raise self._failure(name, f"{how} during boot")
        child.deaths = [t for t in child.deaths if now - t < _DEATHS_COUNT_SECONDS] + [now]
        pause = min(2.0 ** (len(child.deaths) - 1), _LONGEST_PAUSE_SECONDS)
        child.not_before = now + pause
        room = "" if processes.has_room(self._home.root) else " The disk is full or read-only: make room."
        path = self._home.log(name)
        log.warning("%s %s. Starting it again in %.0f s; see %s.%s", name, how, pause, path, room)
        self._publish()

    def _ready(self, names: Iterable[str]) -> bool:
        return all(self._children[name].ready for name in names)

    # --- the rest

    def _listen_to_signals(self) -> None:
        # SIGCHLD, as without a handler a child's end would wake nobody.
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            if signal.getsignal(sig) is not signal.SIG_IGN:  # nohup and --detach ignore SIGHUP
                self._handlers_before[sig] = signal.signal(sig, self._on_signal)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if signum != signal.SIGCHLD:
            self._signals += 1
            log.info("Got %s.", signal.Signals(signum).name)
        self._wakeups.put(signum)

    def _pause(self) -> None:
        """Wait for the next turn: a moment while something is not ready, else until a signal comes."""
        with contextlib.suppress(Empty):
            self._wakeups.get(timeout=_QUIET_TURN_SECONDS if self._ready(self._children) else _BUSY_TURN_SECONDS)
            while True:
                self._wakeups.get_nowait()

    def _guard(self) -> None:
        if self._guardian is not None and self._guardian.poll() is None:
            return
        if self._guardian is not None:
            log.warning("The guardian was killed. Starting another.")
        self._guardian = start_guardian(self._home)
        pid = self._guardian.pid
        self._own[GUARDIAN] = PartInfo(pid, processes.birth(pid), time.time(), ready=True)
        self._publish()

    def _publish(self, **changes: object) -> None:
        """Write the state file; the lock keeps anybody else from writing it."""
        running = {n: c.info for n, c in self._children.items() if c.info is not None and not c.part.one_shot}
        self.info = replace(self.info, parts={**self._own, **running}, **changes)  # type: ignore[arg-type]
        try:
            self._home.record(self.info)
        except OSError as err:  # a full disk must not end what runs
            log.warning("What runs cannot be recorded: %s", err)

    def _failure(self, name: str, what: str) -> UpstreamUnavailable:
        path = self._home.log(name)
        return UpstreamUnavailable(f"{name} {what}. The end of {path}:\n{processes.log_tail(path)}")


def _how(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code >= 0 else f"signal {signal.Signals(-exit_code).name}"
