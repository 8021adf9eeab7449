"""Put a trainer through what can happen to it: twice the same, killed, stopped, wrong inputs.

A program on this machine and a container are tried alike. What a trainer leaves is judged by ``conformance``.
"""

import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windsock.errors import SpecError
from windsock.runs.contract import CHECKPOINTS, NATIVE_SCORES, REQUEST_VARIABLE
from windsock.runs.run_folder import METRICS, MODEL, REQUEST
from windsock.store import to_json
from windsock.trainer_kit.conformance import Broken, Finding, Unchecked, check_candidate, finding_of

GRACE_SECONDS = 30
"""How long a trainer may take to end after SIGTERM; Kubernetes kills it then."""
_MOMENTS = (0.6, 0.4, 0.2)
"""When it is interrupted unless it has kept progress before, in shares of the time that it took undisturbed; the
next if it was done already."""
_LOOK_SECONDS = 0.1
_OWN = f"{MODEL}/, {CHECKPOINTS}/, {METRICS} and {NATIVE_SCORES}"
"""What a trainer may write."""


@dataclass(frozen=True)
class Ended:
    """How a trainer ended."""

    code: int
    message: str
    """The last of what it wrote to standard output and standard error, or its termination message."""
    seconds: float


@dataclass(frozen=True)
class ProgramRunner:
    """Starts the trainer as a child of this process."""

    command: Sequence[str]
    """``{folder}`` stands for the run's folder, for commands that mount it."""
    environment: Mapping[str, str]
    """All that the trainer is given beside ``WINDSOCK_REQUEST``."""

    def start(self, request: Path) -> "RunningTrainer":
        """Start it on a request; returns at once.

        Raises:
            SpecError: There is no such program.
        """
        program = [part.replace("{folder}", str(request.parents[2])) for part in self.command]
        output = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the child
        try:
            child = subprocess.Popen(
                program,
                env={**self.environment, REQUEST_VARIABLE: str(request)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as err:
            raise SpecError(f"the trainer cannot be started: {err}. Its command is {' '.join(program)!r}.") from err
        return RunningTrainer(child, output, time.monotonic())


@dataclass(frozen=True)
class RunningTrainer:
    """A trainer that was started."""

    child: subprocess.Popen[bytes]
    output: Any
    started: float

    def wait(self, seconds: float) -> Ended | None:
        """Wait for its end; None if it still runs."""
        try:
            code = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        taken = time.monotonic() - self.started
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        return Ended(code if code >= 0 else 128 - code, lines[-1] if lines else "", taken)

    def send(self, signal_number: int) -> None:
        """Send it SIGTERM or SIGKILL."""
        if self.child.poll() is not None:
            return
        if signal_number == signal.SIGKILL:
            os.killpg(self.child.pid, signal_number)
        else:  # as in a pod, where only the first process is asked to end
            self.child.send_signal(signal_number)


def try_trainer(runner: ProgramRunner, request: Path, *, seconds: float = 600) -> Iterator[Finding]:
    """Put a trainer through everything; findings come as they are made. One training may take so many ``seconds``.

    The request lies in a run folder on this machine that may be written to: further candidates are made beside it.
    """
    before = _contents(request.parents[2])
    first = _run(runner, request, seconds)
    if first is None or first.code != 0:
        yield Finding("runs", False, f"the trainer {_how(first, seconds)}; 0 is expected for a good request")
        return
    yield Finding("runs", True, f"exit code 0 after {first.seconds:.1f} s")
    yield from check_candidate(str(request))
    yield finding_of("writes", _stays_in_its_folder, before, request)
    yield finding_of("again", _does_not_train_twice, runner, request, seconds)
    for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGTERM)):
        yield finding_of(name, _goes_on, runner, request, name, number, first.seconds, seconds)
    for name in _REFUSALS:
        yield finding_of(name, _refuses, runner, request, name, seconds)


def _run(runner: ProgramRunner, request: Path, seconds: float) -> Ended | None:
    started = runner.start(request)
    ended = started.wait(seconds)
    if ended is None:
        started.send(signal.SIGKILL)
        started.wait(GRACE_SECONDS)
    return ended


def _how(ended: Ended | None, seconds: float) -> str:
    if ended is None:
        return f"was not done after {seconds:.0f} s"
    return f"ended with exit code {ended.code} ({ended.message or 'it said nothing'})"


def _stays_in_its_folder(before: Mapping[str, str], request: Path) -> str:
    root, own = request.parents[2], request.parent.relative_to(request.parents[2])
    now = _contents(root)
    changed = sorted(name for name, content in before.items() if now.get(name) != content)
    if changed:
        raise Broken(f"{changed[0]} was changed or removed; what Windsock wrote is only read")
    places = tuple(str(own / place) for place in (f"{MODEL}/", f"{CHECKPOINTS}/", METRICS, NATIVE_SCORES))
    strange = sorted(name for name in now if name not in before and not name.startswith(places))
    if strange:
        raise Broken(f"{strange[0]} was written; only {_OWN} are")
    return f"nothing but {_OWN} was written"


