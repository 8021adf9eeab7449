"""Names of requests: champion, ``@`` and onset of the episode, from the second on ``#`` and a number."""

from collections.abc import Iterable
from datetime import date


def episode_of(key: str) -> str:
    """Return what the requests of one episode have in common; a request for new labels is alone."""
    return key.partition("#")[0] if onset_of(key) != date.max else key


def onset_of(key: str) -> date:
    """Return the onset that a dedupe key names; a key that names none is of no episode."""
    try:
        return date.fromisoformat(key.partition("@")[2].partition("#")[0])
    except ValueError:
        return date.max


def attempt_of(key: str) -> int:
    """Return which request of its episode a dedupe key is of, from 1."""
    number = key.partition("#")[2]
    return int(number) if number.isdecimal() else 1


def numbered(key: str, asked: Iterable[str]) -> str:
    """Return a name for a further request of an episode: the key, and from the second on its number."""
    number = 1 + max(map(attempt_of, asked), default=0)
    return f"{key}#{number}" if number > 1 else key
