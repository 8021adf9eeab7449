"""What an alert says: where, for which day, the sentence that says why, and where to look.

Text comes from exceptions and data, so nothing of it is trusted: secrets are struck out,
Slack's control characters are escaped, and length is bounded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from windsock.redact import redact

Level = Literal["info", "warning", "error"]

MAX_SENTENCE = 1500


@dataclass(frozen=True)
class Alert:
    """One thing that somebody should know."""

    dag_id: str
    sentence: str
    """Why; the text of the error or the finding."""
    task_id: str | None = None
    run_id: str | None = None
    model: str | None = None
    day: str | None = None
    """Partition key; None: the run is not for a day."""
    url: str | None = None
    """The run in the Airflow UI."""
    level: Level = "error"
    headline: str | None = None
    """What happened in a few words; default: that the task failed."""

    def where(self) -> str:
        """Say which task of which DAG and day this is about, in one line."""
        parts = [f"DAG {self.dag_id}"]
        parts += [f"task {self.task_id}"] if self.task_id else []
        parts += [f"day {self.day}"] if self.day else []
        return ", ".join(parts)

    def title(self) -> str:
        """Say what happened."""
        return self.headline or ("Failed" if self.level == "error" else "Note")


def as_line(alert: Alert, secrets: Iterable[str] = ()) -> str:
    """Write an alert as one line for the log."""
    link = f" ({alert.url})" if alert.url else ""
    text = f"{alert.title()}: {alert.where()}: {_shortened(alert.sentence)}{link}"
    return redact(" ".join(text.split()), secrets)


def as_slack(alert: Alert, secrets: Iterable[str] = ()) -> str:
    """Write an alert as Slack text: DAG, task, day, sentence, link."""
    secrets = tuple(secrets)
    lines = [f"*{_escaped(alert.title())}*: {_escaped(alert.where())}"]
    lines.append(_escaped(_shortened(redact(alert.sentence, secrets))))
    if alert.url:
        # Within <url|text> these would end the link; everything else Slack takes as it is.
        url = alert.url.replace("<", "%3C").replace(">", "%3E").replace("|", "%7C").replace("&", "&amp;")
        lines.append(f"<{url}|Open the run in Airflow>")
    return redact("\n".join(lines), secrets)


def failure(dag_id: str, sentence: str, **fields: Any) -> Alert:
    """Make the alert of a task that failed for good."""
    return Alert(dag_id, sentence, level="error", headline="Task failed", **fields)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 14].rstrip() + " ... (shortened)"
