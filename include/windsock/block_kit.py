"""A message as Slack's Block Kit shows it: what, of what, the sentence, figures, links; short lines, for a phone.

Nothing of the text is trusted: control characters of mrkdwn are escaped, and every length that Slack limits is kept,
as it refuses a whole message for one field that is too long.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from windsock.errors import listed
from windsock.outbox import Message

Block = dict[str, Any]

MOST_BLOCKS, HEADER, SECTION, FIELD, MOST_FIELDS = 50, 150, 3000, 2000, 10
"""Slack's limits: blocks of a message, and characters of a text as it is sent."""
TEXT = 3900
"""Bytes of a text beside blocks, or without any: Slack takes 4,000 characters of a message that is changed."""
_SIGNS = {"error": "🔴", "warning": "🟡", "info": "🔵"}
_OVER = "✅"
_LINES = 10
_LINE = 140
_CUT = " … (shortened)"
_BROKEN = re.compile(r"(?:<[^>]*|&\w{0,3})\Z")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def mrkdwn(text: str, most: int = SECTION) -> str:
    """Escape a text for mrkdwn, and cut it so that what is sent is no longer than this, never within an escape."""
    whole = [_ESCAPES.get(character, character) for character in text.strip()]
    if sum(map(len, whole)) <= most:
        return "".join(whole)
    kept, room = [], most - len(_CUT)
    for each in whole:
        if (room := room - len(each)) < 0:
            break
        kept.append(each)
    return "".join(kept).rstrip() + _CUT


def plain(*texts: str) -> str:
    """Join texts, each cut so that they are no longer than :data:`TEXT`, and never within a link or an escape."""
    room = TEXT // len(texts) - len(_CUT.encode())
    kept = [text if len(text.encode()) <= room else text.encode()[:room].decode(errors="ignore") for text in texts]
    return "\n".join(k if k == t else _BROKEN.sub("", k).rstrip() + _CUT for k, t in zip(kept, texts, strict=True))


def link(words: str, url: str) -> str:
    """Write a link; what would end it within its address is quoted."""
    for character, quoted in ((" ", "%20"), ("<", "%3C"), (">", "%3E"), ("|", "%7C"), ("&", "&amp;")):
        url = url.replace(character, quoted)
    return f"<{url}|{mrkdwn(words, FIELD)}>"


def blocks_of(message: Message, count: int = 1, over: Message | None = None, late: bool = False) -> list[Block]:
    """Return the blocks of a message at the head of a thread.

    Args:
        message: What is told.
        count: How often it has been told.
        over: The message that closed the thread.
        late: Whether it could not be sent when it was reported.
    """
    sign = _SIGNS[message.severity] if over is None and not message.closes else _OVER
    times = f" ({count}×)" if count > 1 else ""
    headline = f"{sign} {message.headline}{times}" + (": over" if over is not None else "")
    found: list[Block] = [{"type": "header", "text": {"type": "plain_text", "text": headline[:HEADER], "emoji": True}}]
    if message.sentence:
        found.append(_section(mrkdwn(message.sentence)))
    facts = message.facts[:MOST_FIELDS]
    if facts:
        fields = [_text(f"*{mrkdwn(name, 100)}*\n{mrkdwn(value, FIELD - 110)}") for name, value in facts]
        found.append({"type": "section", "fields": fields})
    if over is not None:
        found.append(_section(f"{_OVER} {mrkdwn(over.sentence, SECTION - 2)}"))
    links = ""
    for words, url in message.links:
        longer = "  ·  ".join(filter(None, (links, link(words, url))))
        links = longer if len(longer) <= SECTION else links
    if links:
        found.append(_section(links))
    found.append({"type": "context", "elements": [_text(_about(message, late))]})
    return found


def reply_blocks(messages: Sequence[Message]) -> list[Block]:
    """Return the blocks of a reply that says several messages of one thread at once."""
    if len(messages) == 1:
        return blocks_of(messages[0])
    lines = [f"*{len(messages)} more of the same*", *_list(messages)]
    return [_section("\n".join(lines))]


def reply_text(messages: Sequence[Message]) -> str:
    """Return the plain text of such a reply."""
    if len(messages) == 1:
        return messages[0].text
    return "\n".join([f"*{len(messages)} more of the same*", *_list(messages)])


def _list(messages: Sequence[Message]) -> Iterable[str]:
    """Yield a line for each sentence, with where it was said."""
    places: dict[str, list[str]] = {}
    for each in messages:
        where = " ".join(filter(None, (each.dag_id, each.task_id, each.day)))
        places.setdefault(each.sentence, []).append(where)
    for sentence, said in [*places.items()][:_LINES]:
        times = f"{len(said)}× " if len(said) > 1 else ""
        yield f"• {times}{mrkdwn(sentence, _LINE)} ({mrkdwn(listed(said, 3), _LINE)})"
    if len(places) > _LINES:
        rest = sum(map(len, [*places.values()][_LINES:]))
        yield f"… and {rest} more: `windsock alerts` lists all"


def _about(message: Message, late: bool) -> str:
    named = {"DAG": message.dag_id, "task": message.task_id, "day": message.day, "owner": message.owner}
    parts = [mrkdwn(f"{name} {value}", 300) for name, value in named.items() if value]
    at = datetime.fromisoformat(message.at)
    parts.append(f"{at:%Y-%m-%d %H:%M} UTC" + (", could not be sent before" if late else ""))
    return "  ·  ".join(parts)


def _text(text: str) -> dict[str, Any]:
    # Verbatim: what looks like a channel, a person or an address in a text stays text.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _section(text: str) -> Block:
    return {"type": "section", "text": _text(text)}
