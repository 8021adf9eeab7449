"""Run the watch: 90 quiet nights of each world and seed, every change planted in each, and a table of both.

Seeds are worked on side by side, and what is done is kept in ``var/bench/watch``, by the code that did it: a run that
was ended goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.figures import Figure, Limit, cores, say
from bench.watch.changes import AHEAD, all_changes
from bench.watch.nights import Champion, Watch, train_champion, watch_of
from bench.watch.worlds import (
    FIRST_DAY,
    NIGHTS,
    Data,
    World,
    features_of,
    few_entities,
    handbook,
    many_columns,
    strong_week,
)
from windsock.settings import REPO_ROOT

WORLDS = ("handbook", "12 entities", "500 columns", "strong week")
FULL: Mapping[str, int] = {"customers": 2500, "terminals": 5000}
SMALL: Mapping[str, int] = {"customers": 1000, "terminals": 2000}
_DEPENDS_ON = ("monitoring", "governor", "served", "learners", "dataset")


def run(seeds: int, quick: bool) -> Iterator[Figure]:
    """Run all worlds; a figure for each, and for each change. ``quick``: a few nights of a small handbook."""
    size, nights = (SMALL, 10) if quick else (FULL, NIGHTS)
    kept = REPO_ROOT / "var" / "bench" / "watch" / _code()
    kept.mkdir(parents=True, exist_ok=True)
    wanted = [(world, seed) for seed in range(seeds) for world in WORLDS]
    results = []
    with ProcessPoolExecutor(cores(), mp_context=multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(_kept, kept, world, seed, dict(size), nights) for world, seed in wanted]
        for done, task in enumerate(as_completed(tasks), 1):
            results.append(task.result())
            last = results[-1]
            say(f"watch: {done} of {len(wanted)}: {last['world']}, seed {last['seed']}: {last['seconds']:.0f} s")
    yield from _figures(results)


def _kept(kept: Path, world: str, seed: int, size: Mapping[str, int], nights: int) -> dict[str, Any]:
    """Return what a seed of a world gave, from a run before if it is there."""
    file = kept / f"{world.replace(' ', '-')}-{size['customers']}-{nights}-{seed}.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    folder = Path(tempfile.mkdtemp(prefix="windsock-watch-"))
    try:
        result = _lived(folder, world, seed, size, nights)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(result))
    new.replace(file)
    return result


def _lived(folder: Path, name: str, seed: int, size: Mapping[str, int], nights: int) -> dict[str, Any]:
    import logging

    logging.disable(logging.WARNING)
    began = time.monotonic()
    world = _world(folder, name, size)
    spec = world.spec
    training = spec.training
    lead = spec.features.lookback_days + training.window_days + training.holdout_days
    days = lead + spec.gap_days + spec.label.delay_days + nights
    data = world.make(seed, days)
    features = features_of(spec, data, FIRST_DAY + timedelta(days=days - 1))
    champion = train_champion(world, data, features, folder / "home")
    watch = Watch(champion, data, features)
    quiet = [watch.night(champion.first_night + n) for n in range(nights)]
    return {
        "world": name,
        "seed": seed,
        "nights": len(quiet),
        "promised": champion.promise.value,
        "moved": [
            [night.day - champion.first_night, night.drift.weight, sorted(night.moved)]
            for night in quiet
            if night.moved
        ],
        "alarms": [[night.day - champion.first_night, night.said] for night in quiet if night.alarm],
        "retrainings": sum(night.retrain for night in quiet),
        "changes": {
            change.name: _tried(champion, world, data, seed, change, nights)
            for change in all_changes(size)
            if change.world == name
        },
        "seconds": time.monotonic() - began,
    }


def _tried(champion: Champion, world: World, data: Data, seed: int, change: Any, nights: int) -> dict[str, Any]:
    """Plant a change, on another weekday with each seed, and look at the two nights that must see it."""
    since = champion.first_night + (14 + 5 * seed) % (nights - AHEAD) if nights > AHEAD else champion.first_night
    watch = watch_of(champion, change.plant(world, data, seed, since), since + AHEAD)
    first = since + change.lag
    found = [watch.night(night) for night in (first - 1, first, first + 1)][1:]
    right = [change.right(night) for night in found]
    return {
        "night": right.index(True) + 1 if any(right) else None,
        "alarm": any(night.alarm for night in found),
        "said": found[right.index(True) if any(right) else -1].said,
    }


def _world(folder: Path, name: str, size: Mapping[str, int]) -> World:
    if name == "handbook":
        return handbook(folder, size)
    return {"12 entities": few_entities, "500 columns": many_columns, "strong week": strong_week}[name](folder)


def _code() -> str:
    """Return a hash of the code that a result follows from."""
    found = hashlib.sha256()
    folders = [REPO_ROOT / "include" / "windsock" / name for name in _DEPENDS_ON]
    for folder in (*folders, Path(__file__).parent):
        for file in sorted(folder.rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _figures(results: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    for world in WORLDS:
        of = [r for r in results if r["world"] == world]
        nights = sum(r["nights"] for r in of)
        alarms, again = sum(len(r["alarms"]) for r in of), sum(r["retrainings"] for r in of)
        context = {"nights": nights, "seeds": len(of), "examples": [said for r in of for _, said in r["alarms"]][:3]}
        for what, count, per in (
            ("false alarms per 100 nights", alarms, 100),
            ("false retrainings per 1,000", again, 1000),
        ):
            aim = Limit("aim, at most", 1.0, "")
            yield Figure("watch", f"{world}: {what}", per * count / max(nights, 1), aim, unit="", context=context)
            context = {}
    names = dict.fromkeys(name for r in results for name in r["changes"])
    for name in names:
        tried = [r["changes"][name] for r in results if name in r["changes"]]
        found = [t for t in tried if t["night"] is not None]
        yield Figure(
            "watch",
            f"{name}: share found, and the right cause named, on the first or second night",
            len(found) / len(tried),
            Limit("aim, at least", 0.95, ""),
            unit="",
            context={
                "tried": len(tried),
                "first_night": sum(t["night"] == 1 for t in tried),
                "any_alarm": sum(t["alarm"] for t in tried),
                "said": next((t["said"] for t in tried), ""),
                "missed": [t["said"] for t in tried if t["night"] is None][:2],
            },
        )
