"""What Prometheus reads: how each model stands, from the ledger, in its text format.

A scrape costs a listing and a record a stage and model, at most once in some seconds, however often it is asked for. A
model that cannot be read says so by a number of its own, and hides no other.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from windsock import __version__, promotions
from windsock.days import end_of
from windsock.errors import WindsockError
from windsock.ledger import DECISIONS, DayRecord, Ledger
from windsock.outbox import Outbox
from windsock.settings import Settings
from windsock.spec import ModelSpec, load_specs
from windsock.store import Store

_CACHED_S = 15.0
_FARTHEST = 30
"""So many records back a day is looked for that was taken in, or a night that could judge."""
_STAGES = ("ingest", "labels", "features", "score", "monitor", DECISIONS)
_NAMES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "windsock_model_readable": ("Whether the records of a model can be read.", ()),
    "windsock_last_success_timestamp_seconds": ("When a stage last recorded a day that was not rejected.", ("stage",)),
    "windsock_newest_day_timestamp_seconds": ("End of the newest day that a stage has recorded.", ("stage",)),
    "windsock_step_seconds": ("How long the newest recorded day of a stage took to compute.", ("stage",)),
    "windsock_day_rejected": ("Whether the newest day's delivery was rejected.", ()),
    "windsock_day_rows": ("Rows published of the newest day.", ()),
    "windsock_day_quarantined_rows": ("Rows of the newest day that were set aside.", ()),
    "windsock_day_scored_rows": ("Rows of the newest scored day.", ()),
    "windsock_judged": ("Whether the newest night could judge drift; not where data is broken or there is little.", ()),
    "windsock_drifted": ("Whether the newest night that could judge found a drift.", ()),
    "windsock_drift_share": ("Share of features that drifted in that night.", ()),
    "windsock_degraded": ("Whether that night found a loss of performance.", ()),
    "windsock_performance": ("The champion's metric on matured labels, in the newest night.", ("metric",)),
    "windsock_performance_promised": ("The same metric on the champion's holdout.", ("metric",)),
    "windsock_champion_info": ("1, with the version of the champion as a label.", ("version",)),
    "windsock_champion_trained_timestamp_seconds": ("End of the last day that the champion's training knew.", ()),
}


@dataclass(eq=False)
class ModelCollector(Collector):
    """The numbers of every model, as the store stands."""

    settings: Settings
    _families: dict[str, GaugeMetricFamily] = field(default_factory=dict)

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with a sample a model."""
        self._families = {
            name: GaugeMetricFamily(name, text, labels=("model", *labels)) for name, (text, labels) in _NAMES.items()
        }
        for model, spec in sorted(load_specs(self.settings)[0].items()):
            readable = 1.0
            try:
                self._read(spec)
            except (WindsockError, OSError):
                readable = 0.0
            self._add("windsock_model_readable", model, readable)
        yield from self._families.values()
        yield from self._alerts()
        info = GaugeMetricFamily("windsock_build_info", "1, with the version as a label.", labels=("version",))
        info.add_metric((__version__,), 1.0)
        yield info

    def _add(self, name: str, model: str, value: Any, *labels: str) -> None:
        if isinstance(value, int | float):  # booleans too; a figure that there is not, is left out
            self._families[name].add_metric((model, *labels), float(value))

    def _read(self, spec: ModelSpec) -> None:
        newest = {stage: record for stage in _STAGES if (record := self._newest(spec, stage)) is not None}
        for stage, record in newest.items():
            taken = record if _is_taken(record) else self._newest(spec, stage, _is_taken)
            if taken is not None and taken.recorded_at:
                recorded = _instant(datetime.fromisoformat(taken.recorded_at))
                self._add("windsock_last_success_timestamp_seconds", spec.name, recorded, stage)
            self._add("windsock_newest_day_timestamp_seconds", spec.name, _end(record.day), stage)
            self._add("windsock_step_seconds", spec.name, record.seconds or None, stage)
        if (record := newest.get("ingest")) is not None:
            self._add("windsock_day_rejected", spec.name, record.status == "rejected")
            self._add("windsock_day_rows", spec.name, record.detail.get("published"))
            aside = sum(dict(record.detail.get("quarantined") or {}).values())
            self._add("windsock_day_quarantined_rows", spec.name, aside)
        if (record := newest.get("score")) is not None:
            self._add("windsock_day_scored_rows", spec.name, record.rows("predictions"))
        if (record := newest.get("monitor")) is not None:
            self._of_night(spec, record)
        if (champion := promotions.current(self.settings, spec)) is not None:
            self._add("windsock_champion_info", spec.name, 1, champion.version)
            self._add("windsock_champion_trained_timestamp_seconds", spec.name, _end(champion.as_of))

    def _of_night(self, spec: ModelSpec, night: DayRecord) -> None:
        model, found = spec.name, night.detail
        if found.get("champion") is None:
            return
        self._add("windsock_judged", model, _judges(night))
        judged = night if _judges(night) else self._newest(spec, "monitor", _judges)
        if judged is not None:
            self._add("windsock_drifted", model, judged.detail.get("drifted"))
            self._add("windsock_drift_share", model, judged.detail.get("drifted_share"))
            self._add("windsock_degraded", model, judged.detail.get("degraded"))
        if performance := found.get("performance"):
            metric = str(performance.get("metric", ""))
            self._add("windsock_performance", model, performance.get("value"), metric)
            self._add("windsock_performance_promised", model, performance.get("holdout"), metric)

    def _newest(
        self, spec: ModelSpec, stage: str, wanted: Callable[[DayRecord], bool] = lambda _: True
    ) -> DayRecord | None:
        """Return the newest wanted record of a stage, of features that of any table."""
        store, stages = Store.of(self.settings), [stage]
        if stage == "features":
            stages = [f"features/{name}" for name in store.folders(spec.name, "ledger", stage) if "@" in name]
        found = list[DayRecord]()
        for name in stages:
            ledger = Ledger(store, spec.name, name)
            records = (ledger.get(day) for day in reversed(ledger.days()[-_FARTHEST:]))
            found += islice((record for record in records if record is not None and wanted(record)), 1)
        return max(found, key=lambda record: record.ds, default=None)

    def _alerts(self) -> Iterator[Metric]:
        outbox = Outbox(Store.of(self.settings))
        threads = len(outbox.open_threads())
        yield GaugeMetricFamily("windsock_open_alerts", "Troubles that were reported and are not over.", threads)
        waiting = len(outbox.waiting())
        yield GaugeMetricFamily("windsock_alerts_waiting", "Alerts that Slack has not taken yet.", waiting)


def _is_taken(record: DayRecord) -> bool:
    return record.status != "rejected"


def _judges(night: DayRecord) -> bool:
    return bool(night.detail.get("judged", True)) and not night.detail.get("broken")


def _end(day: date) -> float:
    return _instant(end_of(day))


def _instant(at: datetime) -> float:
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


_lock = threading.Lock()
_last: tuple[float, bytes] = (float("-inf"), b"")


def exposition(settings: Settings) -> bytes:
    """Return all numbers in Prometheus' text format; the same for some seconds, whoever asks.

    Raises:
        UpstreamUnavailable: The store is away.
    """
    global _last
    with _lock:
        if time.monotonic() - _last[0] > _CACHED_S:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(ModelCollector(settings))
            _last = (time.monotonic(), generate_latest(registry))
        return _last[1]
