"""The outbox of alerts: in the store, so that every process sees what was said already and what still waits.

A message is one file, named by its cause and created once: of all who see the same trouble (the task itself, the
scheduler, the next try of either) one reports it. A second file says that it was sent, so what Slack did not take is
found again, in order, however long that takes. Messages about one trouble share a thread, which is open from the
first of them until one closes it. One process at a time has the turn to send. What is old is removed.
"""

import hashlib
import logging
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from windsock.days import utc_now
from windsock.errors import DamagedRecord
from windsock.format_numbers import numbered
from windsock.listing import listed
from windsock.store import Store, damaged, to_json

log = logging.getLogger(__name__)

Severity = Literal["error", "warning", "info"]

_FOLDER, _SENT, _REFUSED, _TURNS, _OPEN, _THREADS = "alerts", "sent", "refused", "turns", "open", "threads"
_KIND = "alert"
_KEPT = timedelta(days=90)
"""How long a cause is known, and so not reported again."""
_KEPT_OPEN = timedelta(days=365)
"""How long a thread stays open of which nobody says another word."""
_MOST_WAITING = 1000
"""Of more messages than this the oldest stay in the store alone: nobody reads on after an outage of weeks."""
_TURN = timedelta(minutes=1)
"""Who has had the turn for longer is taken for dead."""


@dataclass(frozen=True)
class Message:
    """One message to people."""

    cause: str
    """Names the trouble; there is one message about it."""
    at: str
    """When it was reported, ISO 8601 in UTC."""
    channel: str
    """Empty: to the log and the table of alerts alone."""
    text: str
    """All of it as Slack's text: what a phone shows in its notification, and who cannot show blocks."""
    kind: str = "failure"
    severity: Severity = "error"
    headline: str = ""
    sentence: str = ""
    model: str = ""
    owner: str = ""
    dag_id: str = ""
    task_id: str = ""
    day: str = ""
    run_id: str = ""
    links: tuple[tuple[str, str], ...] = ()
    """Words and address of each, the run in Airflow first."""
    facts: tuple[tuple[str, str], ...] = ()
    """Name and value of each."""
    thread: str = ""
    """Names what is going on: all that is said of it folds into one thread. Empty: a message of its own."""
    closes: bool = False
    """Whether it says that what its thread is about is over."""

    @property
    def name(self) -> str:
        """Name of its file."""
        return _name_of(self.cause)

    @property
    def age(self) -> timedelta:
        """How long ago it was reported."""
        return utc_now() - datetime.fromisoformat(self.at)


@dataclass(frozen=True)
class SlackThread:
    """A thread as it stands in Slack."""

    root: Message
    """The message at its head."""
    channel: str
    """Slack's id of the channel."""
    ts: str
    """Slack's id of the head."""
    names: tuple[str, ...] = ()
    """Messages that have been said there, the head's included."""
    last: str = ""
    """When the last of them was reported."""
    closed: bool = False


@dataclass(frozen=True)
class Refusal:
    """Why Slack did not take a message."""

    why: str
    since: str
    """When it first did not, ISO 8601."""
    own: bool
    """Whether the message itself is the trouble, and neither its channel nor perhaps Slack."""


@dataclass(frozen=True)
class Turn:
    """The right to send, until it is given back."""

    number: int


