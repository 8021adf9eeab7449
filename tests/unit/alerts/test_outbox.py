"""One message per trouble, whoever sees it and however often; and what Slack did not take, later and in order."""

import logging
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fake_slack import FakeSlack
from fork_server import fork_context
from kill import DieAt, arm
from windsock import outbox
from windsock.alert_table import table_of_alerts
from windsock.alerts import Alert, report, send, send_waiting
from windsock.days import utc_now
from windsock.outbox import Message, Outbox
from windsock.settings import Settings
from windsock.store import Store


def settings(tmp_path: Path, slack: FakeSlack) -> Settings:
    return Settings.from_env({"WINDSOCK_HOME": str(tmp_path), **slack.env})


def trouble(number: int) -> Alert:
    return Alert("fraud_ingest", f"trouble {number}", cause=f"failed {number}")


def going_on(number: int, thread: str = "failed fraud_ingest") -> Alert:
    return replace(trouble(number), thread=thread, cause=f"{thread} {number}")


def over(thread: str = "failed fraud_ingest") -> Alert:
    return Alert("fraud_ingest", "It runs again.", cause=f"over {thread}", thread=thread, closes=True)


def texts(slack: FakeSlack) -> list[str]:
    return [message["text"].splitlines()[1] for message in slack.messages]


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = utc_now() + timedelta(seconds=seconds)
    monkeypatch.setattr(outbox, "utc_now", lambda: now)


def test_a_trouble_that_several_see_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FakeSlack() as slack, caplog.at_level(logging.INFO):
        installation = settings(tmp_path, slack)
        assert [send(installation, trouble(1)) for _ in range(3)] == [True, False, False]
        assert send(installation, trouble(2))
        # What names no trouble is one of its own.
        assert all(send(installation, Alert("fraud_ingest", "x")) for _ in range(2))

    assert texts(slack) == ["trouble 1", "trouble 2", "x", "x"]
    assert [record.levelno for record in caplog.records if "trouble 1" in record.message] == [40, 20, 20]


