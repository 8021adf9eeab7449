"""Which days of a model are settled, stage by stage, and which are lacking, by the ledger, never Airflow's history.

A day is *due* a while after the clock would have run it. It is lacking if it is due and not settled. Days before the
first one that ingest (and, for its own, the monitor) has recorded are history that a person brings by a backfill, and
never lacking. A day whose delivery was refused is settled for every later stage. A night is settled once it is decided,
not when its report stands: a run that ended between the two is made up for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from windsock import promotions
from windsock.completeness import feature_stages, rejected_days
from windsock.days import ONE_DAY, day_range, end_of
from windsock.features.feature_tables import feature_tables
from windsock.features.frozen import spec_of_version
from windsock.ledger import DECISIONS, Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

GRACE = timedelta(minutes=15)
"""How long a stage is left to begin by itself, after its time or after the stage before it."""
STAGES = ("ingest", "labels", "features", "score", "monitor")
"""In the order in which a day goes through them."""
BY_CLOCK = ("ingest", "monitor")
"""Stages that the clock starts; the others follow from ingest."""


@dataclass(frozen=True)
class StageDays:
    """The days of one stage of a model."""

    stage: str
    last: date | None = None
    """The newest settled day."""
    lacking: tuple[date, ...] = ()
    """Due and not settled, within ``schedule.catch_up_days``, in order."""
    beyond: tuple[date, ...] = ()
    """The same, from before that reach."""


def days_of_stages(settings: Settings, spec: ModelSpec, now: datetime) -> dict[str, StageDays]:
    """Return the days of each stage that the model has, as the clock stands.

    Raises:
        DamagedRecord: A record that matters cannot be read.
    """
    read = [stage for stage in (*STAGES, DECISIONS) if stage != "features"]
    recorded = {stage: set(Ledger.of(settings, spec.name, stage).days()) for stage in read}
    found: dict[str, StageDays] = {}
    today = now.date()
    reach = today - timedelta(days=spec.schedule.catch_up_days + 1)
    # After a silence that is longer than that a person is asked for all of it: it may be the clock that is wrong.
    if not any(reach < day <= today for day in recorded["ingest"]):
        reach = today
    for stage in STAGES:
        if stage == "labels" and spec.label.files is None:
            continue
        if stage == "features":
            unsettled, last = _without_features(settings, spec, recorded, now)
        else:
            unsettled, last = (
                _unsettled(settings, spec, stage, recorded, now),
                max((day for day in _settled(recorded, stage) if day <= today), default=None),
            )
        near, far = [d for d in unsettled if d > reach], [d for d in unsettled if d <= reach]
        found[stage] = StageDays(stage, last, tuple(near), tuple(far))
    return found


def _last_due(spec: ModelSpec, stage: str, now: datetime) -> date:
    """Return the newest day that the clock should have run by now, a grace ago."""
    cron = spec.schedule.monitor if stage == "monitor" else spec.schedule.ingest
    minute, hour = (int(part) for part in cron.split()[:2])
    at = now.replace(tzinfo=None) - GRACE - timedelta(hours=hour, minutes=minute)
    last = at.date() - ONE_DAY
    return last if spec.last_day is None else min(last, spec.last_day)


def _settled(recorded: dict[str, set[date]], stage: str) -> set[date]:
    return recorded["monitor"] & recorded[DECISIONS] if stage == "monitor" else recorded[stage]


def _unsettled(
    settings: Settings, spec: ModelSpec, stage: str, recorded: dict[str, set[date]], now: datetime
) -> list[date]:
    """List the due days not settled: of the clock's stages since their first record, of others where ingest has one."""
    begun = recorded["monitor" if stage == "monitor" else "ingest"]
    if not begun:
        return []
    due = day_range(min(begun), _last_due(spec, stage, now))
    settled = _settled(recorded, stage)
    due = [d for d in due if d not in settled and (stage in BY_CLOCK or d in recorded["ingest"])]
    if stage in BY_CLOCK:
        return due
    if stage == "labels":
        first = min(recorded["labels"], default=None)
        return [d for d in due if first is not None and d > first]
    refused = rejected_days(settings, spec, due)
    return [d for d in due if d not in refused]


def _without_features(
    settings: Settings, spec: ModelSpec, recorded: dict[str, set[date]], now: datetime
) -> tuple[list[date], date | None]:
    """List the days not scored that lack a table which their champion needs (before the first champion, the spec).

    Also returns the newest day with features of any definition.
    """
    store = Store.of(settings)
    stages = (Ledger(store, spec.name, name) for name in feature_stages(store, spec.name))
    last = max((day for ledger in stages for day in ledger.days()), default=None)
    entries = promotions.history(settings, spec)
    have: dict[str | None, list[set[date]]] = {}
    lacking = []
    for day in _unsettled(settings, spec, "score", recorded, now):
        champion = promotions.champion_of(entries, day)
        version = champion.version if champion is not None else None
        if version not in have:
            own = spec_of_version(settings, spec, version) if version is not None else spec
            have[version] = [set(table.ledger(store).days()) for table in feature_tables(own)]
        if not all(day in of_table for of_table in have[version]):
            lacking.append(day)
    return lacking, last


def rests_since(
    settings: Settings, spec: ModelSpec, stage: str, day: date, stages: Mapping[str, StageDays], now: datetime
) -> timedelta | None:
    """Return for how long a lacking day could have gone on; None: a stage before this one has not settled it."""
    if stage == "ingest":
        return timedelta.max
    if stage == "score" and day in {*stages["features"].lacking, *stages["features"].beyond}:
        return None
    record = Ledger.of(settings, spec.name, "score" if stage == "monitor" else "ingest").get(day)
    if record is None:
        return timedelta.max if rejected_days(settings, spec, [day]) else None
    written = datetime.fromisoformat(record.recorded_at) if record.recorded_at else end_of(day)
    return now - (written if written.tzinfo is not None else written.replace(tzinfo=UTC))


def was_taken_out(settings: Settings, spec: ModelSpec, stage: str, day: date) -> bool:
    """Say whether a person took a day's record out: then it is theirs to bring it back."""
    return Ledger.of(settings, spec.name, stage).last_void(day) is not None