@dataclass(frozen=True)
class Outbox:
    """The outbox of one installation."""

    store: Store

    def put(self, message: Message) -> Message | None:
        """Keep a message to be sent, and return it as it is kept.

        None: its cause was reported before, or it closes what is not open, or what was told of a later day.
        """
        marker = f"{_name_of(message.thread)}.json"
        if message.closes:
            opening = self._opening(message.thread)
            if opening is None or (message.day and message.day < str(opening.get("day", ""))):
                return None
            # One for each opening: a day that is decided twice ends twice what began twice.
            message = replace(message, cause=", of ".join(filter(None, (message.cause, opening.get("cause")))))
        try:
            self.store.create_bytes(to_json(numbered(_KIND, asdict(message))), _FOLDER, f"{message.name}.json")
        except FileExistsError:
            kept = None
        else:
            kept = message
        if message.closes:  # or another process did, and was killed before this
            self.store.remove(_FOLDER, _OPEN, marker)
        elif message.thread and kept is not None:
            self._open(message, marker)
        return kept

    def _open(self, message: Message, marker: str) -> None:
        note = {"thread": message.thread, "cause": message.cause, "day": message.day}
        try:
            self.store.create_bytes(to_json(note), _FOLDER, _OPEN, marker)
        except FileExistsError:
            opening = self._opening(message.thread)
            if not opening or message.day > str(opening.get("day", "")):
                self.store.write_json({**note, **(opening or {}), "day": message.day}, _FOLDER, _OPEN, marker)

    def _opening(self, thread: str) -> dict[str, Any] | None:
        """Return what is known of the message that opened a thread, and the last day told there; None: it is closed."""
        try:
            return self.store.read_json(_FOLDER, _OPEN, f"{_name_of(thread)}.json")
        except FileNotFoundError:
            return None
        except DamagedRecord:  # open it is, and the next message mends it
            return {}

    def is_open(self, thread: str) -> bool:
        """Say whether nothing has closed a thread."""
        return self._opening(thread) is not None

    def open_threads(self) -> set[str]:
        """Return the names of the threads that nothing has closed."""
        return {str(note["thread"]) for note in self._notes(_OPEN, "thread").values()}

    def _notes(self, folder: str, field: str) -> dict[str, dict[str, Any]]:
        """Return name to content of the small files in a folder; one that lacks a field is damaged, and passed over."""
        names = {f"{_FOLDER}/{folder}/{name}.json": name for name in self.store.json_names(_FOLDER, folder)}
        found = {}
        for path, data in self.store.read_many(names).items():
            try:
                note = self.store.as_json(data, path)
                if field not in note:
                    raise damaged(self.store.url(path), f"it has no {field!r}")
                found[names[path]] = note
            except DamagedRecord as err:  # the others count all the same
                log.warning("Passed over: %s", err)
        return found

    def mark_sent(self, message: Message) -> None:
        """Note that a message has reached people, or has no way to them."""
        with suppress(FileExistsError):
            self.store.create_bytes(b"{}\n", _FOLDER, _SENT, f"{message.name}.json")

    def mark_refused(self, message: Message, refusal: Refusal, *, for_good: bool) -> None:
        """Note why Slack did not take a message, for the table of alerts; ``for_good``: it is not tried again."""
        self.store.write_json(asdict(refusal), _FOLDER, _REFUSED, f"{message.name}.json")
        if for_good:
            self.mark_sent(message)

    def unmark_refused(self, message: Message) -> None:
        """Forget that Slack did not take a message: now it has."""
        self.store.remove(_FOLDER, _REFUSED, f"{message.name}.json")

    def refused(self) -> dict[str, Refusal]:
        """Return name to why of messages that Slack has refused, what was noted longest ago first."""
        files = sorted(listed(self.store, f"{_FOLDER}/{_REFUSED}"), key=lambda file: file.written)
        notes = self._notes(_REFUSED, "own") if files else {}
        names = (file.name.rsplit("/", 1)[-1].removesuffix(".json") for file in files)
        return {name: Refusal(**notes[name]) for name in names if name in notes}

    def waiting(self) -> list[Message]:
        """Return the messages that are still to be sent, oldest first; of very many the newest."""
        names = set(self.store.json_names(_FOLDER)) - set(self.store.json_names(_FOLDER, _SENT))
        found = self._read(names)
        for message in found[:-_MOST_WAITING]:
            log.warning("Too many alerts wait; this one is not sent, and stays in the store: %s", message.cause)
            self.mark_sent(message)
        return found[-_MOST_WAITING:]

    def messages(self, since: timedelta = _KEPT) -> list[Message]:
        """Return all that was reported within a time, oldest first."""
        files = listed(self.store, _FOLDER)
        names = {f.name.removeprefix(f"{_FOLDER}/") for f in files if utc_now() - f.written <= since}
        return self._read({name.removesuffix(".json") for name in names if "/" not in name})

    def _read(self, names: set[str]) -> list[Message]:
        found, files = [], self.store.read_many(f"{_FOLDER}/{name}.json" for name in names)
        for name, data in files.items():
            try:
                found.append(self.store.as_record(_KIND, Message, self.store.as_json(data, name), name))
            except DamagedRecord as err:  # the others must be sent all the same
                log.warning("Passed over: %s", err)
        return sorted(found, key=lambda message: (message.at, message.cause))

    def thread(self, name: str) -> SlackThread | None:
        """Return how a thread stands in Slack, or None if it is not there."""
        parts = (_FOLDER, _THREADS, f"{_name_of(name)}.json")
        with suppress(FileNotFoundError, DamagedRecord):
            return self.store.as_record(_KIND, SlackThread, self.store.read_json(*parts), *parts)
        return None

    def keep_thread(self, name: str, thread: SlackThread) -> None:
        """Note how a thread stands in Slack; only who has the turn does."""
        self.store.write_json(numbered(_KIND, asdict(thread)), _FOLDER, _THREADS, f"{_name_of(name)}.json")

    def take_turn(self) -> Turn | None:
        """Take the turn to send, so that several processes send nothing twice; None: it is another's, or too early."""
        numbers = sorted(int(name) for name in self.store.json_names(_FOLDER, _TURNS) if name.isdecimal())
        if numbers and not self._is_free(numbers[-1]):
            return None
        turn = Turn(numbers[-1] + 1 if numbers else 1)
        until = (utc_now() + _TURN).isoformat()
        try:
            self.store.create_bytes(to_json({"until": until}), _FOLDER, _TURNS, f"{turn.number}.json")
        except FileExistsError:
            return None
        for number in numbers:
            for name in (f"{number}.json", f"{number}-over.json"):
                self.store.remove(_FOLDER, _TURNS, name)
        return turn

    def _is_free(self, number: int) -> bool:
        for name in (f"{number}-over.json", f"{number}.json"):
            with suppress(FileNotFoundError, DamagedRecord, ValueError):
                until = self.store.read_json(_FOLDER, _TURNS, name).get("until")
                return until is None or utc_now() >= datetime.fromisoformat(str(until))
        return True

    def end_turn(self, turn: Turn, rest: timedelta) -> None:
        """Give the turn back; nobody takes the next before a rest is over."""
        until = (utc_now() + rest).isoformat()
        self.store.write_json({"until": until}, _FOLDER, _TURNS, f"{turn.number}-over.json")

    def prune(self) -> None:
        """Remove what is older than anybody's memory of its cause, but let an open thread find its end."""
        still_open = {f"{name}.json" for name in self.store.json_names(_FOLDER, _OPEN)}
        for file in listed(self.store, _FOLDER):
            folder, name = file.name.split("/")[-2:]
            kept = _KEPT_OPEN if folder in (_OPEN, _THREADS) and name in still_open else _KEPT
            if utc_now() - file.written > kept:
                self.store.remove(file.name)


def _name_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
