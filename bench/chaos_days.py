"""``chaos``: days under random troubles on services that fail one call in ten, beside the same days in quiet.

The store is a bucket of a real S3 server, the online store a real Redis, each behind a relay that fails; the clock of
the stack is moved from day to day. The quiet days are run in a folder, without Airflow and without any server.
"""

from __future__ import annotations

import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import yaml

from bench.chaos import STAGES, WATCH, Chaos, contents, differences
from bench.clock import MovedClock
from bench.figures import Figure, Limit, say
from bench.redis_server import FaultyLine, redis_server
from bench.s3_server import BUCKET, Relay, clear_clients, environment, s3_server
from bench.stack import bench_stack
from windsock.days import ONE_DAY, day_range
from windsock.errors import UpstreamUnavailable
from windsock.features.feature_tables import feature_tables
from windsock.featurestore.online_db import OnlineRow
from windsock.featurestore.sinks import open_sink
from windsock.outbox import Outbox
from windsock.settings import REPO_ROOT, Settings
from windsock.spec import get_spec
from windsock.spec.load import read_yaml
from windsock.steps import run_step
from windsock.store import Store

MODEL = "outage"
NOON = datetime(2026, 6, 10, 12, tzinfo=UTC)
FIRST_DAY = NOON.date() - ONE_DAY
"""The first day that is over at noon."""
DAILY = ("ingest", "features", "materialize", "score", "monitor", "govern")
_TROUBLES_A_DAY = 2
_LONGEST_CALM_S = 3600.0
_CUSTOMERS = 300
_EVER = timedelta(days=10_000)
_SQL = """
select CUSTOMER_ID, TX_DATETIME as event_timestamp, count(*) over recent as NB_TX
from events
window recent as (
    partition by CUSTOMER_ID order by epoch(TX_DATETIME)::bigint range between 172799 preceding and current row
)
"""
_FAULTS = (500, 503, "cut")
_WRITTEN = re.compile(rb"<LastModified>([^<]+)</LastModified>")


def run(folder: Path, days: int, seed: int, share: float = 0.1) -> Iterator[Figure]:
    """Live through some days with both, and count what differs, what is lacking and what was told twice.

    Args:
        folder: Where to work.
        days: How many days; each takes about a minute.
        seed: Of the troubles and the faults.
        share: Of the calls of each service that fail.
    """
    write_model(folder / "models")
    lived = day_range(FIRST_DAY, FIRST_DAY + timedelta(days=days - 1))
    began = time.monotonic()
    with _services(folder, random.Random(seed)) as services, _chaos(folder, services, seed) as chaos:
        chaos.live(lived[0], troubles=0)
        chaos.calm_down(lived[:1])  # what lies before a stage's first record is history, which nobody makes up for
        services.fail(share)
        for n, day in enumerate(lived[1:], 2):
            chaos.live(day, _TROUBLES_A_DAY)
            say(f"chaos: {len(chaos.settled('score'))} of {n} days scored after {time.monotonic() - began:.0f} s")
        services.fail(0.0)
        with suppress(UpstreamUnavailable):  # then the figures say what is lacking
            chaos.calm_down(lived, _LONGEST_CALM_S)
        took = time.monotonic() - began
        quiet = _live_quietly(folder / "quiet", folder / "models", lived)
        lacking = chaos.lacking(lived)
        different = differences(contents(chaos.settings, MODEL), contents(quiet, MODEL))
        served, expected = _served(chaos.settings), _served(quiet)
        told = Counter(message.text for message in Outbox(Store.of(chaos.settings)).messages(_EVER))
        asked, failed = services.calls, services.failed
    what = f"{days} days under {chaos.done.total()} troubles, with {failed} of {asked} calls failed"
    beside = Limit("the same days in quiet, in a folder, without Airflow", 0.0, "")
    context = {"seed": seed, "troubles": dict(chaos.done), "seconds": took}
    for name, found in {
        "records that are not the quiet days'": different,
        "days that lack a stage": lacking,
        "customers to whom other features are served": sorted(k for k in expected if served.get(k) != expected[k]),
        "messages that were told twice": [text for text, times in told.items() if times > 1],
    }.items():
        yield Figure("chaos", f"{name}, of {what}", len(found), beside, "", {**context, "found": found[:10]})


