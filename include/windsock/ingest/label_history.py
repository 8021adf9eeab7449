"""Comparing label files with those before: are positives missing, or late?

Labels that did not come yet are unknown and left out. So where positives come late or not at all, nothing fails:
training, reports and the gate just see fewer of them, and the model looks better or worse than it is.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import sqrt
from statistics import pstdev
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from windsock.ingest.lasting import Rule, newly, published_until, set_aside_daily
from windsock.ledger import DayRecord
from windsock.spec import ModelSpec
from windsock.steps import StepContext

_FEWEST = 20
"""Labels that a statement about their delay rests on at the least."""
_FEWEST_FILES = 7
_WINDOWS = (1, 7)
"""Newest files that are compared with those before: one, and a week where a day has few positives."""
_LATE_SHARE = 0.1
_HALF = 0.5
_SIGMAS = 4.0


def stats_of(spec: ModelSpec, labels: pa.Table) -> dict[str, Any]:
    """Return what later label files are compared with: labels, positives, and how late these are.

    ``lags``: days from the event's day to the day on which its label was known, to how many; of positives, if the
    label is binary, else of all.
    """
    told = labels
    if spec.label.task == "binary":
        told = labels.filter(pc.equal(labels.column(spec.label.column), 1))
    days = pc.days_between(told.column("event_time"), told.column("known_at")).to_pylist()
    lags = {str(days): n for days, n in sorted(Counter(days).items())}
    return {"labels": labels.num_rows, "told": told.num_rows, "lags": lags}


def alarms(ctx: StepContext, record: DayRecord, harmless: Collection[str]) -> list[str]:
    """Say what begins to be wrong with the label files with the one whose record is about to be published.

    Rows that broke a ``harmless`` rule are no loss.
    """
    records = published_until(ctx, "labels", record)
    asked = [*_rules(ctx.spec), set_aside_daily(ctx.spec.validation.quarantine_budget, harmless)]
    return [sentence for rule in asked for sentence in newly(rule, records, live=ctx.live)]


def _rules(spec: ModelSpec) -> list[Rule]:
    """Return what is asked of a model's label files; each names a fault on the day on which it begins."""
    what = "positives" if spec.label.task == "binary" else "labels"
    name, delay = spec.label.column, spec.label.delay_days

    def late(records: Sequence[DayRecord]) -> str | None:
        lags = _lags(_stats(records)[-2 * _FEWEST_FILES :])
        total, over = lags.total(), sum(n for days, n in lags.items() if days > delay)
        if total < _FEWEST or over <= _LATE_SHARE * total:
            return None
        return (
            f"{name}: {over:,} of {total:,} {what} in the last label files came later than label.delay_days ({delay}) "
            f"says, half of all after {_quantile(lags, 0.5)} days or more. The newest days that training and reports "
            f"take to be labelled lack them. Set label.delay_days to what it takes (19 of 20 are known after "
            f"{_quantile(lags, 0.95)} days), or ask the sender."
        )

    def later_than_usual(records: Sequence[DayRecord]) -> str | None:
        stats = _stats(records)
        for newest in _WINDOWS:
            past, lags = stats[:-newest], _lags(stats[-newest:])
            usual = _lags(past)
            if len(past) < _FEWEST_FILES or min(lags.total(), usual.total()) < _FEWEST:
                continue
            now, then, longest = _quantile(lags, 0.5), _quantile(usual, 0.5), _quantile(usual, 0.95)
            if now <= delay and now > longest and now >= then + max(2, _HALF * then):
                return (
                    f"{name}: half of the {lags.total():,} newest {what} came {now} days or more after their event, "
                    f"usually {then}. Ask the sender why: after {delay} days (label.delay_days) they are missed."
                )
        return None

    def missing(records: Sequence[DayRecord]) -> str | None:
        stats = _stats(records)
        for newest in _WINDOWS:
            past, now = stats[:-newest], stats[-newest:]
            if len(past) < _FEWEST_FILES or not (rows := sum(s["labels"] for s in past)):
                continue
            labels, found = sum(s["labels"] for s in now), sum(s["told"] for s in now)
            share = sum(s["told"] for s in past) / rows
            spread = pstdev(s["told"] / s["labels"] for s in past if s["labels"])
            expected = labels * share
            if expected - found > max(_HALF * expected, _SIGMAS * sqrt(expected), _SIGMAS * labels * spread):
                return (
                    f"{name}: {found:,} positives among {labels:,} labels of the last {newest} label "
                    f"file{'s' if newest > 1 else ''}, where {expected:,.0f} are usual ({share:.2%} over {len(past)} "
                    "files). They may come later, or never: until they do, the newest days look more harmless "
                    "than they were. Ask the sender."
                )
        return None

    return [late, later_than_usual, *([missing] if spec.label.task == "binary" else [])]


def _stats(records: Sequence[DayRecord]) -> list[Mapping[str, Any]]:
    return [record.detail["stats"] for record in records if "stats" in record.detail]


def _lags(stats: Sequence[Mapping[str, Any]]) -> Counter[int]:
    lags: Counter[int] = Counter()
    for each in stats:
        lags.update({int(days): n for days, n in each["lags"].items()})
    return lags


def _quantile(lags: Counter[int], share: float) -> int:
    """Return the shortest delay within which that share of the labels had come."""
    days = sorted(lags.elements())
    return days[min(int(share * len(days)), len(days) - 1)]
