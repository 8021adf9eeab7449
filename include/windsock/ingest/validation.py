"""What becomes of a day's rows: kept, set aside or, if too many are faulty, refused whole.

Exact copies are dropped first and cost nothing of the budget: nothing is lost with them. Rows that
share a key and differ are all set aside, since nobody can tell which of them is true. That a key
stands in another day already is not looked for here: it would mean reading every day.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from windsock.column_types import to_pandas
from windsock.ingest.conform import Conformed
from windsock.ingest.quarantine import DUPLICATE, Quarantine
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.validate.docs import keep_result
from windsock.validate.engine import validate


@dataclass(frozen=True)
class ValidatedDelivery:
    """One delivery after validation."""

    rows: pa.Table
    """Valid rows in their final order: declared columns, then the inline label."""
    quarantine: Quarantine
    warnings: tuple[str, ...]
    reasons: tuple[str, ...]
    """Why the delivery is refused whole; empty if it is accepted."""


def validate_delivery(
    settings: Settings, spec: ModelSpec, day: date, rows: pa.Table, conformed: Conformed
) -> ValidatedDelivery:
    """Decide which rows of a day (some, in declared form) stay, what to warn of, and whether to refuse it whole.

    Raises:
        SpecError: The model's suite cannot be used.
    """
    quarantine, warnings, reasons = Quarantine(rows.num_rows), list(conformed.warnings), list[str]()
    copies = _copies(rows)
    if len(copies):
        example = rows.column(spec.events.key)[int(copies[0])].as_py()
        sentence = (
            f"{spec.events.key}: {len(copies):,} of {rows.num_rows:,} rows are exact copies of other rows (rule "
            f"'{DUPLICATE}'), e.g. {example}. Each is counted once."
        )
        quarantine.add(DUPLICATE, sentence, copies)
        warnings.append(sentence)
    for fault in conformed.faults:
        quarantine.add(fault.rule, fault.sentence, np.setdiff1d(fault.rows, copies))
        warnings.append(f"{fault.sentence} Set aside.")
    once = np.setdiff1d(np.arange(rows.num_rows), copies)
    found, result = validate(settings, spec, day, rows.take(pa.array(once)))
    keep_result(settings, spec, day, result)
    for broken in found:
        if broken.severity == "critical":
            reasons.append(broken.sentence)
        elif broken.severity == "warning" and broken.rows is not None:
            quarantine.add(broken.rule, broken.sentence, once[broken.rows])
            warnings.append(f"{broken.sentence} Set aside.")
        else:
            warnings.append(broken.sentence)
    reasons += _over_budget(spec, quarantine)
    kept = rows.filter(pa.array(quarantine.kept()))
    order = [(spec.events.time, "ascending"), (spec.events.key, "ascending")]
    return ValidatedDelivery(kept.sort_by(order), quarantine, tuple(warnings), tuple(reasons))


def _over_budget(spec: ModelSpec, quarantine: Quarantine) -> list[str]:
    """Say why too many rows are faulty, if they are."""
    budget = spec.validation.quarantine_budget
    faulty, total, valid = quarantine.faulty, quarantine.total, int(quarantine.kept().sum())
    if valid and faulty <= budget * total:
        return []
    return [
        f"{faulty:,} of {total:,} rows ({faulty / total:.2%}) break a rule, more than "
        f"validation.quarantine_budget ({budget:.2%}) allows; {valid:,} valid rows. {sentence}"
        for sentence in quarantine.sentences()
    ]


def _copies(rows: pa.Table) -> Any:
    """Return the positions of rows that say exactly what an earlier row says."""
    return np.flatnonzero(to_pandas(rows).duplicated(keep="first").to_numpy())
