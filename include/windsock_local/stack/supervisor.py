"""The parent of the stack: starts the parts in order, keeps them alive, stops them all.

One thread and one loop. Each turn starts what may start, asks the unready whether they
are ready, and looks after those that died. Booting is only the turns until all are ready.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import FrameType

import psutil

from windsock.errors import UpstreamUnavailable
from windsock_local.stack import guardian, logs, state
from windsock_local.stack.ending import end_family
from windsock_local.stack.layout import Home
from windsock_local.stack.parts import SCHEDULER, Part
from windsock_local.stack.processes import ProcessId, adopt_orphans, end, reap_orphans, session_members, spawn
from windsock_local.stack.state import PartInfo, StackInfo

log = logging.getLogger(__name__)

BOOT_SECONDS = 240.0
"""Longest boot; a cold disk and a busy machine included."""
_BOOT_TURN_SECONDS, _WATCH_TURN_SECONDS = 0.1, 0.5
_MOST_RESTARTS, _RESTART_WINDOW_SECONDS = 5, 600.0
_LONGEST_PAUSE_SECONDS = 15.0
_TASKS_FINISH_SECONDS = 5.0
_PARTS_END_SECONDS = 2.0


@dataclass
class Child:
    """A part and the process that runs it now."""

    part: Part
    process: subprocess.Popen[bytes] | None = None
    identity: ProcessId | None = None
    started: float = 0.0
    """UTC seconds."""
    ready: bool = False
    told_go: bool = False
    deaths: list[float] = field(default_factory=list)
    not_before: float = 0.0
    """Monotonic time before which it is not started again."""


class Supervisor:
    """Runs one stack until it is told to stop.

    Args:
        home: Where state and logs go.
        parts: What to run.
        env: The environment of the parts.
        info: Addresses to publish; process ids are filled in here.
        on_ready: Called with a part's name and its boot seconds when it is ready.
    """

    def __init__(
        self,
        home: Home,
        parts: list[Part],
        env: dict[str, str],
        info: StackInfo,
        on_ready: Callable[[str, float], None],
    ) -> None:
        self._home, self._env, self._info, self._on_ready = home, env, info, on_ready
        self._children = {part.name: Child(part) for part in parts}
        self._done: set[str] = set()
        self._guardian: subprocess.Popen[bytes] | None = None
        self._guardian_started = 0.0
        self._signals = 0
        self._began = time.monotonic()

    @property
    def info(self) -> StackInfo:
        """What the state file says now."""
        return self._info

    def boot(self) -> bool:
        """Start everything and wait until all is ready.

        Returns:
            False if a signal asked to stop before that.

        Raises:
            UpstreamUnavailable: A part failed or did not get ready; all are stopped.
        """
        adopt_orphans()
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(sig) is not signal.SIG_IGN:  # nohup and --detach ignore SIGHUP
                signal.signal(sig, self._on_signal)
        self._guard()
        while not self._all_ready():
            if self._signals:
                return False
            self._turn(booting=True)
            if time.monotonic() - self._began > BOOT_SECONDS:
                waiting = [name for name, child in self._children.items() if not self._is_ready(name, child)]
                raise self._failure(waiting[0], f"was not ready after {BOOT_SECONDS:.0f} s")
            time.sleep(_BOOT_TURN_SECONDS)
        self._publish(new_state=state.READY, boot_seconds=round(time.monotonic() - self._began, 1))
        return True

    def watch(self) -> None:
        """Keep the parts alive until a signal comes.

        Raises:
            UpstreamUnavailable: A part died too often to go on.
        """
        while not self._signals:
            self._turn(booting=False)
            reap_orphans(c.process.pid for c in self._children.values() if c.process is not None)
            time.sleep(_WATCH_TURN_SECONDS)

    def stop(self) -> None:
        """Stop everything: the scheduler first, so that tasks may end, the database last."""
        self._publish(new_state=state.STOPPING)
        self._let_tasks_finish()
        end_family(self._home, self._info, term_seconds=0.2 if self._signals > 1 else _PARTS_END_SECONDS)
        for child in self._children.values():
            if child.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(5)
        reap_orphans(())
        self._home.state_file.unlink(missing_ok=True)
        self._home.scheduler_ready_file.unlink(missing_ok=True)
        if self._guardian is not None:
            guardian.release(self._guardian)

    def _let_tasks_finish(self) -> None:
        """Ask the scheduler to leave, and give running tasks a moment to end well.

        Its workers leave when their task is done. The scheduler itself then spends
        seconds unloading libraries, which nobody needs to wait for.
        """
        scheduler = self._children.get(SCHEDULER)
        if scheduler is None or not scheduler.ready or scheduler.identity is None:
            return
        if (process := scheduler.identity.process()) is None:
            return
        process.terminate()
        deadline = time.monotonic() + _TASKS_FINISH_SECONDS
        while self._signals < 2 and time.monotonic() < deadline:
            if all(member.pid == process.pid for member in session_members(process.pid)):
                return
            time.sleep(_BOOT_TURN_SECONDS)

    # --- one turn

    def _turn(self, *, booting: bool) -> None:
        self._guard()
        for name, child in self._children.items():
            if child.process is None:
                if self._may_start(name, child):
                    self._start(child)
                continue
            exit_code = child.process.poll()
            if exit_code is not None and not (child.part.one_shot and exit_code == 0):
                self._bury(child, exit_code, booting=booting)
                continue
            if not child.told_go and self._done.issuperset(child.part.go_after):
                self._tell_go(child)
            if not child.ready and (exit_code == 0 if child.part.one_shot else child.part.ready(child.started)):
                self._welcome(child)

    def _may_start(self, name: str, child: Child) -> bool:
        return (
            not (child.part.one_shot and name in self._done)
            and self._done.issuperset(child.part.needs)
            and time.monotonic() >= child.not_before
        )

    def _start(self, child: Child) -> None:
        part = child.part
        if part.before is not None:
            part.before()
        logs.begin(self._home.log(part.name), part.command)
        # A file's time may be a clock tick older than the process that wrote it.
        child.started = time.time() - 0.05
        child.told_go = not part.go_after
        child.process = spawn(
            part.command,
            env={**self._env, **part.env},
            log_file=self._home.log(part.name),
            # The database changes into its own folder, the others need one they can write.
            cwd=self._home.airflow if part.user is None else self._home.postgres,
            death_signal=part.stop_signal,
            user=part.user,
            stdin=subprocess.PIPE if part.go_after else subprocess.DEVNULL,
        )
        child.identity = ProcessId.of(child.process.pid)
        log.info("Started %s (pid %d).", part.name, child.process.pid)
        self._publish()

    def _tell_go(self, child: Child) -> None:
        child.told_go = True
        if child.process is not None and child.process.stdin is not None:
            with contextlib.suppress(OSError):  # it has died: the next turn sees that
                child.process.stdin.write(b"go\n")
                child.process.stdin.close()

    def _welcome(self, child: Child) -> None:
        part = child.part
        if part.after is not None and part.name not in self._done:
            part.after()
        child.ready = True
        self._done.add(part.name)
        seconds = time.time() - child.started
        log.info("%s is ready after %.1f s.", part.name, seconds)
        self._on_ready(part.name, seconds)
        self._publish()

    def _bury(self, child: Child, exit_code: int, *, booting: bool) -> None:
        """Clear up after a part that died by itself, and plan its next start."""
        name, now = child.part.name, time.monotonic()
        # What it forked would work on beside its successor.
        if child.identity is not None:
            end(session_members(child.identity.pid), signal.SIGKILL, wait_seconds=2)
        how = f"exit code {exit_code}" if exit_code >= 0 else f"signal {signal.Signals(-exit_code).name}"
        child.process, child.identity, child.ready = None, None, False
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

    def _all_ready(self) -> bool:
        return all(self._is_ready(name, child) for name, child in self._children.items())

    def _is_ready(self, name: str, child: Child) -> bool:
        return child.ready or (child.part.one_shot and name in self._done)

    def _guard(self) -> None:
        if self._guardian is not None and self._guardian.poll() is None:
            return
        if self._guardian is not None:
            log.warning("The guardian was killed. Starting another.")
        self._guardian_started = time.time()
        self._guardian = guardian.start(self._home, {**os.environ, "WINDSOCK_HOME": str(self._home.root)})
        self._publish()

    def _publish(self, *, new_state: str | None = None, boot_seconds: float | None = None) -> None:
        """Write the state file; the lock keeps anybody else from writing it."""
        own = {state.SUPERVISOR: (os.getpid(), self._info.started)}
        if self._guardian is not None:
            own[state.GUARDIAN] = (self._guardian.pid, self._guardian_started)
        parts: dict[str, PartInfo] = {}
        for name, (pid, started) in own.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                log_file = str(self._home.log(state.SUPERVISOR))
                parts[name] = PartInfo(pid, ProcessId.of(pid).birth, started, log=log_file, ready=True)
        for name, child in self._children.items():
            if child.identity is not None and not child.part.one_shot:
                pid, birth = child.identity.pid, child.identity.birth
                log_file = str(self._home.log(name))
                parts[name] = PartInfo(pid, birth, child.started, child.part.address, log_file, child.ready)
        self._info = replace(
            self._info,
            parts=parts,
            state=new_state or self._info.state,
            boot_seconds=boot_seconds if boot_seconds is not None else self._info.boot_seconds,
        )
        state.write(self._home, self._info)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        self._signals += 1
        log.info("Got %s.", signal.Signals(signum).name)

    def _failure(self, name: str, what: str) -> UpstreamUnavailable:
        path = self._home.log(name)
        return UpstreamUnavailable(f"{name} {what}. The end of {path}:\n{logs.tail(path)}")
