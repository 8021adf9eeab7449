"""Kill a step with SIGKILL where it hurts, and compare what readers see before and after.

Steps run in children of a fork server that has imported the heavy libraries once, so that a trial
costs the step alone. ``run_and_kill`` kills after a share of the step's usual time;
``run_and_die_at`` kills at an exact place: before or after the n-th call of a function.

    steps = Steps(settings, model="fraud")
    usual = steps.run("ingest", key="2026-03-01").seconds
    steps.run("ingest", key="2026-03-01", kill_after=0.4 * usual)
    assert snapshot(settings, "fraud", ["ingest"]) in (before, after)
"""

import importlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fork_server import fork_context
from windsock import tables
from windsock.completeness import FEATURES, feature_stages
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.store import Store

_LONGEST_SECONDS = 120


@dataclass(frozen=True)
class Trial:
    """How one run of a step in a child ended."""

    killed: bool
    seconds: float
    """From the moment the step began to run, imports not counted."""
    result: dict[str, Any] | None
    error: str | None


@dataclass(frozen=True)
class DieAt:
    """An exact place to die: around the n-th call of ``module:function``."""

    place: str
    call: int = 1
    after: bool = False


class Steps:
    """Runs steps of one model in children that can be killed."""

    def __init__(self, settings: Settings, model: str) -> None:
        self._settings, self._model = settings, model
        self._context = fork_context()

    def run(
        self,
        step: str,
        key: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        live: bool = False,
        origin: str = "manual",
        kill_after: float | None = None,
        die_at: DieAt | None = None,
    ) -> Trial:
        """Run a step in a child; kill it ``kill_after`` seconds into the run, or let it die at a place."""
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._settings, self._model, step, key, dict(options or {}), live, origin, die_at)
        child = self._context.Process(target=_child, args=arguments)
        child.start()
        theirs.close()
        assert ours.recv() == "running"
        started = time.monotonic()
        if kill_after is not None:
            child.join(kill_after)
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
        child.join(_LONGEST_SECONDS)
        if child.is_alive():
            child.kill()
            child.join()
            raise AssertionError(f"step {step} of {key} hung for {_LONGEST_SECONDS} s")
        seconds = time.monotonic() - started
        try:
            result, error = ours.recv() if ours.poll() else (None, None)
        except EOFError:
            result, error = None, None
        return Trial(child.exitcode == -signal.SIGKILL, seconds, result, error)


def _child(connection, settings, model, step, key, options, live, origin, die_at) -> None:
    from windsock.steps import STEPS, run_step

    importlib.import_module(STEPS[step])
    if die_at is not None:
        arm(die_at)
    connection.send("running")
    try:
        result = run_step(step, model=model, key=key, live=live, origin=origin, options=options, settings=settings)
        connection.send((result, None))
    except Exception as err:
        connection.send((None, f"{type(err).__name__}: {err}"))


def run_in_child(work: Callable[[], object], die_at: DieAt | None = None) -> None:
    """Run something in a child to its end, or let it die at a place, where it must come by."""
    child = fork_context().Process(target=_work, args=(work, die_at))
    child.start()
    child.join(300)
    assert child.exitcode == (0 if die_at is None else -signal.SIGKILL), die_at


def _work(work: Callable[[], object], die_at: DieAt | None) -> None:
    if die_at is not None:
        arm(die_at)
    work()


def arm(die_at: DieAt) -> None:
    """Replace a function, or a class's method (``module:Class.method``), by one that dies on its n-th call."""
    module, name = die_at.place.split(":")
    owner = importlib.import_module(module)
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), []

    def deadly(*args, **kwargs):
        calls.append(1)
        if len(calls) == die_at.call and not die_at.after:
            os.kill(os.getpid(), signal.SIGKILL)
        value = original(*args, **kwargs)
        if len(calls) == die_at.call:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(owner, name, deadly)


def snapshot(settings: Settings, model: str, stages: Iterable[str]) -> dict[str, Any]:
    """Return everything that readers see: each day's record, and its rows as read back from disk.

    ``features`` are all tables of features.
    """
    store, seen = Store.of(settings), {}
    for stage in [s for given in stages for s in (feature_stages(store, model) if given == FEATURES else [given])]:
        for day, record in Ledger.of(settings, model, stage).all().items():
            rows = {}
            for name, output in sorted(record.outputs.items()):
                table = tables.read(store, [record], name)
                assert (0 if table is None else table.num_rows) == output.rows
                if table is None:
                    continue
                rows[name] = tables.content_hash(table)
                assert rows[name] == output.hash, f"{stage} {day}: rows of {name} are not those of the record"
            seen[f"{stage}/{day}"] = (record.content_hash, tuple(sorted(record.inputs.items())), rows)
    return seen


def stray_files(settings: Settings) -> list[str]:
    """Return temporary files that look like finished objects to a reader; there should be none."""
    root = settings.home
    return [str(p) for p in root.rglob("*.tmp") if not p.name.startswith(".")]
