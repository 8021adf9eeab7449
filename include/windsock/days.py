"""A day is the unit, named ``YYYY-MM-DD`` everywhere: parsing partition keys and walking over days, all in UTC."""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

from windsock.errors import NotReady, SpecError

_KEY = re.compile(r"\d{4}-\d{2}-\d{2}")
ONE_DAY = timedelta(days=1)


def parse_day(key: str | date | None, *, what: str = "partition key") -> date:
    """Turn a partition key into the day it names.

    Args:
        key: ``YYYY-MM-DD``; a ``date`` passes through.
        what: What the key is called in the error message.

    Raises:
        SpecError: The key is missing, has another form or names no calendar day.
    """
    if isinstance(key, date) and not isinstance(key, datetime):
        return key
    if key is None or key == "":
        raise SpecError(
            f"The {what} is missing: this run does not say which day of events it is for. "
            "Give one of the form YYYY-MM-DD (in the trigger form: 'Partition Key'), for example 2026-03-01."
        )
    if isinstance(key, str) and _KEY.fullmatch(key):
        try:
            return date.fromisoformat(key)
        except ValueError:
            pass
    raise SpecError(f"The {what} {key!r} is not a day. Give one of the form YYYY-MM-DD, for example 2026-03-01.")


def past_day(key: str | date | None, *, what: str = "partition key") -> date:
    """Turn a key into the day it names, which must be over in UTC. The clock may refuse a day, and never chooses one.

    Raises:
        NotReady: It is today: what will still happen on it is not known.
        SpecError: It has not begun, or see :func:`parse_day`.
    """
    day, today = parse_day(key, what=what), utc_now().date()
    if day < today:
        return day
    if day == today:
        raise NotReady(f"The {what} is {day}, which is not over yet (UTC). This waits until it is, at 00:00.")
    raise SpecError(
        f"The {what} is {day}, but today is {today} (UTC): what has not happened cannot be recorded. Choose a day that "
        "is over; if this one is, set this machine's clock."
    )


def day_range(first: date, last: date) -> list[date]:
    """List the days from ``first`` to ``last``, both included; empty if reversed."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def start_of(day: date) -> datetime:
    """Return the first instant of a day, without a zone (UTC is understood)."""
    return datetime(day.year, day.month, day.day)


def end_of(day: date) -> datetime:
    """Return the first instant after a day, without a zone (UTC is understood)."""
    return start_of(day + ONE_DAY)


def last_instant(day: date) -> datetime:
    """Return the end of a day, to the microsecond: what is known by then counts as known on that day."""
    return end_of(day) - timedelta(microseconds=1)


def utc_now() -> datetime:
    """Return the clock, for records of when something ran and for refusing days to come; never for choosing data."""
    return datetime.now(UTC)


def spans(days: Iterable[date]) -> str:
    """Write days compactly for a message: ``2026-03-01..2026-03-04, 2026-03-07``."""
    written = []
    # In a run of days, each is as far from the epoch as its place in the list, but for a constant.
    for _, numbered in groupby(enumerate(sorted(set(days))), key=lambda pair: pair[1].toordinal() - pair[0]):
        run = [day for _, day in numbered]
        written.append(f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}")
    return ", ".join(written)
