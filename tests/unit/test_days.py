from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windsock.days import day_range, end_of, last_instant, parse_day, past_day, spans, start_of, utc_now
from windsock.errors import NotReady, SpecError

DAYS = st.dates(date(2000, 1, 1), date(2100, 1, 1))


@given(DAYS)
def test_a_key_names_its_day_and_back(day: date):
    assert parse_day(day.isoformat()) == day


@pytest.mark.parametrize("key", ["2026-3-1", "20260301", "2026-02-30", "yesterday", "2026-03-01T00:00", " 2026-03-01"])
def test_a_malformed_key_is_refused_with_the_form_it_should_have(key: str):
    with pytest.raises(SpecError, match=r"YYYY-MM-DD"):
        parse_day(key)


@given(DAYS)
def test_a_day_is_taken_once_it_is_over_waited_for_while_it_lasts_and_refused_before_it_begins(day: date):
    today = utc_now().date()
    for asked in (day, today - timedelta(days=1), today, today + timedelta(days=1)):
        if asked < today:
            assert past_day(asked.isoformat()) == asked
        elif asked == today:
            with pytest.raises(NotReady, match="which is not over yet"):
                past_day(asked.isoformat())
        else:
            with pytest.raises(SpecError, match=f"The as_of is {asked}, but today is {today}"):
                past_day(asked.isoformat(), what="as_of")


@pytest.mark.parametrize("key", [None, ""])
def test_a_missing_key_says_where_to_give_one(key: str | None):
    with pytest.raises(SpecError, match=r"Partition Key"):
        parse_day(key)


@given(DAYS)
def test_the_end_of_a_day_is_its_last_microsecond(day: date):
    assert last_instant(day) < end_of(day) == start_of(day + timedelta(days=1))
    assert end_of(day) - last_instant(day) == timedelta(microseconds=1)


@given(st.sets(st.integers(0, 60)))
def test_spans_name_every_day_once(offsets: set[int]):
    first = date(2026, 1, 1)
    days = {first + timedelta(days=n) for n in offsets}
    named = set()
    for part in filter(None, spans(days).split(", ")):
        a, _, b = part.partition("..")
        named |= set(day_range(date.fromisoformat(a), date.fromisoformat(b or a)))
    assert named == days
