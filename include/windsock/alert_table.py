"""The table of alerts: what was reported, with what belongs together in one row; for people, with or without Slack."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

from windsock.outbox import Message, Outbox
from windsock.settings import Settings
from windsock.store import Store

State = Literal["open", "over", "told"]


@dataclass
class Row:
    """One trouble, or one message of its own."""

    first: Message
    last: Message
    count: int = 1
    state: State = "told"
    waiting: bool = False
    """Whether Slack has not taken all of it yet."""
    refusal: str = ""
    """Why Slack did not take one of them."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        first, last = self.first, self.last
        return {
            "since": first.at,
            "last": last.at,
            "count": self.count,
            "state": self.state,
            "waiting": self.waiting,
            "refusal": self.refusal,
            "severity": first.severity,
            "kind": first.kind,
            "model": first.model,
            "owner": first.owner,
            "dag": first.dag_id,
            "day": last.day or first.day,
            "headline": first.headline,
            "sentence": last.sentence,
            "url": first.links[0][1] if first.links else "",
        }


def table_of_alerts(settings: Settings, days: int) -> list[Row]:
    """Return what was reported in the last days, newest first."""
    outbox = Outbox(Store.of(settings))
    waiting, refused = {message.name for message in outbox.waiting()}, outbox.refused()
    return fold(outbox.messages(timedelta(days=days)), waiting, {name: each.why for name, each in refused.items()})


def fold(messages: Iterable[Message], waiting: set[str], refusals: Mapping[str, str]) -> list[Row]:
    """Put messages of one thread into one row, up to what closes it; newest first.

    Args:
        messages: All of them, oldest first.
        waiting: Names of those that Slack has not taken yet.
        refusals: Name to why of those that Slack has refused.
    """
    rows, open_rows = list[Row](), dict[str, Row]()
    for message in messages:
        row = open_rows.get(message.thread) if message.thread else None
        if row is None:
            if message.closes:
                continue  # what it closed is older than the table
            row = Row(message, message)
            rows.append(row)
            if message.thread:
                open_rows[message.thread], row.state = row, "open"
        else:
            row.last = message
            row.count += not message.closes
        row.waiting |= message.name in waiting
        row.refusal = refusals.get(message.name, row.refusal)
        if message.closes:
            row.state = "over"
            del open_rows[message.thread]
    for row in rows:
        if row.refusal:
            sentence = f"Slack did not take this ({row.refusal}): {row.last.sentence}"
            row.last = replace(row.last, sentence=sentence)
    return sorted(rows, key=lambda row: row.last.at, reverse=True)
