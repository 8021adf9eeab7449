"""What Slack refuses: a message, a channel or a thread of which it takes nothing holds up no other, and is not lost."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fake_slack import FakeSlack
from windsock import outbox, slack
from windsock.alert_table import table_of_alerts
from windsock.alerts import Alert, send_waiting
from windsock.block_kit import TEXT, plain
from windsock.outbox import Outbox
from windsock.settings import Settings
from windsock.store import Store

THREAD = "drift fraud"


class House:
    """An installation with its Slack, whose usual channel is ``#alerts``."""

    def __init__(self, tmp_path: Path, slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings.from_env({"WINDSOCK_HOME": str(tmp_path), **slack.env})
        self.slack, self.monkeypatch = slack, monkeypatch
        self.box = Outbox(Store.of(self.settings))

    def put(self, sentence: str, channel: str = "#alerts", **more: Any) -> None:
        """Put a message of this sentence and cause into the outbox."""
        alert = Alert("fraud_ingest", sentence, cause=sentence, **more)
        self.box.put(replace(alert.as_message(self.settings, None), channel=channel))

    def rounds(self, number: int = 1, *, hours: float = 0.02) -> None:
        """Let time pass and the scheduler send, again and again."""
        for _ in range(number):
            now = outbox.utc_now() + timedelta(hours=hours)
            for module in (outbox, slack):
                self.monkeypatch.setattr(module, "utc_now", lambda now=now: now)
            send_waiting(self.settings)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Channel and sentence of what stands in Slack."""
        return [(f"#{m['channel'][1:]}", m["text"].splitlines()[1]) for m in self.slack.messages]

    def waiting(self) -> list[str]:
        return [message.sentence for message in self.box.waiting()]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with FakeSlack() as slack:
        yield House(tmp_path, slack, monkeypatch)


def of_text(part: str, error: str) -> Callable[[str, dict[str, Any]], str | None]:
    return lambda method, message: error if part in str(message) else None


NEVER = ["restricted_action_read_only_channel", "msg_too_long", "team_access_not_granted", "an_error_of_tomorrow"]


@pytest.mark.parametrize("error", NEVER)
def test_what_a_channel_does_not_take_is_told_in_the_usual_one_at_once(error: str, house: House) -> None:
    house.slack.refuse = of_text("#news", error)
    house.put("poison", "#news")
    house.put("other")
    house.rounds()

    assert house.told == [("#alerts", "poison"), ("#alerts", "other")]
    assert house.waiting() == []


@pytest.mark.parametrize("error", ["msg_too_long", "an_error_of_tomorrow"])
def test_what_slack_never_takes_holds_up_nothing_and_is_given_up_after_three_days_with_why(
    error: str, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.slack.refuse = of_text("poison", error)
    house.put("poison", "#news", thread=THREAD)
    house.put("poisoned", "#news")
    for number in range(3):
        house.put(f"news {number}", "#news", thread=THREAD if number else "")
    house.rounds()
    assert house.told == [("#news", f"news {number}") for number in (0, 1, 2)], "the others go on at once"
    assert house.slack.requests == 2 * 4 + 4, "in both channels, in both forms"

    house.rounds(2)
    assert house.slack.requests == 12 + 4 + 2 + 4, "of those refused one is tried in each round, in its thread first"
    assert house.waiting() == ["poison", "poisoned"]
    house.rounds(8, hours=12)

    assert house.waiting() == []
    assert "given up: poison: " in caplog.text
    shown = {row.first.cause: row.last.sentence for row in table_of_alerts(house.settings, 30)}
    assert shown["poisoned"] == f"Slack did not take this ({error}): poisoned"
    before = house.slack.requests
    house.rounds(3)
    assert house.slack.requests == before


def test_what_slack_takes_after_all_is_told_and_stands_in_the_table_as_any_other(house: House) -> None:
    house.slack.refuse = of_text("late", "an_error_of_tomorrow")
    house.put("first", thread=THREAD)
    house.put("late 1", thread=THREAD)
    house.put("late 2")
    house.rounds(2)
    house.slack.refuse = lambda method, message: None
    house.rounds()

    assert house.waiting() == []
    assert sorted(sentence for _, sentence in house.told) == ["first", "late 1", "late 2"]
    assert "(2×)" in house.slack.heads[0]["blocks"][0]["text"]["text"]
    assert all("did not take" not in row.last.sentence for row in table_of_alerts(house.settings, 1))


def test_what_was_over_before_slack_took_it_is_not_told_any_more(house: House) -> None:
    house.slack.refuse = of_text("poison", "an_error_of_tomorrow")
    house.put("poison", thread=THREAD)
    house.rounds()
    house.put("over", thread=THREAD, closes=True)
    house.slack.refuse = lambda method, message: None
    house.rounds(2)

    assert (house.told, house.waiting()) == ([], [])
    (row,) = table_of_alerts(house.settings, 1)
    assert "it was over before Slack took it" in row.last.sentence


def test_an_end_that_slack_refused_does_not_end_what_has_begun_again_since(house: House) -> None:
    house.put("it drifts", thread=THREAD)
    house.rounds()
    house.slack.refuse = of_text("over", "an_error_of_tomorrow")
    house.put("over", thread=THREAD, closes=True)
    house.rounds()
    house.put("it drifts again", thread=THREAD)
    house.slack.refuse = lambda method, message: None
    house.rounds(2)

    assert [sentence for _, sentence in house.told] == ["it drifts", "it drifts again"]
    assert not any("✅" in head["blocks"][0]["text"]["text"] for head in house.slack.heads)
    house.put("over now", thread=THREAD, closes=True)
    house.rounds()
    assert "✅" in house.slack.heads[-1]["blocks"][0]["text"]["text"]


@pytest.mark.parametrize("error", ["internal_error", "fatal_error", "not_in_channel"])
def test_troubles_that_ended_while_slack_took_nothing_are_told_with_their_ends_in_order(
    error: str, house: House
) -> None:
    house.slack.refuse = lambda method, message: error
    for number in range(5):
        house.put(f"trouble {number}", thread=f"thread {number}")
    house.rounds(3)
    for number in range(4):
        house.put(f"over {number}", thread=f"thread {number}", closes=True)
    house.put("again 0", thread="thread 0")
    house.rounds(3)
    house.slack.refuse = lambda method, message: None
    house.rounds(12)

    assert house.waiting() == []
    for number in range(4):
        of_it = [sentence for _, sentence in house.told if sentence.endswith(str(number))]
        assert of_it == [f"trouble {number}", f"over {number}", *(["again 0"] if number == 0 else [])]
    assert len(house.slack.heads) == 6


def test_what_waited_for_long_is_not_given_up_at_its_first_refusal(house: House) -> None:
    house.slack.refuse = lambda method, message: "token_revoked"
    house.put("1")
    house.rounds(4, hours=24)
    house.slack.refuse = lambda method, message: "not_in_channel"
    house.rounds(2)
    house.slack.refuse = lambda method, message: None
    house.rounds()
    assert house.told == [("#alerts", "1")]


@pytest.mark.parametrize("error", ["internal_error", "fatal_error"])
def test_a_message_that_slack_breaks_on_ends_the_round_and_lets_the_others_go_first(error: str, house: House) -> None:
    house.slack.refuse = of_text("poison", error)
    for sentence in ("poison", "other"):
        house.put(sentence)
    house.rounds()
    assert house.told == []
    house.rounds()
    assert house.told == [("#alerts", "other")]
    house.rounds(5, hours=24)
    assert house.waiting() == ["poison"], "Slack itself may be away, so it is not given up"


@pytest.mark.parametrize("error", ["token_revoked", "service_unavailable", "<html>no name of an error"])
def test_while_slack_or_the_token_is_away_all_stays_in_order_for_however_long(error: str, house: House) -> None:
    house.slack.refuse = lambda method, message: error
    house.put("1", "#news")
    house.put("2")
    house.rounds(10, hours=24)
    assert house.slack.requests == 10, "one call a round"
    house.slack.refuse = lambda method, message: None
    house.rounds()

    assert house.told == [("#news", "1"), ("#alerts", "2")]


def test_a_thread_whose_channel_is_archived_goes_on_in_the_usual_one(house: House) -> None:
    house.put("it drifts", "#ml", thread=THREAD)
    house.rounds()
    house.slack.refuse = lambda m, message: "is_archived" if message["channel"] in ("#ml", "Cml") else None
    house.put("it drifts on", "#ml", thread=THREAD)
    house.put("and on", "#ml", thread=THREAD)
    house.rounds()
    house.put("over", "#ml", thread=THREAD, closes=True)
    house.rounds()

    assert [s for _, s in house.told] == ["it drifts", "it drifts on", "and on", "over"]
    assert {channel for channel, _ in house.told[1:]} == {"#alerts"}
    assert "✅" in house.slack.heads[1]["blocks"][0]["text"]["text"]
    assert house.waiting() == []


def test_the_end_of_what_was_told_in_a_channel_that_is_archived_is_told_where_people_are(house: House) -> None:
    house.put("it drifts", "#ml", thread=THREAD)
    house.rounds()
    house.slack.refuse = lambda m, message: "is_archived" if message["channel"] in ("#ml", "Cml") else None
    house.put("over", "#ml", thread=THREAD, closes=True)
    house.put("another one", "#ml", thread=THREAD)
    house.rounds()

    assert house.told[1:] == [("#alerts", "over"), ("#alerts", "another one")]
    assert len(house.slack.heads) == 3


def test_a_channel_that_is_not_there_costs_one_call_a_round_and_is_given_up_after_three_days(house: House) -> None:
    house.slack.channels_away = {"#gone", "#alerts"}
    for number in range(40):
        house.put(str(number), "#gone", thread=THREAD if number % 2 else "")
    house.put("healthy", "#alive")
    house.rounds()
    assert house.told == [("#alive", "healthy")]
    assert house.slack.requests == 3, "both channels once, and the healthy one"
    house.rounds(10)
    assert house.slack.requests == 3 + 10 * 2
    house.rounds(30, hours=24)
    assert house.waiting() == []
    assert all("channel_not_found" in row.last.sentence for row in table_of_alerts(house.settings, 60)[1:])


@pytest.mark.parametrize("error", ["msg_too_long", "cant_update_message", "an_error_of_tomorrow", "internal_error"])
def test_a_head_that_cannot_be_changed_holds_back_no_reply_and_says_none_twice(error: str, house: House) -> None:
    house.slack.refuse = lambda method, message: error if method == "chat.update" else None
    for number in range(3):
        house.put(f"news {number}", thread=THREAD)
        house.rounds()
    house.put("over", thread=THREAD, closes=True)
    house.rounds()

    assert [sentence for _, sentence in house.told] == ["news 0", "news 1", "news 2", "over"]
    assert house.waiting() == []


def test_a_head_that_cannot_be_changed_yet_is_changed_later_and_nothing_said_twice(house: House) -> None:
    house.slack.refuse = lambda method, message: "ratelimited" if method == "chat.update" else None
    house.put("it drifts", thread=THREAD)
    house.put("over", thread=THREAD, closes=True)
    house.rounds(3)
    house.slack.refuse = lambda method, message: None
    house.rounds()

    assert [sentence for _, sentence in house.told] == ["it drifts", "over"]
    assert "✅" in house.slack.heads[0]["blocks"][0]["text"]["text"]


def test_replies_that_nothing_can_be_done_about_make_no_flood_of_heads(house: House) -> None:
    house.slack.refuse = lambda m, message: (
        "restricted_action_non_threadable_channel" if "thread_ts" in message else None
    )
    for number in range(50):
        house.put(f"news {number}", thread=THREAD)
    house.rounds()

    assert len(house.slack.heads) == 2
    assert house.slack.requests < 10
    house.put("other")
    house.rounds()
    assert ("#alerts", "other") in house.told[2:]


def test_the_end_of_a_long_trouble_is_shown_at_its_head(house: House) -> None:
    long = "<td>&nbsp;</td>" * 120
    house.put(long, thread=THREAD)
    house.put("a" + long, thread=THREAD, closes=True)
    house.rounds()

    (head,) = house.slack.heads
    assert len(head["text"].encode()) < 4000
    assert head["text"].count("Task failed") == 2
    assert "✅" in head["blocks"][0]["text"]["text"]


@pytest.mark.parametrize("character", ["x", "é", "😀", "&amp;", "<http://x|y>"])
def test_a_plain_text_is_cut_within_no_link_and_no_escape(character: str) -> None:
    assert plain("a", "b") == "a\nb"
    for before in range(12):
        cut = plain("b" * before + character * 5000)
        assert len(cut.encode()) <= TEXT
        assert cut.removesuffix(" … (shortened)") == "b" * before + character * cut.count(character[-1])


def test_an_error_is_told_without_the_token_that_it_repeats(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.slack.refuse = lambda method, message: f"bad_{house.slack.token}"
    with caplog.at_level(logging.DEBUG):
        house.put("x")
        house.rounds()

    assert house.slack.token not in caplog.text + str(house.box.refused())
