"""Telling people of parts of a stack that stay away, Airflow among them: the supervisor outlives them all."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from windsock.alerts import Alert, send
from windsock.settings import Settings
from windsock_local.stack.home import StackInfo

_LONGEST_S = 180.0
"""A part that is started again is back before this."""
_LOOK_S = 20.0


class Absences:
    """Reports each part that is away for minutes once, for as long as it is away."""

    def __init__(self, settings: Settings, parts: list[str]) -> None:
        self._settings, self._parts = settings, parts
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    def look(self, info: StackInfo, now: float) -> None:
        """Look once at what the supervisor says; ``now`` is in UTC seconds."""
        for name in self._parts:
            part = info.parts.get(name)
            if info.state != "ready" or (part is not None and part.ready):
                self._since.pop(name, None)
                self._told.discard(name)
                continue
            since = self._since.setdefault(name, now)
            if now - since >= _LONGEST_S and name not in self._told:
                self._told.add(name)
                sentence = (
                    f"{name} of the stack in {info.home} is away since {_utc(since)}. Nothing that needs it goes on. "
                    "It is being started again; `windsock status` says how it is, and its log why it ended."
                )
                self._send(sentence, f"away {name} {since:.0f}")

    def report_end(self, why: Exception) -> None:
        """Report that the supervisor gives up, and with it the whole stack."""
        sentence = f"The stack in {self._settings.home} has ended: {why}\nStart it again with `windsock up`."
        self._send(sentence, f"ended {_utc(datetime.now(UTC).timestamp())}")

    def _send(self, sentence: str, cause: str) -> None:
        send(self._settings, Alert(None, sentence, headline="The stack is not well", cause=cause))

    def watch(self, info: Callable[[], StackInfo]) -> Callable[[], None]:
        """Look every few seconds in a thread, as Slack may take its time; return what ends it."""
        over = threading.Event()

        def look_for_ever() -> None:
            while not over.wait(_LOOK_S):
                self.look(info(), datetime.now(UTC).timestamp())

        threading.Thread(target=look_for_ever, name="windsock-absences", daemon=True).start()
        return over.set


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
