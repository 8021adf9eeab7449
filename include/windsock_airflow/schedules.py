"""Schedules whose runs are named by the day they process.

Read ``assets`` for what starts the rest.
"""

from datetime import UTC, datetime, time, timedelta

from airflow.sdk import CronPartitionTimetable, CronTriggerTimetable
from pendulum.tz.timezone import FixedTimezone

from windsock.days import ONE_DAY
from windsock.spec import ModelSpec


def daily(cron: str) -> CronPartitionTimetable:
    """Run once a day, at ``M H * * *`` UTC, for the day before.

    A partition's date must be midnight: backfills and the trigger form ask for days from
    midnight to midnight, and with ticks at half past midnight the last day of every
    backfill would silently be left out. So the clock is moved instead of the tick: the
    run at 00:30 UTC is the midnight of the zone UTC-00:30, which names the same days.
    """
    minute, hour = (int(field) for field in cron.split()[:2])
    return CronPartitionTimetable(
        "0 0 * * *",
        timezone=FixedTimezone(-60 * (60 * hour + minute)),
        run_offset=-1,
        key_format="%Y-%m-%d",
    )


def weekly(cron: str | None) -> CronTriggerTimetable | None:
    """Run at a cron's ticks (UTC), or never by the clock."""
    return None if cron is None else CronTriggerTimetable(cron, timezone="UTC")


def live_from(spec: ModelSpec) -> datetime:
    """Return the instant after the model's first day: the first at which that day is over."""
    return datetime.combine(spec.first_day + ONE_DAY, time(), UTC)


def live_until(spec: ModelSpec) -> datetime | None:
    """Return the last instant at which the clock may start a run, or None for no end."""
    if spec.last_day is None:
        return None
    return datetime.combine(spec.last_day + 2 * ONE_DAY, time(), UTC) - timedelta(seconds=1)
