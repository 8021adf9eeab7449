"""Slack: sends what waits in the outbox, in order, with what belongs together in one thread.

Whoever has the turn sends all that waits; the others leave it to them. While Slack is away or refuses the token, all
stays, and the next turn begins when Slack said so (``Retry-After``), or half a minute later. What else it refuses is
the trouble of one message or channel: that one is tried in every form and place, the others go on; it is tried again
after them, and given up three days after its first refusal. An error of which nobody knows whether it is the message's
or Slack's own ends the turn and lets others go first; such a message is kept as long as any. Where it is not the
message's own, what waits of its thread waits with it, so that order is kept. A message is marked after Slack's answer:
a kill in between sends it twice, at most. What an answer means is in ``slack_calls``.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from windsock.block_kit import blocks_of, plain, reply_blocks, reply_text
from windsock.days import utc_now
from windsock.outbox import Message, Outbox, Refusal, SlackThread
from windsock.settings import Settings
from windsock.slack_calls import Call, Refused

log = logging.getLogger(__name__)

_LATE = timedelta(minutes=3)
_SAME_THREAD = timedelta(days=7)
"""What goes on for longer without a word begins a new thread, where people see it."""
_LONGEST_TRIED = timedelta(days=3)
"""After its first refusal. What is given up stands in the table of alerts, with why."""


@dataclass
class Delivery:
    """One turn of sending."""

    settings: Settings
    outbox: Outbox
    call: Call
    _done: set[str] = field(default_factory=set, init=False)
    """Names of messages that were dealt with in this turn."""
    _refused: dict[str, Refusal] = field(default_factory=dict, init=False)
    """Name to why of messages that were refused in earlier ones."""
    _dead: dict[str, Refused] = field(default_factory=dict, init=False)
    """Channels that take nothing."""

    def run(self, seconds: float) -> str | None:
        """Send what waits for as long as this, each thread's messages together; return what keeps the rest, or None."""
        if not self.outbox.waiting():
            return None
        if (turn := self.outbox.take_turn()) is None:
            return "another process sends, or Slack is left alone for a while"
        until, problem, rest = time.monotonic() + seconds, None, timedelta()
        try:
            for group in self._groups():
                if time.monotonic() > until:
                    problem = "there was no time for more"
                    break
                try:
                    self._send(group)
                except Refused as err:
                    problem = str(err)
                    if err.ends_turn:
                        log.warning("Slack did not take an alert, which is kept: %s", err)
                        rest = err.rest
                        break
                    if err.of_channel:  # what else goes there costs no call
                        self._done |= {message.name for message in group}
                    elif group[0].name in self._refused:
                        break  # one more try in each turn, by turns
        finally:
            self.outbox.end_turn(turn, rest)
        return problem

    def _groups(self) -> Iterator[list[Message]]:
        """Yield what waits, oldest first: what belongs together, and then what was refused before, one by one."""
        waiting = self.outbox.waiting()  # without what another process has sent meanwhile
        self._refused = self.outbox.refused()
        again = {message.name: message for message in waiting if message.name in self._refused}
        held = {message.thread for message in again.values() if not self._refused[message.name].own} - {""}
        fresh = [message for message in waiting if message.name not in again and message.thread not in held]
        for message in fresh:
            if message.name not in self._done:
                yield _together(message, [m for m in fresh if m.name not in self._done])
        for name, refusal in self._refused.items():
            if (known := again.get(name)) is None or name in self._done:
                continue
            if not refusal.own:
                yield _together(known, [m for m in waiting if m.name not in self._done])
            elif known.thread and known.closes == self.outbox.is_open(known.thread):
                why = "it began again" if known.closes else "it was over"
                self.outbox.mark_refused(known, replace(refusal, why=f"{why} before Slack took it"), for_good=True)
            else:
                yield [known]

    def _send(self, group: list[Message]) -> None:
        """Send what waits of one thread: a head, or replies of what may be said at once, and what closes it."""
        thread = self.outbox.thread(group[0].thread) if group[0].thread else None
        lost = False
        while group:
            if thread is None or thread.closed or _is_old(thread, group[0]):
                head, *group = group
                if head.closes and not lost:  # what it closes was never told
                    self._mark_sent(head)
                    continue
                try:
                    thread = self._begin(head)
                except Refused as err:
                    self._mark_refused([head, *group] if err.of_channel else [head], err)
                    raise
                continue
            number = next((n for n, m in enumerate(group) if m.closes), len(group))
            said, rest = (group[:1], group[1:]) if number == 0 else (group[:number], group[number:])
            try:
                thread, group = self._reply(thread, said), rest
            except Refused as err:
                if err.ends_turn or lost:
                    self._mark_refused(said, err)
                    raise
                # Its head was removed, or its channel is not there any more: another one is begun where people see it.
                log.warning("A thread in Slack cannot be gone on with, and is begun anew: %s", err)
                thread, lost = None, True

    def _begin(self, head: Message) -> SlackThread:
        late = head.age > _LATE
        answer = self._post(head.channel, _late(head) if late else head.text, blocks_of(head, late=late))
        channel, ts = str(answer.get("channel")), str(answer.get("ts"))
        thread = SlackThread(head, channel, ts, (head.name,), head.at, closed=head.closes)
        if head.thread:
            self.outbox.keep_thread(head.thread, thread)
        self._mark_sent(head)
        return thread

    def _reply(self, thread: SlackThread, said: list[Message]) -> SlackThread:
        """Say messages in a thread, and let its head show how often, or that it is over."""
        closing = said[0] if said[0].closes else None
        new = [message for message in said if message.name not in thread.names]
        if new:
            self._post(thread.channel, reply_text(new), reply_blocks(new), thread_ts=thread.ts)
            names = (*thread.names, *(message.name for message in new))
            thread = replace(thread, names=names, last=new[-1].at)
            self.outbox.keep_thread(thread.root.thread, thread)
        count = len(thread.names) - (closing is not None)
        head = thread.root
        try:
            self.call(
                "chat.update",
                channel=thread.channel,
                ts=thread.ts,
                text=plain(head.text) if closing is None else plain(head.text, closing.text),
                blocks=blocks_of(head, count, closing),
            )
        except Refused as err:
            if err.away:  # the head is changed later
                raise
            log.warning("Slack does not let the head of a thread be changed: %s", err)
        if closing is not None:
            thread = replace(thread, closed=True)
            self.outbox.keep_thread(thread.root.thread, thread)
        for message in said:
            self._mark_sent(message)
        return thread

    def _post(self, channel: str, text: str, blocks: list[dict[str, Any]], **thread: str) -> Mapping[str, Any]:
        """Post a message; as text alone if it is refused as it is, elsewhere if its channel does not take it at all."""
        refusals = [] if channel else [Refused("it has no channel", "channel_not_found")]
        about = {"unfurl_links": False, "unfurl_media": False, "text": plain(text), **thread}
        for place in dict.fromkeys((channel, "" if thread else self.settings.slack_channel)):
            if place in self._dead:
                refusals.append(self._dead[place])
                continue
            for form in ({"blocks": blocks}, {}) if place else ():
                try:
                    return self.call("chat.postMessage", channel=place, **about, **form)
                except Refused as err:
                    if err.away:
                        raise
                    log.warning("Slack's channel %s did not take an alert: %s", place, err)
                    refusals.append(err)
                    if err.of_channel:
                        self._dead[place] = err
                    if err.of_channel or err.of_head:
                        break
        # If one channel is not there and the other refuses the message itself, it is the message's own trouble.
        raise next((err for err in refusals if not err.of_channel), refusals[-1])

    def _mark_sent(self, message: Message) -> None:
        if message.name in self._refused:
            self.outbox.unmark_refused(message)
        self.outbox.mark_sent(message)
        self._done.add(message.name)

    def _mark_refused(self, messages: list[Message], err: Refused) -> None:
        """Note what is refused, to be tried again after all others; what has been so for long is given up."""
        if err.away:
            return
        for message in messages:
            before, now = self._refused.get(message.name), utc_now()
            since = before.since if before is not None else now.isoformat()
            given_up = now - datetime.fromisoformat(since) > _LONGEST_TRIED and not err.ends_turn
            if given_up:
                log.error("Slack has not taken an alert in three days, which is given up: %s: %s", message.cause, err)
            if given_up or before is None or not err.of_channel:
                refusal = Refusal(str(err), since, own=not (err.ends_turn or err.of_channel))
                self.outbox.mark_refused(message, refusal, for_good=given_up)
            self._done.add(message.name)


def _together(first: Message, waiting: list[Message]) -> list[Message]:
    """Return what is sent with a message: what waits of its thread, up to what closes that."""
    if not first.thread:
        return [first]
    group = [message for message in waiting if message.thread == first.thread]
    end = next((number for number, message in enumerate(group, 1) if message.closes), len(group))
    return group[:end]


def _late(message: Message) -> str:
    at = datetime.fromisoformat(message.at)
    return f"{message.text}\n_Of {at:%Y-%m-%d %H:%M} UTC: it could not be sent before._"


def _is_old(thread: SlackThread, message: Message) -> bool:
    since = datetime.fromisoformat(message.at) - datetime.fromisoformat(thread.last or thread.root.at)
    return since > _SAME_THREAD and not message.closes