@pytest.mark.parametrize("behaviour", ["error", "server_error", "always_rate_limited", "hang"])
def test_what_slack_did_not_take_is_sent_later_in_order_and_says_when_it_was(
    behaviour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeSlack(behaviour, retry_after=120) as slack:
        installation = settings(tmp_path, slack)
        assert not any(send(installation, trouble(number)) for number in range(3))
        assert slack.requests == 1, "after a refusal the others wait"
        send_waiting(installation)
        assert slack.requests == 1, "Slack is left alone for a while"

        slack.behaviour = "ok"
        pass_time(monkeypatch, 60)
        send_waiting(installation)
        assert slack.requests == (1 if behaviour == "always_rate_limited" else 4), "as long as it says"
        report(installation, trouble(3))
        pass_time(monkeypatch, 200)
        send_waiting(installation)
        send_waiting(installation)

    assert texts(slack) == [f"trouble {number}" for number in range(4)]
    late = "UTC: it could not be sent before"
    assert late in slack.messages[3]["text"] or behaviour != "always_rate_limited"
    assert Outbox(Store.of(installation)).waiting() == []


def test_two_hundred_tasks_that_fail_at_once_are_one_thread(tmp_path: Path) -> None:
    with FakeSlack() as slack:
        installation = settings(tmp_path, slack)
        with ThreadPoolExecutor(16) as tasks:
            assert all(tasks.map(lambda number: report(installation, going_on(number)), range(200)))
        with ThreadPoolExecutor(4) as schedulers:
            list(schedulers.map(lambda _: send_waiting(installation), range(4)))
        send_waiting(installation)

    (head,) = slack.heads
    assert "(200×)" in head["blocks"][0]["text"]["text"]
    (reply,) = [message for message in slack.messages if message is not head]
    assert "199 more of the same" in reply["text"]
    assert "and 189 more" in reply["text"]


def test_what_recovers_closes_its_thread_and_the_next_trouble_begins_another(tmp_path: Path) -> None:
    with FakeSlack() as slack:
        installation = settings(tmp_path, slack)
        assert not report(installation, over()), "nothing is open"
        for alert in (going_on(1), going_on(2), trouble(7), over(), replace(over(), cause="over again"), going_on(3)):
            report(installation, alert)
        assert Outbox(Store.of(installation)).open_threads() == {"failed fraud_ingest"}
        send_waiting(installation)

    first, other, second = slack.heads
    assert first["blocks"][0]["text"]["text"] == "✅ Task failed (2×): over"
    assert "It runs again." in str(first["blocks"])
    assert [message["text"].splitlines()[1] for message in slack.messages if "thread_ts" in message] == [
        "trouble 2",
        "It runs again.",
    ]
    assert "trouble 7" in other["text"]
    assert "trouble 3" in second["text"]


def test_a_trouble_that_nobody_mends_comes_up_again_after_a_silent_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeSlack() as slack:
        installation = settings(tmp_path, slack)
        send(installation, going_on(1))
        now = utc_now() + timedelta(days=8)
        monkeypatch.setattr("windsock.alerts.utc_now", lambda: now)
        send(installation, going_on(2))

    assert len(slack.heads) == 2


def test_of_two_schedulers_one_sends_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Outbox(Store(str(tmp_path)))
    turn = box.take_turn()
    assert turn is not None
    assert box.take_turn() is None, "the other one, meanwhile"
    box.end_turn(turn, timedelta(seconds=20))
    assert box.take_turn() is None, "nobody yet"
    pass_time(monkeypatch, 21)
    assert box.take_turn() is not None
    pass_time(monkeypatch, 100)
    assert box.take_turn() is not None, "who had it is dead"


def test_after_weeks_the_newest_are_sent_and_the_rest_stays_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_MOST_WAITING", 3)
    box = Outbox(Store(str(tmp_path)))
    for number in range(5):
        box.put(Message(str(number), utc_now().isoformat(), "#a", ""))

    assert [message.cause for message in box.waiting()] == ["2", "3", "4"]
    assert [message.cause for message in box.messages()] == ["0", "1", "2", "3", "4"]
    pass_time(monkeypatch, 91 * 86400)
    box.prune()
    assert Store(str(tmp_path)).files("alerts") == []


def test_a_damaged_marker_of_an_open_thread_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    installation = Settings.from_env({"WINDSOCK_HOME": str(tmp_path)})
    report(installation, going_on(1))
    (marker,) = Path(installation.store, "alerts", "open").iterdir()
    report(installation, going_on(2, "drift fraud"))
    box = Outbox(Store.of(installation))
    for damage in (b'{"thr', b"[]", b"{}", b"\xff"):
        marker.write_bytes(damage)
        assert box.open_threads() == {"drift fraud"}
    assert "Passed over" in caplog.text

    report(installation, going_on(3))
    assert box.open_threads() == {"drift fraud", "failed fraud_ingest"}, "what goes on is told again, which mends it"
    report(installation, over("drift fraud"))
    marker.write_bytes(b"{")
    report(installation, over())
    assert not marker.exists()


def test_a_day_that_is_decided_twice_ends_a_trouble_each_time(tmp_path: Path) -> None:
    with FakeSlack() as slack:
        installation = settings(tmp_path, slack)
        for number in (1, 2):
            send(installation, going_on(number))
            assert report(installation, over())
            assert not report(installation, over()), "once for each"
            send_waiting(installation)

    assert ["✅" in head["blocks"][0]["text"]["text"] for head in slack.heads] == [True, True]
    assert [row.state for row in table_of_alerts(installation, 1)] == ["over", "over"]


def test_an_earlier_day_that_is_decided_again_does_not_end_what_began_or_was_told_later(tmp_path: Path) -> None:
    installation = Settings.from_env({"WINDSOCK_HOME": str(tmp_path)})
    box = Outbox(Store.of(installation))
    report(installation, replace(going_on(1), day="2026-03-04"))
    assert report(installation, replace(over(), day="2026-03-05"))
    report(installation, replace(going_on(2), day="2026-03-05"))
    report(installation, replace(going_on(3), day="2026-03-09"))

    for day in ("2026-03-04", "2026-03-08"):
        assert not report(installation, replace(over(), day=day))
    assert box.open_threads() == {"failed fraud_ingest"}
    assert report(installation, replace(over(), day="2026-03-09"))
    assert box.open_threads() == set()


def test_the_end_of_what_lasted_for_half_a_year_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeSlack() as slack:
        installation = settings(tmp_path, slack)
        send(installation, going_on(1))
        pass_time(monkeypatch, 180 * 86400)
        box = Outbox(Store.of(installation))
        box.prune()
        assert box.messages() == []
        assert box.open_threads() == {"failed fraud_ingest"}
        assert send(installation, over())
        box.prune()

    (head,) = slack.heads
    assert "✅" in head["blocks"][0]["text"]["text"]
    report(installation, going_on(2))
    pass_time(monkeypatch, 600 * 86400)
    box.prune()
    assert box.open_threads() == set(), "of what nobody has heard of for a year nobody will"


def test_a_channel_that_is_not_there_holds_up_no_other(tmp_path: Path) -> None:
    with FakeSlack() as slack:
        slack.channels_away = {"#gone", "#alerts"}
        installation = settings(tmp_path, slack)
        box = Outbox(Store.of(installation))
        for number, channel in enumerate(("#gone", "#here", "#gone", "#here")):
            box.put(Message(str(number), utc_now().isoformat(), channel, f"\nm{number}"))
        send_waiting(installation)
        assert texts(slack) == ["m1", "m3"]

        slack.channels_away = {"#gone"}
        send_waiting(installation)

    assert texts(slack) == ["m1", "m3", "m0", "m2"]
    assert [message["channel"] for message in slack.messages[2:]] == ["#alerts", "#alerts"]


def test_a_message_whose_blocks_are_refused_is_sent_as_text(tmp_path: Path) -> None:
    with FakeSlack("no_blocks") as slack:
        assert send(settings(tmp_path, slack), trouble(1))

    assert "blocks" not in slack.messages[0]


def test_a_head_that_somebody_removed_keeps_no_message_back(tmp_path: Path) -> None:
    with FakeSlack() as slack:
        installation = settings(tmp_path, slack)
        send(installation, going_on(1))
        slack.messages.clear()
        send(installation, going_on(2))

    assert texts(slack) == ["trouble 2"]


def test_without_a_store_a_trouble_is_told_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with FakeSlack() as slack:
        away = Settings.from_env(
            {"WINDSOCK_HOME": str(tmp_path), "WINDSOCK_STORE": str(tmp_path / "file"), **slack.env}
        )
        assert send(away, trouble(1))

    assert texts(slack) == ["trouble 1"]
    assert "The outbox did not take this alert" in caplog.text


def test_without_slack_nothing_waits_for_it_and_the_table_has_it(tmp_path: Path) -> None:
    installation = Settings.from_env({"WINDSOCK_HOME": str(tmp_path)})
    send(installation, trouble(1))
    report(installation, trouble(2))
    box = Outbox(Store.of(installation))
    assert box.waiting() == []
    assert [message.sentence for message in box.messages()] == ["trouble 1", "trouble 2"]


def _send_and_die(home: str, env: dict[str, str], place: str, call: int, after: bool) -> None:
    arm(DieAt(place, call=call, after=after))
    installation = Settings.from_env({"WINDSOCK_HOME": home, **env})
    for alert in (going_on(1), going_on(2), over()):
        report(installation, alert)
    send_waiting(installation)


@pytest.mark.parametrize(
    ("place", "call", "after", "twice"),
    [
        ("windsock.store:create_file", 1, False, None),
        ("windsock.store:create_file", 1, True, None),
        ("windsock.slack:Delivery._post", 1, False, None),
        ("windsock.slack:Delivery._post", 1, True, "trouble 1"),  # nobody knows that Slack has it
        ("windsock.slack:Delivery._post", 2, False, None),
        ("windsock.slack:Delivery._post", 2, True, "trouble 2"),
        ("windsock.slack:Delivery._post", 3, True, "It runs again."),
        ("windsock.outbox:Outbox.mark_sent", 1, False, None),
        ("windsock.outbox:Outbox.mark_sent", 2, False, None),
        ("windsock.outbox:Outbox.mark_sent", 3, True, None),
    ],
)
def test_a_kill_anywhere_loses_no_message_and_at_most_the_one_at_hand_comes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, call: int, after: bool, twice: str | None
) -> None:
    with FakeSlack() as slack:
        child: multiprocessing.process.BaseProcess = fork_context().Process(
            target=_send_and_die, args=(str(tmp_path), slack.env, place, call, after)
        )
        child.start()
        child.join(60)
        assert child.exitcode not in (0, 1), "it was killed"
        installation = settings(tmp_path, slack)
        pass_time(monkeypatch, 61)
        for alert in (going_on(1), going_on(2), over()):  # whoever else sees it
            report(installation, alert)
        send_waiting(installation)

    wanted = ["trouble 1", "trouble 2", "It runs again."]
    assert texts(slack) == sorted(wanted + ([twice] if twice else []), key=wanted.index)
    assert "✅" in slack.heads[-1]["blocks"][0]["text"]["text"]
