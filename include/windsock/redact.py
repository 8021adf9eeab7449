"""Keeping secrets out of what is logged, shown or sent.

Texts of exceptions quote URLs, headers and connection strings, so none of them is trusted.
"""

import re
from collections.abc import Iterable

_SLACK_TOKEN = re.compile(r"\bx(?:ox[a-z]|app)-[A-Za-z0-9-]+")
# A text may be long and hostile: no expression looks at a part of it again and again.
_UP_TO_LAST_AT = re.compile(r"(?<!\S)\S+@")
_USERINFO = re.compile(
    r"://(?:[^/?#\s]*"  # up to the last @ of the host part ...
    r"|[^/\s:@]*:[^\s@]+)@"  # ... and beyond it for a password with a slash that was not quoted
)
_EXAMPLE = ", e.g. "
_QUERY = re.compile(r"(?P<url>://[^\s?#]*)(?P<query>\?[^\s#]+)?")


def redact(text: object, secrets: Iterable[str] = ()) -> str:
    """Return a text without the given secrets, Slack tokens, and users, passwords and queries of URLs."""
    shown = str(text)
    for secret in secrets:
        for form in filter(None, (secret, secret.strip())):
            shown = shown.replace(form, "***")
    shown = _SLACK_TOKEN.sub("***", shown)
    shown = _UP_TO_LAST_AT.sub(lambda found: _USERINFO.sub("://***@", found[0]), shown)
    return _QUERY.sub(lambda found: found["url"] + ("?***" if found["query"] else ""), shown)


def without_example(sentence: str) -> str:
    """Return a sentence without the value of a row that it shows, and without what follows: its end is unknown."""
    before, shown, _ = sentence.partition(_EXAMPLE)
    return f"{before}." if shown else before


def redact_line(text: object, secrets: Iterable[str] = ()) -> str:
    """Return a text on one line, without secrets and no longer than 300 characters."""
    line = " ".join(redact(text, secrets).split())
    return line if len(line) <= 300 else line[:299] + "…"
