"""``bucket``: what days cost in an S3 bucket: requests by step, time beside a folder, and time where requests are slow.

One small model lives the same days in a bucket and in a folder, in turns, so that whatever else the machine does weighs
on both. Requests are those that botocore sends, repeats included.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.figures import Figure, Limit, say
from bench.s3_server import BUCKET, Relay, clear_clients, environment, s3_server
from bench.year import Year
from windsock.store import Store

DAILY = ("ingest", "features", "materialize", "score", "monitor", "govern")
LOOKBACK = 30
_TRAINED_ON = 41
"""A day on which enough of those are there that look back on nothing but days of the model."""
_SLOW_S = 0.025
_SLOW_DAYS = 3


class Meter:
    """Seconds and requests of each step, day by day."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.requests: dict[str, list[int]] = defaultdict(list)

    def listen(self, store: Store) -> None:
        """Count what a bucket is asked from now on."""
        store.fs.connect()
        store.fs.s3.meta.events.register("before-send.s3", self._sent)

    def _sent(self, request: Any, **_: Any) -> None:
        self.asked[request.method] += 1

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step."""
        began, asked = time.perf_counter(), self.asked.total()
        yield
        self.seconds[name].append(time.perf_counter() - began)
        self.requests[name].append(self.asked.total() - asked)


def run(folder: Path, days: int) -> Iterator[Figure]:
    """Live through some days in both, and then through a few where each request takes 25 ms more."""
    (folder / "s3").mkdir()
    with s3_server(folder / "s3") as url, patch.dict(os.environ, environment(url)):
        clear_clients()
        homes = {"S3": f"s3://{BUCKET}/year", "folder": str(folder / "folder" / "store")}
        years = {name: Year(folder / name, DAILY, lookback_days=LOOKBACK, store=store) for name, store in homes.items()}
        meters = {name: Meter() for name in years}
        meters["S3"].listen(years["S3"].store)
        for n in range(days):
            for name, year in years.items():
                year.each_step = meters[name].step
                year.live(n)
                if n == _TRAINED_ON:
                    with meters[name].step("training and maintain"):
                        year.end_week(n)
            if n % 10 == 9:
                say(f"bucket: {n + 1} of {days} days")
        yield from _figures(meters["S3"], meters["folder"], days)
        slow = Meter()
        relay = Relay(url, latency_s=_SLOW_S)
        with patch.dict(os.environ, environment(relay.url)):
            clear_clients()
            years["S3"].each_step = slow.step
            for n in range(days, days + _SLOW_DAYS):
                years["S3"].live(n)
        relay.close()
        clear_clients()
    for step in DAILY:
        yield Figure(
            "bucket",
            f"{step} of a day, each request {1000 * _SLOW_S:.0f} ms slower",
            statistics.median(slow.seconds[step]),
            Limit("the same in a folder", statistics.median(meters["folder"].seconds[step][-7:])),
        )


def _figures(bucket: Meter, folder: Meter, days: int) -> Iterator[Figure]:
    all_steps = [sum(of_day) for of_day in zip(*(bucket.requests[step] for step in DAILY), strict=True)]
    for step, asked in (*((step, bucket.requests[step]) for step in DAILY), ("all steps", all_steps)):
        yield Figure(
            "bucket",
            f"requests of {step} of one of the last 5 of {days} days. Aim: 150 for all steps",
            statistics.fmean(asked[-5:]),
            Limit("the same on one of the first 5 days", statistics.fmean(asked[:5]), "requests"),
            unit="requests",
        )
    for what, steps in (*((step, [step]) for step in bucket.seconds), ("everything", list(bucket.seconds))):
        took, beside = (sum(sum(meter.seconds[step]) for step in steps) for meter in (bucket, folder))
        yield Figure(
            "bucket",
            f"{what} of {days} days in a bucket. Aim: 1.4 times the folder for everything",
            took,
            Limit("the same days in a folder, in turns", beside),
        )