def write_model(models: Path) -> None:
    """Write the model: payments of few customers, and one view of them that looks two days back."""
    folder = models / MODEL
    shutil.copytree(REPO_ROOT / "include" / "models" / "fraud", folder)
    (folder / "recent.sql").write_text(_SQL, encoding="utf-8")
    view = {"name": "recent", "entity": "customer", "sql": "recent.sql", "lookback_days": 2, "ttl_days": 30}
    raw = read_yaml(folder / "model.yaml")
    raw |= {
        "name": MODEL,
        "first_day": str(FIRST_DAY),
        "source": {"kind": "simulator", "seed": 0, "customers": _CUSTOMERS, "terminals": 2 * _CUSTOMERS},
        "features": {"row": {"TX_AMOUNT": "TX_AMOUNT"}, "views": [view]},
        "alerts": {"digest": False},
        "schedule": {"ingest": "0 0 * * *", "monitor": "0 0 * * *", "train": None, "maintenance": None},
    }
    raw["training"] |= {"categorical": [], "window_days": 7, "windows": [], "refit": False}
    (folder / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


@dataclass
class _Services:
    """An S3 server and a Redis, and what stands before them."""

    unspoilt: dict[str, str]
    """Variables that lead to the services themselves."""
    faulty: dict[str, str]
    """Variables that lead to the relays."""
    s3: Relay
    redis: FaultyLine
    s3_share: float = 0.0
    """Of the bucket's calls that fail."""

    def fail(self, share: float) -> None:
        """Let a share of the calls to both fail from now on."""
        self.redis.share = self.s3_share = share

    @property
    def calls(self) -> int:
        """How many calls have been made through the relays."""
        return self.s3.asked.total() + self.redis.calls

    @property
    def failed(self) -> int:
        """How many of them have failed."""
        return self.s3.failed + self.redis.failed


@contextmanager
def _services(folder: Path, dice: random.Random) -> Iterator[_Services]:
    (folder / "s3").mkdir()
    with s3_server(folder / "s3", logins=False) as url, redis_server(folder / "redis") as port, ExitStack() as end:
        s3, redis = Relay(url), FaultyLine(port, dice)
        end.callback(s3.close)
        end.callback(redis.close)
        found = _Services(
            {**environment(url), "WINDSOCK_REDIS": f"127.0.0.1:{port}"},
            {**environment(s3.url), "WINDSOCK_REDIS": f"127.0.0.1:{redis.port}"},
            s3,
            redis,
        )
        s3.fault = lambda _method, _path: dice.choice(_FAULTS) if dice.random() < found.s3_share else None
        yield found


@contextmanager
def _chaos(folder: Path, services: _Services, seed: int) -> Iterator[Chaos]:
    """Run a stack on the faulty services; this process uses them without faults."""
    repo = shutil.copytree(REPO_ROOT / "feature_repo", folder / "feature_repo")
    shutil.copy(REPO_ROOT / "docker" / "feature_store.yaml", repo / "feature_store.yaml")
    clock = MovedClock(folder / "clock")
    services.s3.alter = lambda _path, body: _WRITTEN.sub(lambda found: _moved(found, clock), body)
    variables = {
        "WINDSOCK_MODELS": str(folder / "models"),
        "WINDSOCK_STORE": f"s3://{BUCKET}/chaos",
        "WINDSOCK_FEATURE_REPO": str(repo),
    }
    with (
        patch.dict("os.environ", services.unspoilt),
        bench_stack(folder / "c", 1, **variables, **services.faulty, **clock.variables(NOON - ONE_DAY)) as stack,
    ):
        clear_clients()
        chaos = Chaos(stack.api, stack.settings, clock, MODEL, random.Random(seed))
        for dag_id in (*(f"{MODEL}_{stage}" for stage in STAGES), WATCH):
            stack.api.wait_for_dag(dag_id, 240)
        chaos.unpause()
        yield chaos


def _moved(found: re.Match[bytes], clock: MovedClock) -> bytes:
    """Put the time at which an object was written, by the machine's clock, on the stack's."""
    written = datetime.fromisoformat(found[1].decode()) + clock.offset
    return b"<LastModified>%s</LastModified>" % written.strftime("%Y-%m-%dT%H:%M:%S.000Z").encode()


def _live_quietly(home: Path, models: Path, days: Sequence[date]) -> Settings:
    settings = Settings.from_env({"WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(models)})
    for day in days:
        for step in DAILY:
            run_step(step, model=MODEL, key=str(day), settings=settings)
    return settings


def _served(settings: Settings) -> dict[int, OnlineRow]:
    """Return what the online store holds of each customer."""
    (table,) = feature_tables(get_spec(settings, MODEL))
    found = open_sink(settings, [table]).read(table, list(range(_CUSTOMERS)))
    return {int(str(customer)): row for customer, row in found.items()}
