"""Alerts: what they say, and sending them, to the log always, to Slack if it is configured, once for each cause.

What Slack does not take waits in the ``outbox`` until :func:`send_waiting` is called, by the scheduler.

No failure of either reaches the caller. Text comes from exceptions and data, so nothing of it is trusted: secrets are
struck out, Slack's control characters are escaped, and length is bounded.
"""

import logging
import queue
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from windsock.days import utc_now
from windsock.outbox import HANDS_OFF, Message, Outbox
from windsock.redact import redact, redact_line
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store

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
_KNOWN = "reported before"


@dataclass(frozen=True)
class Alert:
    """A trouble that a person should hear of: where, a sentence, and the ``url`` of the run in the Airflow UI."""

    dag_id: str | None
    sentence: str
    task_id: str | None = None
    day: str | None = None
    """Partition key; None: the run is not for a day."""
    url: str | None = None
    headline: str = "Task failed"
    cause: str = ""
    """Names the trouble, however often and by whomever it is seen; empty: it is one of its own."""

    def where(self) -> str:
        """Say which task of which DAG and day this is about, in one line."""
        parts = {"DAG": self.dag_id, "task": self.task_id, "day": self.day}
        return ", ".join(f"{kind} {name}" for kind, name in parts.items() if name)

    def _title(self) -> str:
        return ": ".join(filter(None, (self.headline, self.where())))

    def as_line(self, secrets: Iterable[str] = ()) -> str:
        """Write the alert as one line for the log."""
        link = f" ({self.url})" if self.url else ""
        text = f"{self._title()}: {_shortened(self.sentence)}{link}"
        return redact(" ".join(text.split()), secrets)

    def as_slack(self, secrets: Iterable[str] = ()) -> str:
        """Write the alert as Slack text: DAG, task, day, sentence, link."""
        secrets = tuple(secrets)
        where = _escaped(self._title()).removeprefix(self.headline)
        lines = [f"*{self.headline}*{where}", _escaped(_shortened(redact(self.sentence, secrets)))]
        if self.url:
            # Within <url|text> these would end the link; everything else Slack takes as it is.
            url = self.url.replace("<", "%3C").replace(">", "%3E").replace("|", "%7C").replace("&", "&amp;")
            lines.append(f"<{url}|Open the run in Airflow>")
        return redact("\n".join(lines), secrets)


def send(settings: Settings, alert: Alert, spec: ModelSpec | None = None) -> bool:
    """Report a trouble that was not reported yet: as one line in the log, and to Slack (a model's channel first).

    Takes at most five seconds, whatever store, Slack or network do, and never raises. Says whether Slack took the
    message now; what it did not take is kept and sent later.
    """
    try:
        secrets = [settings.slack_token]
        line, text = alert.as_line(secrets), alert.as_slack(secrets)
        channel = (spec.alerts.slack_channel if spec is not None else None) or settings.slack_channel
        message = Message(alert.cause or uuid.uuid4().hex, utc_now().isoformat(), channel, text)
        outcome = _within_limit(lambda: _deliver(settings, message))
        if outcome == _KNOWN:
            log.info("Reported before: %s", line)
            return False
        log.error("%s", line)
        if outcome is not None:
            log.warning("Slack did not get this alert: %s", outcome)
        return outcome is None and bool(settings.slack_token.strip())
    except Exception as err:
        # Only the type: its text may hold anything, and this is the last line of defence.
        log.error("An alert could not be sent: %s", type(err).__name__)
        return False


def send_waiting(settings: Settings) -> None:
    """Send what Slack did not take before, in order, and forget what is old; raises what the store raises."""
    outbox = Outbox(Store.of(settings))
    if settings.slack_token.strip():
        outbox.send_waiting(lambda message: _within_limit(lambda: _post(settings, message, _late(message))))


def _late(message: Message) -> str:
    at = datetime.fromisoformat(message.at)
    return f"{message.text}\n_Of {at:%Y-%m-%d %H:%M} UTC: it could not be sent before._"


def _deliver(settings: Settings, message: Message) -> str | None:
    """Put a message into the outbox and send it unless older ones wait; return None, ``_KNOWN`` or the problem."""
    outbox, kept = Outbox(Store.of(settings)), True
    try:
        if not outbox.put(message):
            return _KNOWN
    except Exception as err:  # told now rather than never
        log.warning("The outbox did not take this alert: %s: %s", type(err).__name__, redact_line(err))
        kept = False
    if not settings.slack_token.strip() or not message.channel:
        if kept:
            outbox.mark_sent(message)
        if settings.slack_token.strip():
            return "a token but no channel is set: set WINDSOCK_SLACK_CHANNEL or alerts.slack_channel"
        return None
    if kept and any(other.age > HANDS_OFF for other in outbox.waiting()):
        return "earlier alerts wait, and this one with them"
    problem = _post(settings, message, message.text)
    if not kept:
        return problem
    if problem is None:
        outbox.mark_sent(message)
        return None
    return f"{problem}. It is kept, and sent later"


def _within_limit(work: Callable[[], str | None]) -> str | None:
    """Return what some work returns, or says of its failure, but wait no longer than the limit.

    It goes on in a thread that is left behind when time is up: neither a resolver that hangs nor a server that drips
    bytes can be interrupted from within.
    """
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(work())
        except BaseException as err:  # whatever happens here must not reach the run
            answers.put(f"{type(err).__name__}: {redact_line(err)}")

    # A daemon, so that a process that ends does not wait for it.
    threading.Thread(target=run, name="windsock-alert", daemon=True).start()
    try:
        return answers.get(timeout=_LIMIT_S)
    except queue.Empty:
        return "no answer in time"


def _post(settings: Settings, message: Message, text: str) -> str | None:
    """Post a message; return None if Slack took it, else what went wrong in words, without the token.

    One call, and one repeat where slack_sdk's retry handlers see a point in it.
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

    try:
        client = WebClient(
            settings.slack_token.strip(),
            base_url=settings.slack_api_url.rstrip("/") + "/",
            timeout=_CALL_S,
            logger=_quiet,
            retry_handlers=[ConnectionErrorRetryHandler(), ShortRateLimit()],
        )
        client.chat_postMessage(channel=message.channel, text=text, unfurl_links=False, unfurl_media=False)
    except Exception as err:
        return redact_line(f"{type(err).__name__}: {err}", [settings.slack_token])
    return None


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 14].rstrip() + " ... (shortened)"
