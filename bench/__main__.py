"""``python -m bench``: run benches and print one JSON line per figure."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import click

from bench.figures import Figure, say
from bench.world import Size, World

BENCHES = (
    *("idle", "task", "asset", "features", "join", "validate", "usual", "plan", "walk", "year", "bucket", "torch"),
    *("drift", "demo", "kill", "waiting", "recovery", "watch", "chaos"),
)
_LONG = ("demo", "kill")
_BY_NAME = ("waiting", "recovery", "watch", "chaos")
"""Run only when they are named: they take up to an hour."""


class Session:
    """What the benches of one call share: scratch folder, data, stack; made when first asked for."""

    def __init__(self, folder: Path, size: Size, demo_json: Path | None, against: str | None, seed: int) -> None:
        self.size = size
        self.world = World(folder, size)
        self._folder = folder
        self._demo_json = demo_json
        self._against = against
        self._seed = seed

    def groups(self, names: list[str]) -> Iterator[list[tuple[str, Callable[[], Iterator[Figure]]]]]:
        """Yield benches that share something; what they share is closed before the next group."""
        from bench import (
            bucket,
            chaos_days,
            demo,
            drift,
            features,
            join,
            kill,
            plan,
            recovery,
            torch_training,
            usual,
            validate,
            waiting,
            walk,
            year,
        )
        from bench.watch import table as watch

        on_stack = [name for name in names if name in ("idle", "task", "asset")]
        if on_stack:
            from bench import airflow_cost, idle
            from bench.stack import bench_stack

            with ExitStack() as closing:
                stack = closing.enter_context(bench_stack(self._folder, self.size.tasks))
                costs = {"idle": idle.run, "task": airflow_cost.run_task, "asset": airflow_cost.run_asset}
                yield [(name, lambda name=name: costs[name](stack, self.size)) for name in on_stack]  # type: ignore[misc]
        own: dict[str, Callable[[], Iterator[Figure]]] = {
            "features": lambda: features.run(self.world),
            "join": lambda: join.run(self.world),
            "validate": lambda: validate.run(self.world, self._against),
            "usual": lambda: usual.run(self.world),
            "plan": lambda: plan.run(self._folder, self.size),
            "walk": lambda: walk.run(self.size),
            "year": lambda: year.run(self._folder, 365 if self.size.days > 10 else 56),
            "bucket": lambda: bucket.run(self._folder, 49 if self.size.days > 10 else 10),
            "drift": lambda: drift.run(
                self.world.spec, self._folder / "drift", 1_000_000 if self.size.days > 10 else 5_000
            ),
            "torch": lambda: torch_training.run(self.size),
            "demo": lambda: demo.run(self._folder, self._demo_json),
            "kill": lambda: kill.run(self._folder),
            "waiting": lambda: waiting.run(self._folder, *((10, 60, 120.0) if self.size.days > 10 else (2, 5, 5.0))),
            "recovery": lambda: recovery.run(self.world.spec, *self.size.recovery),
            "watch": lambda: watch.run(*((20, False) if self.size.days > 10 else (1, True))),
            "chaos": lambda: chaos_days.run(self._folder, 30 if self.size.days > 10 else 3, self._seed),
        }
        yield [(name, own[name]) for name in names if name in own]


@click.command()
@click.option("--only", multiple=True, type=click.Choice(BENCHES), help="Run this bench; may be given several times.")
@click.option(
    "--quick", is_flag=True, help="Tiny sizes, to see that it runs; leaves out what is long unless --only names it."
)
@click.option(
    "--demo-json",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Use this result of a demo that ran already (var/demo.json) instead of running one.",
)
@click.option(
    "--against", metavar="REVISION", help="validate: let this revision's code validate the same rows, in turns."
)
@click.option("--seed", default=1, show_default=True, help="chaos: which troubles and faults come.")
@click.option("--keep", is_flag=True, help="Leave the scratch folder, and say where it is.")
def main(
    only: tuple[str, ...], quick: bool, demo_json: Path | None, against: str | None, seed: int, keep: bool
) -> None:
    """Measure what Windsock costs: JSON lines on stdout, progress on stderr.

    Exits with 1 if a bench failed; the others run all the same.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.disable(logging.WARNING)
    # Ended by a signal, it takes its stack with it, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    unnamed = {*_BY_NAME, *(_LONG if quick else ())}
    names = [name for name in BENCHES if name in only] or [name for name in BENCHES if name not in unnamed]
    # A short path: a socket's name may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="windsock-bench-"))
    failed = []
    try:
        session = Session(folder, Size.quick() if quick else Size(), demo_json, against, seed)
        for group in session.groups(names):
            for name, bench in group:
                began = time.monotonic()
                try:
                    for figure in bench():
                        print(figure.line(), flush=True)
                except Exception:
                    failed.append(name)
                    say(f"{name} failed:\n{traceback.format_exc()}")
                say(f"{name}: done after {time.monotonic() - began:.0f} s")
    finally:
        if keep:
            say(f"scratch folder: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if failed:
        say(f"failed: {', '.join(failed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
