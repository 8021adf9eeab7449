"""Telling people of parts of a stack that stay away, Airflow among them: the supervisor outlives them all."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from windsock.alerts import Alert, send
from windsock.settings import Settings
from windsock_local.stack.home import StackInfo

_LOOK_S = 20.0
_LOOKS_UNTIL_TOLD = 9
"""Three minutes: a part that is started again is back before this. In looks, as clocks jump and laptops sleep."""
_LOOKS_THAT_ARE_WELL = 3
"""Ready for a minute; one that comes back only to die again is still away."""


class Absences:
    """Reports each part that is away for minutes once, until it has come back to stay."""

    def __init__(self, settings: Settings, parts: list[str]) -> None:
        self._settings = settings
        self._ready_looks = dict.fromkeys(parts, _LOOKS_THAT_ARE_WELL)
        self._away: dict[str, tuple[float, int]] = {}
        """Of each part that is not well: since when (UTC seconds), and for how many looks."""

    def look(self, info: StackInfo, now: float) -> None:
        """Look once at what the supervisor says; ``now`` is in UTC seconds."""
        for name, ready_looks in self._ready_looks.items():
            part = info.parts.get(name)
            self._ready_looks[name] = ready_looks + 1 if part is not None and part.ready else 0
            if info.state != "ready" or self._ready_looks[name] >= _LOOKS_THAT_ARE_WELL:
                self._away.pop(name, None)
                continue
            since, looks = self._away.get(name, (now, 0))
            self._away[name] = since, looks + 1
            if looks + 1 == _LOOKS_UNTIL_TOLD:
                sentence = (
                    f"{name} of the stack in {info.home} is away since {_utc(since)}. Nothing that needs it goes on. "
                    "It is being started again; `windsock status` says how it is, and its log why it ended."
                )
                alert = Alert(None, sentence, headline="The stack is not well", cause=f"away {name} {since:.0f}")
                send(self._settings, alert)

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
