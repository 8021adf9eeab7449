"""Alerts of tasks that failed: what they say, and sending them, to the log always, to Slack if it is configured.

No failure of either reaches the caller. Text comes from exceptions and data, so nothing of it is trusted: secrets are
struck out, Slack's control characters are escaped, and length is bounded.
"""

import logging
import queue
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from windsock.redact import redact, redact_line
from windsock.settings import Settings
from windsock.spec import ModelSpec

log = logging.getLogger(__name__)
# At debug level Slack's client logs whole requests.
_quiet = logging.getLogger(f"{__name__}.slack")
_quiet.setLevel(logging.CRITICAL)

_LIMIT_S = 4.5
"""Longest that Slack may hold up the caller."""
_CALL_S = 3
"""Longest that one call to Slack may take."""
_PATIENCE_S = 1
"""Longest ``Retry-After`` that is waited for; slack_sdk adds up to a second to it."""
MAX_SENTENCE = 1500
_HEADLINE = "Task failed"


@dataclass(frozen=True)
class FailedTask:
    """A task that failed for good: where, the text of its error, and the ``url`` of the run in the Airflow UI."""

    dag_id: str
    sentence: str
    task_id: str | None = None
    day: str | None = None
    """Partition key; None: the run is not for a day."""
    url: str | None = None

    def where(self) -> str:
        """Say which task of which DAG and day this is about, in one line."""
        parts = {"DAG": self.dag_id, "task": self.task_id, "day": self.day}
        return ", ".join(f"{kind} {name}" for kind, name in parts.items() if name)

    def as_line(self, secrets: Iterable[str] = ()) -> str:
        """Write the alert as one line for the log."""
        link = f" ({self.url})" if self.url else ""
        text = f"{_HEADLINE}: {self.where()}: {_shortened(self.sentence)}{link}"
        return redact(" ".join(text.split()), secrets)

    def as_slack(self, secrets: Iterable[str] = ()) -> str:
        """Write the alert as Slack text: DAG, task, day, sentence, link."""
        secrets = tuple(secrets)
        lines = [f"*{_HEADLINE}*: {_escaped(self.where())}", _escaped(_shortened(redact(self.sentence, secrets)))]
        if self.url:
            # Within <url|text> these would end the link; everything else Slack takes as it is.
            url = self.url.replace("<", "%3C").replace(">", "%3E").replace("|", "%7C").replace("&", "&amp;")
            lines.append(f"<{url}|Open the run in Airflow>")
        return redact("\n".join(lines), secrets)


def send(settings: Settings, failed: FailedTask, spec: ModelSpec | None = None) -> bool:
    """Report a failure: always as one line in the log, and to Slack if that is configured (a model's channel first).

    Takes at most five seconds, whatever Slack or the network do, and never raises. Says whether Slack took the message.
    """
    try:
        secrets = [settings.slack_token]
        log.error("%s", failed.as_line(secrets))
        if not settings.slack_token.strip():
            return False
        channel = (spec.alerts.slack_channel if spec is not None else None) or settings.slack_channel
        if not channel:
            log.warning("Slack has a token but no channel: set WINDSOCK_SLACK_CHANNEL or alerts.slack_channel")
            return False
        problem = _post_to_slack(settings, channel, failed.as_slack(secrets))
        if problem is not None:
            log.warning("Slack did not get this alert: %s", problem)
        return problem is None
    except Exception as err:
        # Only the type: its text may hold anything, and this is the last line of defence.
        log.error("An alert could not be sent: %s", type(err).__name__)
        return False


def _post_to_slack(settings: Settings, channel: str, text: str) -> str | None:
    """Post a message; return None if Slack took it, else what went wrong in words, without the token.

    One call, and one repeat where slack_sdk's retry handlers see a point in it, in a thread that is left behind when
    time is up: neither a resolver that hangs nor a server that drips bytes can be interrupted from within.
    """
    # It takes a while to load, and few installations have a token.
    from slack_sdk import WebClient
    from slack_sdk.http_retry import ConnectionErrorRetryHandler, HttpResponse, RateLimitErrorRetryHandler

    class ShortRateLimit(RateLimitErrorRetryHandler):
        """Waits for a rate limit only if it ends within the time that there is."""

        def _can_retry(self, *, response: HttpResponse | None = None, **asked: Any) -> bool:
            headers = {name.lower(): values for name, values in response.headers.items()} if response else {}
            waits = headers.get("retry-after", ["inf"])
            return super()._can_retry(response=response, **asked) and float(waits[0]) <= _PATIENCE_S

    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def post() -> None:
        try:
            client = WebClient(
                settings.slack_token.strip(),
                base_url=settings.slack_api_url.rstrip("/") + "/",
                timeout=_CALL_S,
                logger=_quiet,
                retry_handlers=[ConnectionErrorRetryHandler(), ShortRateLimit()],
            )
            client.chat_postMessage(channel=channel, text=text, unfurl_links=False, unfurl_media=False)
            answers.put(None)
        except BaseException as err:  # whatever happens here must not reach the run
            answers.put(redact_line(f"{type(err).__name__}: {err}", [settings.slack_token]))

    # A daemon, so that a process that ends does not wait for it.
    threading.Thread(target=post, name="slack-post", daemon=True).start()
    try:
        return answers.get(timeout=_LIMIT_S)
    except queue.Empty:
        return "no answer in time"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 14].rstrip() + " ... (shortened)"
