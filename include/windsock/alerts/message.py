"""What an alert says: where, for which day, the sentence that says why, and where to look.

Text comes from exceptions and data, so nothing of it is trusted: secrets are struck out,
Slack's control characters are escaped, and length is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["info", "warning", "error"]

MAX_SENTENCE = 1500

_CREDENTIALS = re.compile(r"(?<=://)[^/\s:@]*:[^\s@]+(?=@)")
_SLACK_TOKEN = re.compile(r"\bx(?:ox[a-z]|app)-[A-Za-z0-9-]+")


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


def scrubbed(text: str, secrets: Iterable[str] = ()) -> str:
    """Strike out secrets: the given ones, Slack tokens, and credentials in URLs."""
    for secret in secrets:
        for form in {secret, secret.strip()} - {""}:
            text = text.replace(form, "***")
    return _CREDENTIALS.sub("***:***", _SLACK_TOKEN.sub("***", text))


def as_line(alert: Alert, secrets: Iterable[str] = ()) -> str:
    """Write an alert as one line for the log."""
    link = f" ({alert.url})" if alert.url else ""
    text = f"{alert.title()}: {alert.where()}: {_shortened(alert.sentence)}{link}"
    return scrubbed(" ".join(text.split()), secrets)


def as_slack(alert: Alert, secrets: Iterable[str] = ()) -> str:
    """Write an alert as Slack text: DAG, task, day, sentence, link."""
    secrets = tuple(secrets)
    lines = [f"*{_escaped(alert.title())}*: {_escaped(alert.where())}"]
    lines.append(_escaped(_shortened(scrubbed(alert.sentence, secrets))))
    if alert.url:
        # Within <url|text> these would end the link; everything else Slack takes as it is.
        url = alert.url.replace("<", "%3C").replace(">", "%3E").replace("|", "%7C").replace("&", "&amp;")
        lines.append(f"<{url}|Open the run in Airflow>")
    return scrubbed("\n".join(lines), secrets)


def failure(dag_id: str, sentence: str, **fields: Any) -> Alert:
    """Make the alert of a task that failed for good."""
    return Alert(dag_id, sentence, level="error", headline="Task failed", **fields)


def quarantine(
    dag_id: str, day: str, rows: int, quarantined: Mapping[str, int] | int, reasons: Sequence[str] = (), **fields: Any
) -> Alert:
    """Make the alert of a day whose rows were partly set aside.

    Args:
        dag_id: The ingest DAG.
        day: Partition key.
        rows: Rows that were published.
        quarantined: Rows set aside, by rule or altogether.
        reasons: Sentences of the validation.
        **fields: Further fields of :class:`Alert`.
    """
    if isinstance(quarantined, int):
        counts, total = "", quarantined
    else:
        total = sum(quarantined.values())
        counts = " (" + ", ".join(f"{rule}: {n}" for rule, n in sorted(quarantined.items())) + ")"
    sentence = f"{total} rows were set aside{counts}, {rows} were published."
    why = "\n".join(str(r) for r in reasons)
    return Alert(
        dag_id,
        f"{sentence}\n{why}" if why else sentence,
        day=day,
        level="warning",
        headline="Rows quarantined",
        **fields,
    )


def promotion(
    dag_id: str, version: str, previous: str | None, in_force_from: str, reason: str = "", **fields: Any
) -> Alert:
    """Make the alert of a new champion."""
    replaced = f"replaces version {previous}" if previous else "is the first champion"
    sentence = f"Version {version} {replaced}, in force from {in_force_from}."
    if reason:
        sentence = f"{sentence} {reason}"
    return Alert(dag_id, sentence, level="info", headline="New champion", **fields)


def drift(dag_id: str, day: str, summary: str, decision: Sequence[str] = (), **fields: Any) -> Alert:
    """Make the alert of a day with drift or a loss of performance.

    Args:
        dag_id: The monitor DAG.
        day: Partition key.
        summary: The monitor's finding.
        decision: The governor's reasons, if it has decided.
        **fields: Further fields of :class:`Alert`.
    """
    decided = f" Governor: {'; '.join(decision)}." if decision else ""
    return Alert(dag_id, f"{summary}.{decided}", day=day, level="warning", headline="Drift", **fields)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 14].rstrip() + " ... (shortened)"
