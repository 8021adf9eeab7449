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

        def look(at: float, *seen: StackInfo) -> int:
            for n, info in enumerate(seen):
                absences.look(info, at + 20 * n)
            return len(slack.messages)

        assert look(20, STACK, gone, *[STACK] * 30) == 0, "back in seconds is no trouble"
        assert look(1000, *[again, gone] * 15) == 1, "away for minutes is one"
        assert look(1600, *[STACK, gone, gone] * 10) == 1, "back only to die again is not back"
        assert look(2200, *[STACK] * 30, gone, again) == 1
        assert look(90_000, gone, *[STACK] * 30) == 1, "a clock that jumped, or a laptop that slept"
        assert look(91_000, *[STACK, STACK, STACK, gone, gone] * 4) == 1
        assert look(91_400, *[STACK, STACK, STACK, gone, gone] * 9) == 2, "one that keeps dying is away too"

    first, second = (message["text"] for message in slack.messages)
    assert "scheduler of the stack in /srv/windsock is away since 1970-01-01 00:16:40 UTC" in first
    assert "keeps dying since 1970-01-02 01:17:40 UTC" in second


def test_a_stack_that_stops_says_nothing(tmp_path: Path) -> None:
    with FakeSlack() as slack:
        absences = Absences(Settings.from_env({"WINDSOCK_HOME": str(tmp_path), **slack.env}), ["scheduler"])
        for _ in range(20):
            absences.look(replace(STACK, state="stopping", parts={}), 0.0)
        assert not slack.messages
