"""The parent of the stack: starts the parts in order, keeps them alive, stops them all.

One thread and one loop. Each turn starts what may start, asks the unready whether they
are ready, and looks after those that died. Booting is only the turns until all are ready;
afterwards a turn comes when a child ends, or every few seconds, so that watching costs next to nothing.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from windsock.errors import UpstreamUnavailable
from windsock_local.stack import guardian, logs, state
from windsock_local.stack.ending import end_family
from windsock_local.stack.layout import Home
from windsock_local.stack.parts import SCHEDULER, Part
from windsock_local.stack.processes import MARKER_VARIABLE, adopt_orphans, end, reap_orphans, session_members, spawn
from windsock_local.stack.state import PartInfo, StackInfo

log = logging.getLogger(__name__)

BOOT_SECONDS = 240.0
"""Longest boot; a cold disk and a busy machine included."""
_BUSY_TURN_SECONDS, _QUIET_TURN_SECONDS = 0.1, 5.0
_MOST_RESTARTS, _RESTART_WINDOW_SECONDS = 5, 600.0
_LONGEST_PAUSE_SECONDS = 15.0
_TASKS_FINISH_SECONDS = 5.0
_PARTS_END_SECONDS = 2.0


@dataclass
class Child:
    """A part and the process that runs it now."""

    part: Part
    process: subprocess.Popen[bytes] | None = None
    info: PartInfo | None = None
    """What is published about the process."""
    deaths: list[float] = field(default_factory=list)
    not_before: float = 0.0
    """Monotonic time before which it is not started again."""

    @property
    def ready(self) -> bool:
        """Whether it runs and has answered."""
        return self.info is not None and self.info.ready


class Supervisor:
    """Runs one stack until it is told to stop.

    Args:
        home: Where state and logs go.
        parts: What to run.
        env: The environment of the parts.
        info: Addresses to publish; process ids are filled in here.
        on_ready: Called with a part's name and its boot seconds when it is ready.
        on_quiet_turn: Called every few seconds while all is well.
    """

    def __init__(
        self,
        home: Home,
        parts: list[Part],
        env: dict[str, str],
        info: StackInfo,
        on_ready: Callable[[str, float], None],
        on_quiet_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._home, self._info, self._on_ready, self._on_quiet_turn = home, info, on_ready, on_quiet_turn
        self._env = {**env, MARKER_VARIABLE: str(home.root)}
        self._children = {part.name: Child(part) for part in parts}
        self._done: set[str] = set()
        """Parts that are ready, and those that have ended as they should."""
        log_file = str(home.log(state.SUPERVISOR))
        self._own = {state.SUPERVISOR: PartInfo.of(os.getpid(), info.started, log=log_file, ready=True)}
        self._guardian: subprocess.Popen[bytes] | None = None
        self._signals = 0
        self._handlers_before: dict[signal.Signals, Any] = {}
        self._began = time.monotonic()
        self._wake, self._waker = socket.socketpair()

    @property
    def info(self) -> StackInfo:
        """What the state file says now."""
        return self._info

    @property
    def _all_ready(self) -> bool:
        return len(self._done) == len(self._children)

    def boot(self) -> bool:
        """Start everything and wait until all is ready.

        Returns:
            False if a signal asked to stop before that.

        Raises:
            UpstreamUnavailable: A part failed or did not get ready; all are stopped.
        """
        adopt_orphans()
        self._listen_to_signals()
        self._turn(booting=True)
        while not self._all_ready:
            if time.monotonic() - self._began > BOOT_SECONDS:
                waiting = next(name for name in self._children if name not in self._done)
                raise self._failure(waiting, f"was not ready after {BOOT_SECONDS:.0f} s")
            self._pause()
            if self._signals:
                return False
            self._turn(booting=True)
        self._publish(state=state.READY, boot_seconds=round(time.monotonic() - self._began, 1))
        return True

    def watch(self) -> None:
        """Keep the parts alive until a signal comes.

        Raises:
            UpstreamUnavailable: A part died too often to go on.
        """
        while not self._signals:
            self._turn(booting=False)
            reap_orphans(c.process.pid for c in self._children.values() if c.process is not None)
            if self._all_ready:
                self._on_quiet_turn()
            self._pause()

    def stop(self) -> None:
        """Stop everything: the scheduler first, so that tasks may end, the database last."""
        self._publish(state=state.STOPPING)
        self._let_tasks_finish()
        end_family(self._home, term_seconds=0.2 if self._signals > 1 else _PARTS_END_SECONDS)
        for child in self._children.values():
            if child.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(5)
        reap_orphans(())
        self._home.forget_run()
        signal.set_wakeup_fd(-1)
        for sig, handler in self._handlers_before.items():
            signal.signal(sig, handler)
        if self._guardian is not None:
            guardian.release(self._guardian)

    def _let_tasks_finish(self) -> None:
        """Ask the scheduler to leave, and give running tasks a moment to end well.

        Its workers leave when their task is done. The scheduler itself then spends
        seconds unloading libraries, which nobody needs to wait for.
        """
        scheduler = self._children.get(SCHEDULER)
        if scheduler is None or not scheduler.ready or scheduler.process is None:
            return
        scheduler.process.terminate()
        deadline = time.monotonic() + _TASKS_FINISH_SECONDS
        while self._signals < 2 and time.monotonic() < deadline:
            if all(member.pid == scheduler.process.pid for member in session_members(scheduler.process.pid)):
                return
            time.sleep(_BUSY_TURN_SECONDS)

    # --- one turn

    def _turn(self, *, booting: bool) -> None:
        self._guard()
        for name, child in self._children.items():
            part = child.part
            if child.process is None:
                ended_well = part.one_shot and name in self._done
                if not ended_well and self._done.issuperset(part.needs) and time.monotonic() >= child.not_before:
                    self._start(child)
                continue
            exit_code = child.process.poll()
            if exit_code is not None and not (part.one_shot and exit_code == 0):
                self._bury(child, exit_code, booting=booting)
                continue
            if part.go_after and self._done.issuperset(part.go_after):
                self._tell_go(child.process)
            if name in self._done or child.info is None:
                continue
            if exit_code == 0 if part.one_shot else part.ready(child.info.started):
                self._welcome(child, child.info)

    def _start(self, child: Child) -> None:
        part, log_file = child.part, self._home.log(child.part.name)
        logs.begin(log_file, part.command)
        # A file's time may be a clock tick older than the process that wrote it.
        started = time.time() - 0.05
        child.process = spawn(
            part.command,
            env={**self._env, **part.env},
            log_file=log_file,
            # The database changes into its own folder, the others need one they can write.
            cwd=self._home.airflow if part.user is None else self._home.postgres,
            death_signal=part.stop_signal,
            user=part.user,
            stdin=subprocess.PIPE if part.go_after else subprocess.DEVNULL,
        )
        child.info = PartInfo.of(child.process.pid, started, address=part.address, log=str(log_file))
        log.info("Started %s (pid %d).", part.name, child.process.pid)
        self._publish()

    def _tell_go(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None and not process.stdin.closed:
            with contextlib.suppress(OSError):  # it has died: the next turn sees that
                process.stdin.write(b"go\n")
                process.stdin.close()

    def _welcome(self, child: Child, info: PartInfo) -> None:
        part, seconds = child.part, time.time() - info.started
        part.after()
        child.info = replace(info, ready=True)
        self._done.add(part.name)
        log.info("%s is ready after %.1f s.", part.name, seconds)
        self._on_ready(part.name, seconds)
        self._publish()

    def _bury(self, child: Child, exit_code: int, *, booting: bool) -> None:
        """Clear up after a part that died by itself, and plan its next start."""
        name, now = child.part.name, time.monotonic()
        # What it forked would work on beside its successor.
        if child.info is not None:
            end(session_members(child.info.pid), signal.SIGKILL, wait_seconds=2)
        how = f"exit code {exit_code}" if exit_code >= 0 else f"signal {signal.Signals(-exit_code).name}"
        child.process, child.info = None, None
        self._done.discard(name)  # what needs it waits until it is back
        if self._signals:
            return
        if booting:
            raise self._failure(name, f"ended during boot ({how})")
        child.deaths = [t for t in child.deaths if now - t < _RESTART_WINDOW_SECONDS] + [now]
        if len(child.deaths) > _MOST_RESTARTS:
            minutes = _RESTART_WINDOW_SECONDS / 60
            raise self._failure(name, f"died {len(child.deaths)} times in {minutes:.0f} minutes ({how})")
        pause = min(2.0 ** (len(child.deaths) - 1), _LONGEST_PAUSE_SECONDS)
        child.not_before = now + pause
        path = self._home.log(name)
        log.warning("%s ended by itself (%s). Starting it again in %.0f s; see %s.", name, how, pause, path)
        self._publish()

    # --- the rest

    def _listen_to_signals(self) -> None:
        handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._on_signal)
        # Without a handler, a child's end would wake nobody.
        for sig, handler in (handlers | {signal.SIGCHLD: lambda _signum, _frame: None}).items():
            if signal.getsignal(sig) is not signal.SIG_IGN:  # nohup and --detach ignore SIGHUP
                self._handlers_before[sig] = signal.signal(sig, handler)
        for end_of_pair in (self._wake, self._waker):
            end_of_pair.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        self._signals += 1
        log.info("Got %s.", signal.Signals(signum).name)

    def _pause(self) -> None:
        """Wait for the next turn: a moment while something is not ready, else until a signal comes."""
        select.select([self._wake], [], [], _QUIET_TURN_SECONDS if self._all_ready else _BUSY_TURN_SECONDS)
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)

    def _guard(self) -> None:
        if self._guardian is not None and self._guardian.poll() is None:
            return
        if self._guardian is not None:
            log.warning("The guardian was killed. Starting another.")
        self._guardian = guardian.start(self._home)
        log_file = str(self._home.log(state.SUPERVISOR))
        self._own[state.GUARDIAN] = PartInfo.of(self._guardian.pid, time.time(), log=log_file, ready=True)
        self._publish()

    def _publish(self, **changes: object) -> None:
        """Write the state file; the lock keeps anybody else from writing it."""
        running = {n: c.info for n, c in self._children.items() if c.info is not None and not c.part.one_shot}
        self._info = replace(self._info, parts={**self._own, **running}, **changes)  # type: ignore[arg-type]
        state.write(self._home, self._info)

    def _failure(self, name: str, what: str) -> UpstreamUnavailable:
        path = self._home.log(name)
        return UpstreamUnavailable(f"{name} {what}. The end of {path}:\n{logs.tail(path)}")
