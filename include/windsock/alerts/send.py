"""What an alert says, and sending it: the log first, then Slack; no failure of either reaches the caller.

Text comes from exceptions and data, so nothing of it is trusted: secrets are struck out, Slack's control characters
are escaped, and length is bounded.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from windsock.redact import redact
from windsock.settings import Settings
from windsock.spec import ModelSpec

log = logging.getLogger("windsock.alerts")

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
        from windsock.alerts.slack import post  # slack_sdk takes a while to load, and few installations have a token

        problem = post(settings, channel, failed.as_slack(secrets))
        if problem is not None:
            log.warning("Slack did not get this alert: %s", problem)
        return problem is None
    except Exception as err:
        # Only the type: its text may hold anything, and this is the last line of defence.
        log.error("An alert could not be sent: %s", type(err).__name__)
        return False


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 14].rstrip() + " ... (shortened)"