def _does_not_train_twice(runner: ProgramRunner, request: Path, seconds: float) -> str:
    files = [request.parent / METRICS, *sorted((request.parent / MODEL).rglob("*"))]
    before = {path: path.stat().st_mtime_ns for path in files}
    again = _run(runner, request, seconds)
    if again is None or again.code != 0:
        raise Broken(f"on a finished candidate the trainer {_how(again, seconds)}; 0 is expected")
    touched = [path.name for path, when in before.items() if not path.exists() or path.stat().st_mtime_ns != when]
    if touched:
        raise Broken(
            f"on a finished candidate it wrote {touched[0]} again; if metrics.json answers the request already, end"
        )
    return f"a finished candidate was left alone, exit code 0 after {again.seconds:.1f} s"


def _goes_on(runner: ProgramRunner, request: Path, name: str, number: int, usual: float, seconds: float) -> str:
    for attempt, share in enumerate(_MOMENTS, 1):
        copy = _another(request, name if attempt == 1 else f"{name}-{attempt}", lambda raw: raw)
        message = _interrupt(runner, request, copy, number, share * usual, seconds)
        if message is not None:
            return message
    raise Unchecked("it was always done before it could be interrupted; try with more rows")


def _interrupt(
    runner: ProgramRunner, request: Path, copy: Path, number: int, after: float, seconds: float
) -> str | None:
    """Interrupt one training and let the next start finish it; None if it was done before."""
    running = runner.start(copy)
    early = _until_there_is_progress(running, copy.parent / CHECKPOINTS, after)
    if early is None:
        running.send(number)
        early = running.wait(GRACE_SECONDS)
    if early is None:
        running.send(signal.SIGKILL)
        running.wait(GRACE_SECONDS)
        raise Broken(
            f"it did not end within {GRACE_SECONDS} s of SIGTERM; handle it: a pod's first process ignores it else"
        )
    complete = (copy.parent / METRICS).exists()
    if early.code == 0 and not complete:
        raise Broken("interrupted, it ended with 0 but without metrics.json; end with another code")
    again = _run(runner, copy, seconds)
    if again is None or again.code != 0:
        raise Broken(f"started again after the interruption, the trainer {_how(again, seconds)}")
    broken = [finding for finding in check_candidate(str(copy)) if finding.kept is False]
    if broken:
        raise Broken(f"what it left after an interruption breaks {broken[0].clause}: {broken[0].message}")
    if complete:
        return None
    same = _contents(copy.parent / MODEL) == _contents(request.parent / MODEL)
    model = "with the same model" if same else "with a model that differs from the uninterrupted one"
    return f"interrupted after {early.seconds:.1f} s, the next start finished it, {model}"


def _until_there_is_progress(running: RunningTrainer, checkpoints: Path, after: float) -> Ended | None:
    """Wait until the trainer has kept something, or for some seconds if it keeps nothing; None: it runs."""
    deadline = time.monotonic() + after
    while time.monotonic() < deadline and not any(checkpoints.rglob("*")):
        if (ended := running.wait(_LOOK_SECONDS)) is not None:
            return ended
    return None


def _refuses(runner: ProgramRunner, request: Path, name: str, seconds: float) -> str:
    what, change, codes = _REFUSALS[name]
    copy = _another(request, name, change)
    ended = _run(runner, copy, seconds)
    if (copy.parent / METRICS).exists():
        raise Broken(f"given {what}, it wrote metrics.json all the same; check before training")
    if ended is None or ended.code not in codes:
        wanted = " or ".join(map(str, codes))
        raise Broken(f"given {what}, it {_how(ended, seconds)}; {wanted} is expected, so that nobody retries")
    if not ended.message:
        raise Broken(f"given {what}, it ended with {ended.code} without a word; say why in one sentence")
    return f"{what}: exit code {ended.code}, {ended.message!r}"


_REFUSALS: Mapping[str, tuple[str, Callable[[Any], Any], tuple[int, ...]]] = {
    "refuses-request": ("a request of another format", lambda raw: {**raw, "format": "windsock-trainer/999"}, (64,)),
    "refuses-rows": (
        "rows with another hash",
        lambda raw: {**raw, "train": {**raw["train"], "sha256": hashlib.sha256(b"something else").hexdigest()}},
        (64, 65),
    ),
}
"""Clause, what the trainer is given, how that is made of a good request, and the exit codes that say so."""


def _another(request: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Make a candidate beside the first one, with its rows and a changed request."""
    folder = request.parent.with_name(f"{request.parent.name}-{name}")
    folder.mkdir()
    raw = json.loads(request.read_bytes())
    rows = request.parent / raw["train"]["path"]
    if rows.parent == request.parent:
        (folder / rows.name).write_bytes(rows.read_bytes())
    (folder / REQUEST).write_bytes(to_json(change(raw)))
    # A trainer in a container is another user than the one who tries it.
    folder.chmod(request.parent.stat().st_mode)
    owner = request.parent.stat()
    if (owner.st_uid, owner.st_gid) != (os.getuid(), os.getgid()):
        os.chown(folder, owner.st_uid, owner.st_gid)
    return folder / REQUEST


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
