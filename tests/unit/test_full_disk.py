"""A disk that is full, or read-only, at every write of every step: a sentence, nothing half-written, and on it goes.

It takes some twenty seconds, as every step that writes runs several times, each time in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from examples import thorough
from fork_server import fork_context
from small_disk import SmallDisk
from training_world import AS_OF, TRAINING, world_spec
from windsock import faults

MEGABYTES = 64
ROOM = (0, 4 << 10, 12 << 10, 40 << 10, 120 << 10, 400 << 10, 1200 << 10, 4 << 20)
"""Bytes that are left free, until a step ends well: no room at its first write, at a later one, at the last."""
QUICK_ROOM = (0, 12 << 10, 120 << 10)
STACK = "a stack"
NEW, REFUSED = "2026-03-14", "2026-03-15"


@dataclass(frozen=True)
class Attempt:
    """What came of one attempt to do something on a disk that is full, read-only, or has room (None)."""

    what: str
    room: int | str | None
    said: str
    """Kind and text of the exception; empty: none."""
    broken: tuple[str, ...] = ()
    """Files that were left half-written."""


@pytest.fixture(scope="module")
def attempts(world: tuple[Path, Any, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Attempt]:
    ours, theirs = fork_context().Pipe()
    child = fork_context().Process(target=_walk, args=(world[0], tmp_path_factory.mktemp("small"), theirs))
    child.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        pytest.fail("the walk died")
    finally:
        child.join()
    if isinstance(found, str):
        assert found.startswith("no small disk here"), found
        pytest.skip(found)
    return found


def test_a_full_or_read_only_disk_is_a_sentence_wherever_it_is_met(attempts: list[Attempt]) -> None:
    met = [a for a in attempts if a.room is not None and a.said and not a.said.startswith("DayRejected")]
    names = list(dict.fromkeys(a.what for a in attempts if a.what != STACK))
    assert [a.what for a in met if a.room == 0] == [a.what for a in met if a.room == "read-only"] == names
    kinds = {a.said.partition(":")[0] for a in met}
    assert kinds == {"UpstreamUnavailable", "SpecError"}, "the latter for the home, which may lie elsewhere"
    assert [a for a in met if not any(fault in a.said for fault in faults._DISK_FAULTS)] == []
    assert [a for a in met if "\n" in a.said or not a.said.endswith(".") or len(a.said) > 700] == []


def test_nothing_is_left_half_written(attempts: list[Attempt]) -> None:
    assert [a for a in attempts if a.broken] == []


def test_a_stack_lives_through_a_full_disk(attempts: list[Attempt]) -> None:
    (stack,) = [a for a in attempts if a.what == STACK]
    assert stack.said == ""


def test_it_goes_on_when_there_is_room(attempts: list[Attempt]) -> None:
    last = {a.what: a for a in attempts}
    assert {a.what: a.said for a in last.values() if a.said and "refused" not in a.what} == {}
    assert last["ingest refused"].said.startswith("DayRejected: ")


def _walk(world: Path, folder: Path, answer: Connection) -> None:
    try:
        disk = SmallDisk(folder, MEGABYTES)
    except OSError as err:
        answer.send(f"no small disk here: {err}")
        return
    shutil.copytree(world, folder, dirs_exist_ok=True)
    try:
        found = [attempt for what, do in _deeds(folder) for attempt in _attempts(disk, what, do)]
        found.append(_attempt(STACK, None, lambda _results: _keep_a_stack_alive(disk)))
    except Exception as err:
        found = f"the walk broke off: {type(err).__name__}: {err}"
    answer.send(found)


def _keep_a_stack_alive(disk: SmallDisk) -> None:
    """Let a part of a stack die, on a full disk, more often than is borne elsewhere; it is back when there is room."""
    from windsock_local.stack import supervisor
    from windsock_local.stack.home import Home, StackInfo
    from windsock_local.stack.parts import Part

    home = Home(disk.folder / "stack")
    home.create()
    supervisor._LONGEST_PAUSE_SECONDS = 0.0
    info = StackInfo(str(home.root), "starting", "http://a", "http://m", "", time.time())
    stack = supervisor.Supervisor(home, [Part("part", ["sleep", "60"])], dict(os.environ), info)
    (child,) = stack._children.values()
    try:
        assert stack.boot()
        disk.leave(0)
        for _ in range(8):
            if child.process is not None:
                child.process.kill()
                child.process.wait()
            stack._turn()
            stack._turn()
        disk.leave(None)
        stack._turn()
        assert child.ready
    finally:
        stack.stop()


Results = dict[str, Any]
"""Of steps: ``run`` and ``version``, which later ones are given."""


def _deeds(folder: Path) -> Iterator[tuple[str, Callable[[Results], object]]]:
    """Name everything that writes, in an order in which each has what it needs."""
    from run_folders import with_mlflow
    from windsock.monitoring.page import Page
    from windsock.monitoring.step import _save
    from windsock.steps import StepContext, run_step
    from windsock_local.stack.home import SUPERVISOR, Home, PartInfo, StackInfo

    dirt = [{"day": REFUSED, "kind": "missing_column"}]
    source = {"kind": "simulator", "seed": 0, "customers": 60, "terminals": 30, "dirt": dirt}
    gate = {"floors": {"average_precision": 0.1}, "suspicious": {}}
    settings, spec = world_spec(folder, source=source, training={**TRAINING, "evaluation": {}}, gate=gate)
    settings = with_mlflow(settings)
    (folder / "tmp").mkdir()
    tempfile.tempdir = str(folder / "tmp")

    def step(name: str, key: str | None = None, *of_before: str, **given: Any) -> Callable[[Results], object]:
        def do(before: Results) -> None:
            options = {**given, **{field: before[field] for field in of_before}}
            result = run_step(name, model="fraud", key=key, settings=settings, options=options, origin="walk")
            before.update({field: result[field] for field in ("run", "version") if field in result})

        return do

    home = Home(folder / "home")

    def prepare_home(_before: Results) -> None:
        parts = {SUPERVISOR: PartInfo(1, 1, 0.0)}
        try:
            home.create()
            home.passwords_file(("admin", "ada"))
            home.record(StackInfo(str(home.root), "ready", "http://a", "http://m", "", 0.0, parts=parts))
        except Exception as err:
            raise faults.fault_behind(err) or err from err  # as the command line does

    def report(_before: Results) -> None:
        ctx = StepContext(settings, spec, NEW)
        try:
            _save(ctx, Page(html=b"<html></html>", json=b'{"columns": 0}'))
        except Exception as err:
            raise faults.fault_behind(err) or err from err  # as `run_step` does; Evidently alone takes ten seconds

    yield "home", prepare_home
    for name in ("ingest", "features", "materialize"):
        yield name, step(name, NEW)
    yield "ingest refused", step("ingest", REFUSED)
    yield "report", report
    yield "assemble", step("assemble", as_of=str(AS_OF))
    for name, field in {
        "fit": "run",
        "choose": "run",
        "register": "run",
        "gate": "version",
        "promote": "version",
    }.items():
        yield name, step(name, None, field)
    yield "score", step("score", NEW, model_version="1")
    yield "monitor", step("monitor", NEW)
    yield "govern", step("govern", NEW)
    yield "void", step("void", NEW, stage="score", reason="a mistake")


_results: Results = {}


def _attempts(disk: SmallDisk, what: str, do: Callable[[Results], object]) -> Iterator[Attempt]:
    disk.leave(None)
    disk.make_read_only(True)
    attempt = _attempt(what, "read-only", do)
    disk.make_read_only(False)
    yield replace(attempt, broken=_broken(disk.folder))
    for room in (*(ROOM if thorough() else QUICK_ROOM), None):
        disk.leave(room)
        attempt = _attempt(what, room, do)
        disk.leave(None)  # who reads SQLite's files needs room, too
        yield replace(attempt, broken=_broken(disk.folder))
        if not attempt.said or attempt.said.startswith("DayRejected"):
            return


def _attempt(what: str, room: int | str | None, do: Callable[[Results], object]) -> Attempt:
    """Do it in a process of its own, as tasks are: no open file, and nothing that it knows, is there the next time."""
    ours, theirs = multiprocessing.Pipe()
    if (pid := os.fork()) == 0:
        said, results = "", dict(_results)
        try:
            do(results)
        except BaseException as err:
            said = f"{type(err).__name__}: {err}"
        theirs.send((said, results))
        os._exit(0)
    theirs.close()
    said, results = ours.recv()
    os.waitpid(pid, 0)
    _results.update(results)
    return Attempt(what, room, said)


_whole: set[tuple[str, int, int, int]] = set()
"""Files, as they were found whole: only what was written since is read again."""


def _broken(folder: Path) -> tuple[str, ...]:
    """Name the files that are not whole; GX's own pictures aside, which it copies anew with each page."""
    import pyarrow.parquet as pq

    def is_whole(path: Path) -> bool:
        if path.suffix == ".json":
            return bool(json.loads(path.read_bytes()))
        if path.suffix == ".parquet":
            return pq.ParquetFile(path).metadata is not None
        if path.suffix == ".html":
            return path.read_bytes().rstrip().endswith(b"</html>")
        if path.name == "model.txt":
            return b"\nend of trees\n" in path.read_bytes()
        if path.suffix == ".db" and path.read_bytes()[:6] == b"SQLite":
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                return db.execute("pragma quick_check").fetchone() == ("ok",)
        return path.stat().st_size > 0 or path.suffix in {".lock", ".db-wal", ".db"}

    def fault(path: Path) -> str:
        try:
            return "" if is_whole(path) else "is not whole"
        except Exception as err:
            return f"{type(err).__name__}: {err}"

    scratch = folder / "tmp"
    files = [Path(at, name) for at, _, names in os.walk(folder) for name in names if not name.startswith(".")]
    ours = {path: _version(path) for path in files if scratch not in path.parents and path.parent.name != "images"}
    found = {path: why for path, version in ours.items() if version not in _whole and (why := fault(path))}
    # What a database holds depends on the files beside it.
    _whole.update(version for path, version in ours.items() if path not in found and ".db" not in path.name)
    return tuple(f"{path}: {why}" for path, why in found.items())


def _version(path: Path) -> tuple[str, int, int, int]:
    found = path.stat()
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns
