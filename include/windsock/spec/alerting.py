"""The part of a spec that says who hears of what: kinds of messages, how severe each is, and where it goes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from windsock.spec.base import Part

Kind = Literal[
    "failure",
    "rejected",
    "quarantine",
    "drift",
    "performance",
    "refusal",
    "approval",
    "promotion",
    "rollback",
    "deadline",
    "silence",
    "catch_up",
    "digest",
]
Severity = Literal["error", "warning", "info"]

SEVERITIES: Mapping[Kind, Severity] = MappingProxyType(
    {
        "failure": "error",
        "rejected": "error",
        "quarantine": "warning",
        "drift": "warning",
        "performance": "warning",
        "refusal": "info",
        "approval": "warning",
        "promotion": "info",
        "rollback": "warning",
        "deadline": "error",
        "silence": "error",
        "catch_up": "info",
        "digest": "info",
    }
)
"""How severe each kind is unless the spec says otherwise."""


class AlertsSpec(Part):
    """Who hears of what."""

    slack_channel: str | None = Field(None, description="Default: the installation's channel.")
    on_replay: bool = Field(False, description="Also report failures of backfills.")
    severity: dict[Kind, Severity] = Field(
        default_factory=dict, description="Kind of message to how severe it is, where that is another than usual."
    )
    routes: dict[Kind | Severity, str | None] = Field(
        default_factory=dict,
        description="Kind of message, or severity, to its channel; a kind goes before its severity. "
        "null: not to Slack, only to the log and the table of alerts.",
    )
    quarantine_share: float = Field(
        0.05, ge=0, lt=1, description="Share of a day's rows set aside from which on people are told."
    )
    digest: bool = Field(True, description="A message a day that says how the model stands.")

    def channel_of(self, kind: Kind, severity: Severity, usual: str) -> str | None:
        """Return where a message goes; None: not to Slack."""
        if kind in self.routes:
            return self.routes[kind]
        if severity in self.routes:
            return self.routes[severity]
        return self.slack_channel or usual
