"""A part of the stack that stays away is told to people once, and again if it goes away again."""

from dataclasses import replace
from pathlib import Path

from fake_slack import FakeSlack
from windsock.settings import Settings
from windsock_local.stack.absences import Absences
from windsock_local.stack.home import PartInfo, StackInfo

READY, BOOTING = PartInfo(1, 1, 0, ready=True), PartInfo(1, 1, 0)
STACK = StackInfo("/srv/windsock", "ready", "", "", "", 0, parts={"scheduler": READY, "mlflow": READY})


def test_a_scheduler_that_is_gone_for_minutes_is_told_once_however_often_it_is_looked_for(tmp_path: Path) -> None:
    gone, again = replace(STACK, parts={"mlflow": READY}), replace(STACK, parts={"scheduler": BOOTING, "mlflow": READY})
    with FakeSlack() as slack:
        absences = Absences(Settings.from_env({"WINDSOCK_HOME": str(tmp_path), **slack.env}), ["scheduler", "mlflow"])
        for seconds, info in enumerate((STACK, gone, STACK, STACK, STACK)):
            absences.look(info, 20.0 * seconds)
        for seconds in range(0, 600, 20):
            absences.look(again if seconds % 40 else gone, 1000.0 + seconds)
        assert len(slack.messages) == 1, "back in seconds is no trouble; away for minutes is one"
        for seconds in range(0, 600, 20):
            absences.look(gone if seconds % 60 else STACK, 1600.0 + seconds)
        assert len(slack.messages) == 1, "one that comes back only to die again has not come back"
        for seconds in range(0, 60, 20):
            absences.look(STACK, 2200.0 + seconds)
        for seconds in (0, 190):
            absences.look(gone, 3000.0 + seconds)

    first, second = (message["text"] for message in slack.messages)
    assert "scheduler of the stack in /srv/windsock is away since 1970-01-01 00:16:40 UTC" in first
    assert "00:50:00" in second


def test_a_stack_that_stops_says_nothing(tmp_path: Path) -> None:
    with FakeSlack() as slack:
        absences = Absences(Settings.from_env({"WINDSOCK_HOME": str(tmp_path), **slack.env}), ["scheduler"])
        for seconds in (0, 1000):
            absences.look(replace(STACK, state="stopping", parts={}), float(seconds))
        assert not slack.messages
