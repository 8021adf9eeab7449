"""What a step that takes in a delivery says about it, be it of events or of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from windsock.ledger import DayRecord


def outcome(previous: DayRecord | None, record: DayRecord, warnings: Sequence[str]) -> dict[str, Any]:
    """Return the part of the result that both steps share.

    Args:
        previous: The day's record before this run, if there was one.
        record: The record now in force; its detail counts rows and names rules.
        warnings: Sentences for people; they may go beyond the record's own.
    """
    by_rule = dict(record.detail["quarantined"])
    return {
        "status": record.status,
        "rows": record.detail["published"],
        "quarantined": sum(by_rule.values()),
        "by_rule": by_rule,
        "warnings": list(warnings),
        "reasons": list(record.detail["reasons"]),
        "changed": previous is None or previous.data_hash != record.data_hash,
    }
