"""One message per trouble, whoever sees it and however often; and what Slack did not take, later and in order."""

import logging
import multiprocessing
from datetime import timedelta
from pathlib import Path

import pytest

from fake_slack import FakeSlack
from fork_server import fork_context
from kill import DieAt, arm
from windsock import outbox
from windsock.alerts import Alert, send, send_waiting
from windsock.days import utc_now
from windsock.outbox import Message, Outbox
from windsock.settings import Settings
from windsock.store import Store


def settings(tmp_path: Path, slack: FakeSlack) -> Settings:
    return Settings.from_env({"WINDSOCK_HOME": str(tmp_path), **slack.env})


def trouble(number: int) -> Alert:
    return Alert("fraud_ingest", f"trouble {number}", cause=f"failed {number}")


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


def test_what_slack_did_not_take_is_sent_later_in_order_and_says_when_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeSlack("error") as slack:
        installation = settings(tmp_path, slack)
        assert not any(send(installation, trouble(number)) for number in range(3))
        send_waiting(installation)
        assert slack.requests == 3, "whoever put them in may still be at it"

        pass_time(monkeypatch, 60)
        send_waiting(installation)
        assert slack.requests == 4, "after a refusal the others wait"
        slack.behaviour = "ok"
        assert not send(installation, trouble(3)), "it would come before those that wait"
        pass_time(monkeypatch, 200)
        send_waiting(installation)
        send_waiting(installation)

    assert texts(slack) == [f"trouble {number}" for number in range(4)]
    assert all("UTC: it could not be sent before" in message["text"] for message in slack.messages)
    assert Outbox(Store.of(installation)).waiting() == []


def test_of_two_schedulers_one_sends_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box, sent = Outbox(Store(str(tmp_path))), []
    box.put(Message("c", utc_now().isoformat(), "#a", "t"))
    pass_time(monkeypatch, 60)

    def post(message: Message) -> None:
        sent.append(message)
        assert box.send_waiting(post) == 0, "the other one, meanwhile"

    assert box.send_waiting(post) == 1
    assert len(sent) == 1


def test_after_weeks_the_newest_are_sent_and_the_rest_stays_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_MOST_WAITING", 3)
    box, sent = Outbox(Store(str(tmp_path))), []
    for number in range(5):
        box.put(Message(str(number), utc_now().isoformat(), "#a", ""))
    pass_time(monkeypatch, 60)

    assert box.send_waiting(lambda message: sent.append(message.cause)) == 3
    assert sent == ["2", "3", "4"]
    assert box.waiting() == []
    pass_time(monkeypatch, 91 * 86400)
    box.prune()
    assert Store(str(tmp_path)).files("alerts") == []


def test_without_a_store_a_trouble_is_told_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with FakeSlack() as slack:
        away = Settings.from_env(
            {"WINDSOCK_HOME": str(tmp_path), "WINDSOCK_STORE": str(tmp_path / "file"), **slack.env}
        )
        assert send(away, trouble(1))

    assert texts(slack) == ["trouble 1"]
    assert "The outbox did not take this alert" in caplog.text


def test_without_slack_nothing_waits_for_it(tmp_path: Path) -> None:
    installation = Settings.from_env({"WINDSOCK_HOME": str(tmp_path)})
    send(installation, trouble(1))
    assert Outbox(Store.of(installation)).waiting() == []


def _send_and_die(home: str, env: dict[str, str], place: str, after: bool) -> None:
    arm(DieAt(place, after=after))
    send(Settings.from_env({"WINDSOCK_HOME": home, **env}), trouble(1))


@pytest.mark.parametrize(
    ("place", "after", "messages"),
    [
        ("windsock.store:create_file", False, 1),
        ("windsock.store:create_file", True, 1),
        ("windsock.alerts:_post", False, 1),
        ("windsock.alerts:_post", True, 2),  # nobody knows that Slack has it
    ],
)
def test_a_kill_anywhere_loses_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, after: bool, messages: int
) -> None:
    with FakeSlack() as slack:
        child: multiprocessing.process.BaseProcess = fork_context().Process(
            target=_send_and_die, args=(str(tmp_path), slack.env, place, after)
        )
        child.start()
        child.join(60)
        installation = settings(tmp_path, slack)
        pass_time(monkeypatch, 60)
        send(installation, trouble(1))  # whoever else sees it
        send_waiting(installation)

    assert len(slack.messages) == messages
