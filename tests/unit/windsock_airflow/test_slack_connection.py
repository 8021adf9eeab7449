"""Slack's token may be the password of an Airflow connection, which the scheduler alone reads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fake_slack import FakeSlack
from windsock.alerts import Alert, report, send, send_waiting
from windsock.errors import SpecError
from windsock.outbox import Outbox
from windsock.settings import Settings
from windsock.store import Store
from windsock_airflow.slack_connection import with_token

NAMED = {"WINDSOCK_SLACK_CONN_ID": "slack_api_default"}
VARIABLE = "AIRFLOW_CONN_SLACK_API_DEFAULT"


def installation(home: Path, slack: FakeSlack) -> Settings:
    env = {name: value for name, value in slack.env.items() if name != "WINDSOCK_SLACK_TOKEN"}
    return Settings.from_env({"WINDSOCK_HOME": str(home), **env, **NAMED})


def connection(password: str) -> str:
    return json.dumps({"conn_type": "slack", "password": password})


def test_what_tasks_say_without_a_token_is_kept_until_the_scheduler_sends_it_with_the_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeSlack() as slack:
        settings = installation(tmp_path, slack)
        assert report(settings, Alert("fraud_ingest", "said by a task", cause="one"))
        assert not send(settings, Alert("fraud_ingest", "said by a command", cause="two")), "not now, but later"
        send_waiting(settings)
        assert slack.requests == 0

        monkeypatch.setenv(VARIABLE, connection(f" {slack.token}\n"))
        send_waiting(with_token(settings))

    assert [message["text"].splitlines()[1] for message in slack.messages] == ["said by a task", "said by a command"]
    assert Outbox(Store.of(settings)).waiting() == []
    assert slack.token not in repr(with_token(settings))


def test_a_new_token_is_used_the_next_time_and_one_of_the_environment_goes_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named, own = Settings.from_env(NAMED), Settings.from_env({**NAMED, "WINDSOCK_SLACK_TOKEN": "xoxb-own"})

    for token in ("xoxb-first", "xoxb-second"):
        monkeypatch.setenv(VARIABLE, connection(token))
        assert with_token(named).slack_token == token
        assert with_token(own) is own
    assert with_token(Settings.from_env({})).slack_token == ""


@pytest.mark.parametrize(("value", "what"), [(None, "is not there"), (connection(" "), "has no password")])
def test_a_connection_that_gives_no_token_is_told_with_what_to_do(
    value: str | None, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setitem(os.environ, VARIABLE, value)

    with pytest.raises(SpecError, match=what) as told:
        with_token(Settings.from_env(NAMED))

    assert "'slack_api_default'" in str(told.value)
    assert "messages wait in the outbox" in str(told.value)
