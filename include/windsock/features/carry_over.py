"""Features that version 0.1 computed, found under the names of their definitions.

Version 0.1 kept one record a day for all views, in ledger stage ``features``, and named a view's SQL by the hash of
its text. Where that is the text of a definition, its days stand already: each gets a record of its own that names the
old files. Nothing is computed again and nothing old is changed.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from windsock.ledger import DayRecord, Ledger

log = logging.getLogger(__name__)

STAGE = "features"
"""Ledger stage of version 0.1."""
NOTES = "definitions"

_seen: set[tuple[str, str, str, str]] = set()
"""Tables and texts that this process has looked after."""


def carry_over(ledger: Ledger, view: str, sql: str, lookback_days: int, known: str | None) -> None:
    """Give a table the records of version 0.1 that were computed by the same text, once and for all.

    Args:
        ledger: The table's records.
        view: Name of the view.
        sql: Its text, to the byte.
        lookback_days: Its lookback.
        known: When labels become known, if it reads them.
    """
    text = hashlib.sha256(sql.encode()).hexdigest()
    key = (ledger.store.root, ledger.model, ledger.stage, text)
    if key in _seen:
        return
    note = (ledger.model, NOTES, f"{ledger.stage.removeprefix(f'{STAGE}/')}-{text[:16]}.json")
    if not ledger.store.exists(*note):
        carried = 0
        for record in _days_of_0_1(ledger, view, text, lookback_days, known):
            carried += "carried_over" in (ledger.get(record.day) or ledger.publish(record)).detail
        if carried:
            log.info("%s: %d days of %s were computed by version 0.1 and stand", ledger.model, carried, ledger.stage)
        # Last: a kill before it only means that the rest is carried over the next time.
        ledger.store.write_json({"view": view, "sql": sql, "sha256": text, "carried_over": carried}, *note)
    _seen.add(key)


def was_carried_over(ledger: Ledger) -> bool:
    """Say whether version 0.1 computed days of this definition."""
    prefix = ledger.stage.removeprefix(f"{STAGE}/")
    notes = [n for n in ledger.store.json_names(ledger.model, NOTES) if n.startswith(f"{prefix}-")]
    return any(ledger.store.read_json(ledger.model, NOTES, f"{name}.json")["carried_over"] for name in notes)


def record_of_view(record: DayRecord, view: str, table: str) -> DayRecord:
    """Return one view's part of a record of version 0.1, under the table's new name."""
    name = f"{STAGE}/{view}"
    outputs = {table: record.outputs[name]} if name in record.outputs else {}
    return replace(record, outputs=outputs, detail={"carried_over": "0.1"})


def _days_of_0_1(ledger: Ledger, view: str, text: str, lookback_days: int, known: str | None) -> Iterator[DayRecord]:
    old = Ledger(ledger.store, ledger.model, STAGE)
    ingested = Ledger(ledger.store, ledger.model, "ingest").days()[:1]
    for record in old.all().values():
        read = [made_from.rpartition("/")[2] for made_from in record.inputs if made_from.startswith("ingest/")]
        # A shorter lookback of then gave other rows, unless it reached the model's first day.
        oldest = (record.day - timedelta(days=lookback_days)).isoformat()
        enough = not read or min(read) <= oldest or min(read) == str(ingested[0])
        if record.inputs.get(f"sql/{view}") == text and enough:
            read_days = {
                name: mark
                for name, mark in record.inputs.items()
                if name.startswith(("ingest/", "labels/") if known else "ingest/") and name.rpartition("/")[2] >= oldest
            }
            part = record_of_view(record, view, ledger.stage)
            yield replace(part, inputs={**read_days, **({"known": known} if known else {})})
