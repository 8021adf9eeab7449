"""The outbox of alerts: in the store, so that every process sees what was said already and what still waits.

A message is one file, named by its cause and created once: of all who see the same trouble (the task itself, the
scheduler, the next try of either) one reports it. A second file says that it was sent, so what Slack did not take is
found again, in order, however long that takes. Nothing is ever changed; what is old is removed.
"""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from windsock.days import utc_now
from windsock.format_numbers import numbered
from windsock.listing import listed
from windsock.store import Store, to_json

log = logging.getLogger(__name__)

_FOLDER, _SENT, _TURNS = "alerts", "sent", "turns"
_KIND = "alert"
_KEPT = timedelta(days=90)
"""How long a cause is known, and so not reported again."""
_MOST_WAITING = 200
"""Of more messages than this the oldest stay in the store alone: nobody reads on after an outage of weeks."""
HANDS_OFF = timedelta(seconds=30)
"""For so long, whoever put a message in may still be sending it."""
_TURN = timedelta(minutes=1)


@dataclass(frozen=True)
class Message:
    """One message to people."""

    cause: str
    """Names the trouble; there is one message about it."""
    at: str
    """When it was reported, ISO 8601 in UTC."""
    channel: str
    text: str

    @property
    def name(self) -> str:
        """Name of its file."""
        return hashlib.sha256(self.cause.encode()).hexdigest()[:32]

    @property
    def age(self) -> timedelta:
        """How long ago it was reported."""
        return utc_now() - datetime.fromisoformat(self.at)


@dataclass(frozen=True)
class Outbox:
    """The outbox of one installation."""

    store: Store

    def put(self, message: Message) -> bool:
        """Keep a message to be sent; False if its cause was reported before."""
        try:
            self.store.create_bytes(to_json(numbered(_KIND, asdict(message))), _FOLDER, f"{message.name}.json")
        except FileExistsError:
            return False
        return True

    def mark_sent(self, message: Message) -> None:
        """Note that a message has reached people, or has no way to them."""
        with suppress(FileExistsError):
            self.store.create_bytes(b"{}\n", _FOLDER, _SENT, f"{message.name}.json")

    def waiting(self) -> list[Message]:
        """Return the messages that are still to be sent, oldest first."""
        names = set(self.store.json_names(_FOLDER)) - set(self.store.json_names(_FOLDER, _SENT))
        found = [self.store.read_record(_KIND, Message, _FOLDER, f"{name}.json") for name in names]
        return sorted(found, key=lambda message: (message.at, message.cause))

    def send_waiting(self, post: Callable[[Message], str | None]) -> int:
        """Send what waits, in order, up to the first that is not taken; return how many were.

        ``post`` returns None if a message was taken, else the problem. One process a minute has the turn, so that
        several schedulers send nothing twice.
        """
        waiting = [message for message in self.waiting() if message.age >= HANDS_OFF]
        if not waiting or not self._takes_turn():
            return 0
        dropped, waiting = waiting[:-_MOST_WAITING], waiting[-_MOST_WAITING:]
        for message in dropped:
            log.warning("Too many alerts wait; this one is not sent, and stays in the store: %s", message.cause)
            self.mark_sent(message)
        began, sent = utc_now(), 0
        for message in waiting:
            if utc_now() - began > _TURN / 2:
                break
            if (problem := post(message)) is not None:
                log.warning("%d alerts wait: Slack did not take the first: %s", len(waiting) - sent, problem)
                break
            self.mark_sent(message)
            sent += 1
        return sent

    def _takes_turn(self) -> bool:
        turn = f"{int(utc_now().timestamp() // _TURN.total_seconds())}.json"
        before = self.store.json_names(_FOLDER, _TURNS)
        try:
            self.store.create_bytes(b"{}\n", _FOLDER, _TURNS, turn)
        except FileExistsError:
            return False
        for name in before:
            self.store.remove(_FOLDER, _TURNS, f"{name}.json")
        return True

    def prune(self) -> None:
        """Remove what is older than anybody's memory of its cause."""
        for file in listed(self.store, _FOLDER):
            if utc_now() - file.written > _KEPT:
                self.store.remove(file.name)
