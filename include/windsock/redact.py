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
_USERINFO_OF_A_LINK = re.compile(r"://[^/?#\s]*@")
_EXAMPLE = ", e.g. "
_OPENING = re.compile(r"""["`“‘«]|(?:(?<!\w)|(?<=\b[bru]))'""", re.I)
_CLOSING = re.compile(r"""["`”»]|['’](?!\w)""")
_AFTER_COLON = re.compile(r"(?<!Error):\s.*")
_FIGURE = re.compile(r"\S+@\S+|\b(?:\d[\w.:/+-]*|\w*\d{3}\w*)")
_QUERY = re.compile(r"(?P<url>://[^\s?#]*)(?P<query>\?[^\s#]+)?")
_SETTING = re.compile(r"""(?<![\w.-])([\w.-]++)(?:=|["']:\s?)""")
"""The name of a setting, as connection strings, headers, environments and dictionaries show it before its value."""
_SECRET = re.compile(
    r"(?:passw(?:or)?d|pwd|(?:api|account|access|secret)[_-]?key|secret|token|signature|(?<![^\W_])sig)$", re.I
)
_VALUE = re.compile(r""""(?:[^"\\]|\\.|"")*"|'(?:[^'\\]|\\.|'')*'|[^\s;]+""", re.DOTALL)
_LOGIN = re.compile(
    r"""\b(authorization["']?[:=]\s?["']?(?:bearer|basic|token)\s"""
    # Elsewhere both begin sentences, too.
    r"|(?:bearer|basic)\s(?=[\w.~+/=-]{8})(?=[\w.~+/-]{0,200}[\d=])(?=[\w.~+/-]{0,200}(?-i:[A-Z])))"
    r"""[^\s"',;]+""",
    re.I,
)


def redact(text: object, secrets: Iterable[str] = ()) -> str:
    """Return a text without the given secrets, Slack tokens, secret settings, and users and queries of URLs."""
    return _without_settings(_QUERY.sub(_without_query, _without_users(text, secrets)))


def redact_link(url: str, secrets: Iterable[str] = ()) -> str:
    """Return an address that still leads where it led: without users and secrets, but with the rest of its query."""
    return _without_settings(_without_users(url, secrets, _USERINFO_OF_A_LINK))


def _without_users(text: object, secrets: Iterable[str], userinfo: re.Pattern[str] = _USERINFO) -> str:
    shown = str(text)
    for secret in secrets:
        for form in filter(None, (secret, secret.strip())):
            shown = shown.replace(form, "***")
    shown = _SLACK_TOKEN.sub("***", shown)
    return _UP_TO_LAST_AT.sub(lambda found: userinfo.sub("://***@", found[0]), shown)


def _without_query(found: re.Match[str]) -> str:
    return found["url"] + ("?***" if found["query"] else "")


def _without_settings(text: str) -> str:
    text = _LOGIN.sub(r"\1***", text)
    shown, end = list[str](), 0
    for found in _SETTING.finditer(text):
        if found.start() >= end and _SECRET.search(found[1]) and (value := _VALUE.match(text, found.end())):
            shown += [text[end : found.end()], "***"]
            end = value.end()
    return "".join([*shown, text[end:]])


def without_example(sentence: str) -> str:
    """Return a sentence without the value of a row that it shows, and without what follows: its end is unknown."""
    before, shown, _ = sentence.partition(_EXAMPLE)
    return f"{before}." if shown else before


def without_data(text: str) -> str:
    """Return the first line of a foreign error's text without what may be a value of a row.

    That is what is quoted, from the first quotation mark to the last, as a value may hold some; what follows a colon;
    numbers, names with a number in them and addresses of mail.
    """
    line = (text.strip().splitlines() or [""])[0][:500]
    if opening := _OPENING.search(line):
        ends = [found.end() for found in _CLOSING.finditer(line, opening.end())]
        line = f"{line[: opening.start()]}'…'{line[ends[-1] :] if ends else ''}"
    return _FIGURE.sub("…", _AFTER_COLON.sub(": …", line))


def redact_line(text: object, secrets: Iterable[str] = ()) -> str:
    """Return a text on one line, without secrets and no longer than 300 characters."""
    line = " ".join(redact(text, secrets).split())
    return line if len(line) <= 300 else line[:299] + "…"
