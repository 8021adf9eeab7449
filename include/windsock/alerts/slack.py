"""Posting to Slack in bounded time: one call, at most one repeat if Slack asks for patience.

Everything happens in a thread that is left behind when time is up, because neither a
resolver that hangs nor a server that drips bytes can be interrupted from within.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from windsock.alerts.message import scrubbed
from windsock.settings import Settings

log = logging.getLogger(__name__)

LIMIT_S = 4.5
"""Longest that a post may hold up its caller."""
TIMEOUT_S = 3
"""Of one call to Slack."""
PATIENCE_S = 1.2
"""Longest ``Retry-After`` that is waited for."""


@dataclass
class _Outcome:
    problem: str | None = "no answer in time"
    done: threading.Event = field(default_factory=threading.Event)


def post(settings: Settings, channel: str, text: str) -> str | None:
    """Post a message.

    Args:
        settings: With Slack's address and token.
        channel: Channel name or id.
        text: Slack markup.

    Returns:
        None if Slack took it, else what went wrong in words, without the token.
    """
    outcome = _Outcome()
    # A daemon, so that a process that ends does not wait for it.
    threading.Thread(target=_try, args=(settings, channel, text, outcome), name="slack-post", daemon=True).start()
    outcome.done.wait(LIMIT_S)
    return outcome.problem


def _try(settings: Settings, channel: str, text: str, outcome: _Outcome) -> None:
    try:
        problem = _post(settings, channel, text)
    except BaseException as err:  # whatever happens here must not reach the run
        problem = f"{type(err).__name__}: {err}"
    outcome.problem = None if problem is None else scrubbed(problem, [settings.slack_token])
    outcome.done.set()


def _post(settings: Settings, channel: str, text: str) -> str | None:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError

    quiet = logging.getLogger(f"{__name__}.client")
    quiet.setLevel(logging.CRITICAL)  # at debug level the client logs whole requests
    base_url = settings.slack_api_url.rstrip("/") + "/"
    client = WebClient(
        settings.slack_token.strip(), base_url=base_url, timeout=TIMEOUT_S, logger=quiet, retry_handlers=[]
    )
    for last in (False, True):
        try:
            client.chat_postMessage(channel=channel, text=text, unfurl_links=False, unfurl_media=False)
            return None
        except SlackApiError as err:
            wait = _retry_after(err)
            if last or wait is None or wait > PATIENCE_S:
                return f"Slack refused it: {_error(err)}"
            time.sleep(wait)
    return None


def _retry_after(err: Exception) -> float | None:
    response = getattr(err, "response", None)
    if getattr(response, "status_code", None) != 429:
        return None
    headers = {str(k).lower(): v for k, v in dict(getattr(response, "headers", {}) or {}).items()}
    try:
        return float(headers.get("retry-after", "inf"))
    except (TypeError, ValueError):
        return None


def _error(err: Exception) -> str:
    response = getattr(err, "response", None)
    status = getattr(response, "status_code", "?")
    try:
        return f"{response['error']} (HTTP {status})" if response is not None else str(err)
    except (KeyError, TypeError, ValueError):
        return f"HTTP {status}"
