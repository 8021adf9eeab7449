"""What alerts say, and that they never hurt: no raise, no wait, no secret."""

import logging
import socket
import time
from pathlib import Path

import pytest

from fake_slack import TOKEN, FakeSlack
from small_model import small_fraud
from windsock.alerts import MAX_SENTENCE, Alert, send
from windsock.settings import Settings

ALERT = Alert(
    "fraud_ingest",
    "Column TX_AMOUNT: 12 values < 0 & more, for example -3.",
    task_id="ingest",
    day="2026-03-05",
    url="http://127.0.0.1:8080/dags/fraud_ingest/runs/manual__1/tasks/ingest",
)


def settings(tmp_path: Path, **env: str) -> Settings:
    return Settings.from_env({"WINDSOCK_HOME": str(tmp_path), **env})


def test_a_message_names_dag_task_day_reason_and_link(tmp_path: Path) -> None:
    with FakeSlack() as slack:
        assert send(settings(tmp_path, **slack.env), ALERT)

    (message,) = slack.messages
    assert message["channel"] == "#alerts"
    for part in ("fraud_ingest", "task ingest", "2026-03-05", "12 values &lt; 0 &amp; more", f"<{ALERT.url}|"):
        assert part in message["text"]


def test_what_cannot_even_be_written_is_logged_and_no_error_of_the_caller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeSlack() as slack:
        unspeakable = Alert("fraud_ingest", "x", facts=None)  # type: ignore[arg-type]
        assert not send(settings(tmp_path, **slack.env), unspeakable)

    assert slack.requests == 0
    assert "An alert could not be sent: " in caplog.text


@pytest.mark.parametrize("before", range(MAX_SENTENCE - 60, MAX_SENTENCE + 10, 7))
def test_a_secret_that_a_long_sentence_is_cut_within_is_no_less_secret(before: int, tmp_path: Path) -> None:
    alert = Alert("fraud_ingest", "x" * before + " postgresql://airflow:hunter2-very-secret@db.example.com/x is away")
    message = alert.as_message(settings(tmp_path), None)
    assert "hunter2" not in alert.as_slack() + alert.as_line() + str(message)


def test_a_models_own_channel_comes_first(tmp_path: Path) -> None:
    _, spec = small_fraud(tmp_path, alerts={"slack_channel": "#fraud"})
    with FakeSlack() as slack:
        assert send(settings(tmp_path, **slack.env), ALERT, spec)

    assert slack.messages[0]["channel"] == "#fraud"


def test_without_slack_the_log_has_it_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    two_lines = Alert("fraud_ingest", "one\ntwo", day="2026-03-05")
    with caplog.at_level(logging.INFO):
        assert not send(settings(tmp_path), two_lines)

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "Task failed: DAG fraud_ingest, day 2026-03-05: one two"


@pytest.mark.parametrize(
    ("behaviour", "most_s"),
    [("error", 2), ("server_error", 2), ("always_rate_limited", 4), ("hang", 5), ("drip", 5), ("echo_token", 2)],
)
def test_slack_in_trouble_costs_seconds_and_a_warning_and_nothing_else(
    behaviour: str, most_s: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeSlack(behaviour) as slack, caplog.at_level(logging.DEBUG):
        started = time.monotonic()
        assert not send(settings(tmp_path, **slack.env), ALERT)
        took = time.monotonic() - started

    assert took < most_s
    assert slack.requests <= 2
    assert "Slack did not get this alert" in caplog.text
    assert "12 values < 0" in caplog.text, "the log has the message whatever becomes of Slack"
    assert TOKEN not in caplog.text


def test_a_short_rate_limit_is_waited_for(tmp_path: Path) -> None:
    with FakeSlack("rate_limited", retry_after=1) as slack:
        assert send(settings(tmp_path, **slack.env), ALERT)

    assert (slack.requests, len(slack.messages)) == (2, 1)


def test_a_server_that_is_down_costs_nothing(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        "WINDSOCK_SLACK_API_URL": f"http://127.0.0.1:{port}/api/",
        "WINDSOCK_SLACK_TOKEN": TOKEN,
        "WINDSOCK_SLACK_CHANNEL": "#a",
    }
    started = time.monotonic()

    assert not send(settings(tmp_path, **env), ALERT)
    assert time.monotonic() - started < 5


def test_a_resolver_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: time.sleep(20))
    env = {
        "WINDSOCK_SLACK_API_URL": "http://slack.invalid/api/",
        "WINDSOCK_SLACK_TOKEN": TOKEN,
        "WINDSOCK_SLACK_CHANNEL": "#a",
    }
    started = time.monotonic()

    assert not send(settings(tmp_path, **env), ALERT)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN}\nX-Injected: 1", "tøken-secret"])
def test_an_odd_token_neither_raises_nor_shows(token: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FakeSlack() as slack, caplog.at_level(logging.DEBUG):
        send(settings(tmp_path, **{**slack.env, "WINDSOCK_SLACK_TOKEN": token}), ALERT)

    assert token.strip() not in caplog.text
    assert TOKEN not in caplog.text


def test_secrets_in_the_text_are_struck_out() -> None:
    text = f"connect to postgresql+psycopg2://ann:pa:ss@db/x failed, token {TOKEN}"

    for written in (Alert("d", text).as_slack(), Alert("d", text).as_line()):
        assert "connect to postgresql+psycopg2://***@db/x failed, token ***" in written
        assert TOKEN not in written


def test_a_link_works_and_tells_no_password_in_every_form_of_a_message(tmp_path: Path) -> None:
    alert = Alert("d", "s", url="https://u:pw@ui/x?tab=a b", links=(("Version", "https://m:pw@mlflow/#/x?sig=s3cret"),))

    message = alert.as_message(settings(tmp_path), None)

    assert message.text.endswith("\n<https://***@ui/x?tab=a%20b|Open the run in Airflow>")
    assert dict(message.links) == {
        "Open the run in Airflow": "https://***@ui/x?tab=a b",
        "Version": "https://***@mlflow/#/x?sig=***",
    }


def test_text_from_data_cannot_call_people_or_forge_links() -> None:
    text = Alert("d", "<!channel> <https://evil|here>", url="http://x/a|b>c", headline="A & <!here>").as_slack()

    assert text.startswith("*A &amp; &lt;!here&gt;*: DAG d\n")
    assert "<!channel>" not in text
    assert "<https://evil" not in text
    assert "<http://x/a%7Cb%3Ec|Open" in text


def test_long_reasons_are_shortened() -> None:
    assert len(Alert("d", "x" * 100_000).as_slack()) < 2000
