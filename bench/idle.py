"""``idle``: what a stack costs while nothing runs: processor time and memory, by part."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.figures import Figure, Limit, say
from bench.stack import BenchStack
from bench.world import Size
from windsock_local.stack.home import read_stack

_SETTLE_S = 60.0


def run(stack: BenchStack, size: Size) -> Iterator[Figure]:
    """Leave a stack alone for some minutes and count what it used."""
    settle = min(_SETTLE_S, size.idle_s)
    say(f"idle: leaving the stack alone for {settle + size.idle_s:.0f} s ...")
    time.sleep(settle)
    before, began = cpu_seconds(stack), time.monotonic()
    time.sleep(size.idle_s)
    seconds = time.monotonic() - began
    used: Counter[str] = Counter()
    for process, cpu_s in cpu_seconds(stack).items():
        used[part_of(process, stack)] += cpu_s - before.get(process, 0.0)
    yield Figure(
        "idle",
        f"processor time of an idle stack over {seconds:.0f} s, of one core",
        100 * used.total() / seconds,
        Limit("nothing at all", 0.0, "%"),
        unit="%",
        context={"by_part": {name: 100 * cpu_s / seconds for name, cpu_s in used.most_common()}},
    )
    memory: Counter[str] = Counter()
    for process in stack.processes():
        memory[part_of(process, stack)] += _pss_mb(process)
    yield Figure(
        "idle",
        "memory of an idle stack, pages that processes share counted once",
        memory.total(),
        Limit("nothing at all", 0.0, "MB"),
        unit="MB",
        context={"by_part": dict(memory.most_common())},
    )


def cpu_seconds(stack: BenchStack) -> dict[psutil.Process, float]:
    """Return the CPU seconds of each process of a stack so far."""
    found = {}
    for process in stack.processes():
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            found[process] = times.user + times.system + times.children_user + times.children_system
    return found


def _pss_mb(process: psutil.Process) -> float:
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:  # it has ended meanwhile
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def part_of(process: psutil.Process, stack: BenchStack) -> str:
    """Return the part that a process belongs to."""
    info = read_stack(stack.settings)
    names = {part.pid: name for name, part in info.parts.items()} if info is not None else {}
    with contextlib.suppress(psutil.Error):
        for each in (process, *process.parents()):
            if each.pid in names:
                return names[each.pid]
    return "ended"
