"""Posting to Slack in bounded time: one call, and one repeat where slack_sdk's retry handlers see a point in it.

Everything happens in a thread that is left behind when time is up, because neither a resolver that hangs nor a server
that drips bytes can be interrupted from within.
"""

import logging
import queue
import threading
from typing import Any

from slack_sdk import WebClient
from slack_sdk.http_retry import ConnectionErrorRetryHandler, HttpResponse, RateLimitErrorRetryHandler

from windsock.redact import redact_line
from windsock.settings import Settings

LIMIT_S = 4.5
"""Longest that a post may hold up its caller."""
TIMEOUT_S = 3
"""Of one call to Slack."""
PATIENCE_S = 1
"""Longest ``Retry-After`` that is waited for; slack_sdk adds up to a second to it."""

# At debug level the client logs whole requests.
_quiet = logging.getLogger(f"{__name__}.client")
_quiet.setLevel(logging.CRITICAL)


class _ShortRateLimit(RateLimitErrorRetryHandler):
    """Waits for a rate limit only if it ends within the time that there is."""

    def _can_retry(self, *, response: HttpResponse | None = None, **asked: Any) -> bool:
        headers = {name.lower(): values for name, values in response.headers.items()} if response is not None else {}
        waits = headers.get("retry-after", ["inf"])
        return super()._can_retry(response=response, **asked) and float(waits[0]) <= PATIENCE_S


def post(settings: Settings, channel: str, text: str) -> str | None:
    """Post a message; return None if Slack took it, else what went wrong in words, without the token."""
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def attempt() -> None:
        try:
            client = WebClient(
                settings.slack_token.strip(),
                base_url=settings.slack_api_url.rstrip("/") + "/",
                timeout=TIMEOUT_S,
                logger=_quiet,
                retry_handlers=[ConnectionErrorRetryHandler(), _ShortRateLimit()],
            )
            client.chat_postMessage(channel=channel, text=text, unfurl_links=False, unfurl_media=False)
            answers.put(None)
        except BaseException as err:  # whatever happens here must not reach the run
            answers.put(redact_line(f"{type(err).__name__}: {err}", [settings.slack_token]))

    # A daemon, so that a process that ends does not wait for it.
    threading.Thread(target=attempt, name="slack-post", daemon=True).start()
    try:
        return answers.get(timeout=LIMIT_S)
    except queue.Empty:
        return "no answer in time"
