"""Telling people of parts of a stack that stay away, Airflow among them: the supervisor outlives them all."""

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from windsock.alerts import Alert, send
from windsock.settings import Settings
from windsock_local.stack.home import StackInfo

_LOOK_S = 20.0
_LOOKS, _LOOKS_AWAY = 30, 9
"""Of the looks of ten minutes so many, three minutes, find a part away before that is told: one that is started again
is back before, and one that keeps dying is not. Counted in looks, as clocks jump and laptops sleep."""


class Absences:
    """Reports each part that is away for minutes once, until it has been there for ten minutes."""

    def __init__(self, settings: Settings, parts: list[str]) -> None:
        self._settings = settings
        self._seen = {name: deque[float | None](maxlen=_LOOKS) for name in parts}
        """Of each part the last looks: when it was found away (UTC seconds), None if it was not."""
        self._told: set[str] = set()

    def look(self, info: StackInfo, now: float) -> None:
        """Look once at what the supervisor says; ``now`` is in UTC seconds."""
        for name, seen in self._seen.items():
            part = info.parts.get(name)
            seen.append(None if info.state != "ready" or (part is not None and part.ready) else now)
            away = [at for at in seen if at is not None]
            if not away:
                self._told.discard(name)
            elif len(away) >= _LOOKS_AWAY and name not in self._told:
                self._told.add(name)
                how = "is away" if None not in list(seen)[-_LOOKS_AWAY:] else "keeps dying"
                sentence = (
                    f"{name} of the stack in {info.home} {how} since {_utc(away[0])}. Nothing that needs it goes on. "
                    "It is being started again; `windsock status` says how it is, and its log why it ended."
                )
                cause = f"away {name} {away[0]:.0f}"
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
