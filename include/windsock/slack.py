"""Slack: sends what waits in the outbox, in order, with what belongs together in one thread.

Whoever has the turn sends all that waits; the others leave it to them. What Slack does not take stays, and the next
turn begins when Slack said so (``Retry-After``), or half a minute later. A message is marked after Slack's answer: a
kill in between sends it twice, at most.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from windsock.block_kit import blocks_of, reply_blocks, reply_text
from windsock.outbox import Message, Outbox, SlackThread
from windsock.redact import redact_line
from windsock.settings import Settings

log = logging.getLogger(__name__)
# At debug level Slack's client logs whole requests.
_quiet = logging.getLogger(f"{__name__}.client")
_quiet.setLevel(logging.CRITICAL)

_CALL_S = 3
"""Longest that one call to Slack may take."""
_PATIENCE_S = 1
"""Longest ``Retry-After`` that is waited for; slack_sdk adds up to a second to it."""
_REST = timedelta(seconds=30)
"""After a refusal, before anybody asks Slack again."""
_LONGEST_REST = timedelta(hours=1)
_LATE = timedelta(minutes=3)
_SAME_THREAD = timedelta(days=7)
"""What goes on for longer without a word begins a new thread, where people see it."""
_OF_CHANNEL = frozenset({"channel_not_found", "not_in_channel", "is_archived", "restricted_action"})
"""Errors that another channel would not have."""
_OF_BLOCKS = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long"})
_OF_HEAD = frozenset({"message_not_found", "thread_not_found", "cant_update_message", "edit_window_closed"})
"""Errors of a head that somebody removed, or that must stay as it is."""


class Refused(Exception):
    """Slack did not take something."""

    def __init__(self, why: str, error: str = "", rest: timedelta = _REST) -> None:
        super().__init__(why)
        self.error, self.rest = error, rest


Call = Callable[..., Mapping[str, Any]]
"""Calls a method of Slack's with its arguments, and returns the answer; raises Refused."""


def caller(settings: Settings) -> Call:
    """Return what calls Slack. One call, and one repeat for a short rate limit."""
    # It takes a while to load, and few installations have a token.
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError
    from slack_sdk.http_retry import HttpResponse, RateLimitErrorRetryHandler

    class ShortRateLimit(RateLimitErrorRetryHandler):
        """Waits for a rate limit only if it ends within the time that there is."""

        def _can_retry(self, *, response: HttpResponse | None = None, **asked: Any) -> bool:
            headers = {name.lower(): values for name, values in response.headers.items()} if response else {}
            waits = headers.get("retry-after", ["inf"])
            return super()._can_retry(response=response, **asked) and float(waits[0]) <= _PATIENCE_S

    def call(method: str, **arguments: Any) -> Mapping[str, Any]:
        try:
            client = WebClient(
                settings.slack_token,
                base_url=settings.slack_api_url.rstrip("/") + "/",
                timeout=_CALL_S,
                logger=_quiet,
                retry_handlers=[ShortRateLimit()],
            )
            answer = client.api_call(method, json=arguments)
            return {name: answer.get(name) for name in ("ts", "channel")}
        except SlackApiError as err:
            answer = err.response
            error = str(answer.get("error", "")) if isinstance(answer.data, dict) else ""
            why = redact_line(f"{type(err).__name__}: {err}", [settings.slack_token])
            raise Refused(why, error, _rest_of(answer.headers)) from None
        except Exception as err:
            raise Refused(redact_line(f"{type(err).__name__}: {err}", [settings.slack_token])) from None

    return call


def _rest_of(headers: Mapping[str, Any]) -> timedelta:
    """Return how long Slack wants to be left alone."""
    found = {name.lower(): value for name, value in headers.items()}.get("retry-after")
    text = str(found[0] if isinstance(found, list) else found)
    return min(timedelta(seconds=int(text)), _LONGEST_REST) if text.isdecimal() else _REST


@dataclass
class Delivery:
    """One turn of sending."""

    settings: Settings
    outbox: Outbox
    call: Call

    def run(self, seconds: float) -> str | None:
        """Send what waits for as long as this, each thread's messages together; return what keeps the rest, or None."""
        if not self.outbox.waiting():
            return None
        if (turn := self.outbox.take_turn()) is None:
            return "another process sends, or Slack is left alone for a while"
        until, problem, rest, done = time.monotonic() + seconds, None, timedelta(), set[str]()
        try:
            waiting = self.outbox.waiting()  # without what another process has sent meanwhile
            for message in waiting:
                if message.name in done:
                    continue
                if time.monotonic() > until:
                    problem = "there was no time for more"
                    break
                group = _together(message, [m for m in waiting if m.name not in done])
                try:
                    self._send(group)
                except Refused as err:
                    log.warning("Slack did not take an alert, which is kept: %s", err)
                    problem = str(err)
                    if err.error not in _OF_CHANNEL:
                        rest = err.rest
                        break
                done |= {m.name for m in group}  # one channel that is not there holds up no other
        finally:
            self.outbox.end_turn(turn, rest)
        return problem

    def _send(self, group: list[Message]) -> None:
        """Send what waits of one thread: a head, or replies of what may be said at once, and what closes it."""
        thread = self.outbox.thread(group[0].thread) if group[0].thread else None
        while group:
            if thread is None or thread.closed or _is_old(thread, group[0]):
                head, *group = group
                if head.closes:  # what it closes was never told
                    self.outbox.mark_sent(head)
                    continue
                thread = self._begin(head)
                continue
            number = next((n for n, m in enumerate(group) if m.closes), len(group))
            said, rest = (group[:1], group[1:]) if number == 0 else (group[:number], group[number:])
            try:
                thread, group = self._reply(thread, said), rest
            except Refused as err:
                if err.error not in _OF_HEAD:
                    raise
                thread = None  # somebody removed it: another one is begun

    def _begin(self, head: Message) -> SlackThread:
        late = head.age > _LATE
        answer = self._post(head.channel, _late(head) if late else head.text, blocks_of(head, late=late))
        thread = SlackThread(head, str(answer.get("channel")), str(answer.get("ts")), (head.name,), head.at)
        if head.thread:
            self.outbox.keep_thread(head.thread, thread)
        self.outbox.mark_sent(head)
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
                text=head.text if closing is None else f"{head.text}\n{closing.text}",
                blocks=blocks_of(head, count, closing),
            )
        except Refused as err:
            if err.error not in _OF_HEAD | _OF_CHANNEL | _OF_BLOCKS:  # away, slow, busy: the head is changed later
                raise
            log.warning("Slack does not let the head of a thread be changed: %s", err)
        if closing is not None:
            thread = replace(thread, closed=True)
            self.outbox.keep_thread(thread.root.thread, thread)
        for message in said:
            self.outbox.mark_sent(message)
        return thread

    def _post(self, channel: str, text: str, blocks: list[dict[str, Any]], **more: Any) -> Mapping[str, Any]:
        """Post a message; as text alone if Slack does not like its blocks, elsewhere if its channel is not there."""
        about = {"unfurl_links": False, "unfurl_media": False, **more}
        try:
            return self.call("chat.postMessage", channel=channel, text=text, blocks=blocks, **about)
        except Refused as err:
            usual = self.settings.slack_channel
            if err.error in _OF_CHANNEL and not more and usual not in ("", channel):
                log.warning("Slack's channel %s: %s. %s is told instead.", channel, err.error, usual)
                return self._post(usual, text, blocks)
            if err.error in _OF_BLOCKS:
                log.warning("Slack refused the form of an alert (%s); its text is sent alone", err.error)
                return self.call("chat.postMessage", channel=channel, text=text, **about)
            raise


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
