"""A delivery tried without taking it in: what would the ingest step make of it?"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow.compute as pc

from windsock.days import ONE_DAY, utc_now
from windsock.ingest.judge import conform_events, judge
from windsock.ingest.labels import conform_labels, fetch_labels
from windsock.ingest.sources.delivery import Delivery, NotDelivered, fetch
from windsock.ledger import Ledger
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.sources import FilesSource, has_day

_DAYS = 14
"""Days that are looked back for a file."""


@dataclass(frozen=True)
class Trial:
    """What a delivery would come to."""

    rows: int
    set_aside: int = 0
    reasons: tuple[str, ...] = ()
    """Why it would be refused; none if it would be published."""
    warnings: tuple[str, ...] = ()
    positives: int | None = None
    """Events with the label 1, where a binary label comes with them."""


def try_delivery(settings: Settings, spec: ModelSpec, day: date, delivery: Delivery) -> Trial:
    """Judge a day's delivery by today's spec and suite.

    Raises:
        SpecError: The suite cannot be used.
    """
    if delivery.rows is None:
        return Trial(0, reasons=(delivery.problem or f"{delivery.name}: cannot be read.",))
    rows = delivery.rows.num_rows
    conformed = conform_events(spec, day, delivery.rows, zone=delivery.zone)
    if conformed.rows is None or rows == 0:
        return Trial(rows, reasons=conformed.problems, warnings=conformed.warnings)
    quarantine, warnings, reasons, _ = judge(settings, spec, day, conformed.rows, conformed)
    label, positives = spec.label, None
    if label.files is None and label.task == "binary":
        positives = pc.sum(pc.equal(conformed.rows.column(label.column), 1)).as_py() or 0
    return Trial(rows, rows - int(quarantine.kept().sum()), tuple(reasons), tuple(warnings), positives)


def try_newest_delivery(settings: Settings, spec: ModelSpec) -> tuple[str, list[str], list[str]]:
    """Try the newest delivery that the sources of a model have, of events and of label files.

    Returns:
        What was found in a few words, why it would be refused, and warnings.

    Raises:
        UpstreamUnavailable: The source cannot be reached.
        SpecError: The source or the suite is described wrongly.
    """
    back = 1  # a query or a simulator answers for every day
    if isinstance(spec.source, FilesSource):
        back = _DAYS if has_day(spec.source.url) else 0  # one big file is cut by days that it is known to hold
    found = _newest(_days(settings, spec, back), lambda day: fetch(spec, day))
    if found is None:
        return "", [], [f"no delivery lies at the source for any of the last {_DAYS} days, so none was looked at."]
    day, delivery = found
    trial = try_delivery(settings, spec, day, delivery)
    name = f"delivery {delivery.name}"
    share = trial.set_aside / max(trial.rows, 1)
    note = f"{name}: {trial.rows:,} rows, {trial.set_aside:,} of them ({share:.2%}) set aside"
    if trial.positives is not None:
        note += f", {trial.positives:,} with {spec.label.column} 1"
    faults, warnings = [f"{name}: {s}" for s in trial.reasons], [f"{name}: {s}" for s in trial.warnings]
    if spec.label.files is not None:
        note += _try_labels(settings, spec, faults, warnings)
    return note, faults, warnings


def _try_labels(settings: Settings, spec: ModelSpec, faults: list[str], warnings: list[str]) -> str:
    """Try the newest label file; whose labels they are is not looked at, as that takes events."""
    found = _newest(_days(settings, spec, _DAYS), lambda day: fetch_labels(spec, day))
    if found is None:
        warnings.append(f"no label file lies at the source for any of the last {_DAYS} days, so none was looked at.")
        return ""
    _, delivery = found
    name = f"label file {delivery.name}"
    if delivery.rows is None or spec.label.files is None:
        faults.append(f"{name}: {delivery.problem or 'cannot be read.'}")
        return ""
    conformed = conform_labels(spec, delivery.rows, delivery.zone)
    faults += [f"{name}: {sentence}" for sentence in conformed.problems]
    warnings += [f"{name}: {s}" for s in (*conformed.warnings, *(fault.sentence for fault in conformed.faults))]
    if conformed.rows is None or spec.label.task != "binary":
        return ""
    positives = pc.sum(pc.equal(conformed.rows.column(spec.label.column), 1)).as_py() or 0
    return f"; {name}: {delivery.rows.num_rows:,} labels, {positives:,} of them 1"


def _days(settings: Settings, spec: ModelSpec, back: int) -> Iterator[date]:
    """Yield days to look at: the last ones, the newest first, then one that was ingested, then the model's first."""
    yesterday = utc_now().date() - ONE_DAY
    last = min(yesterday, spec.last_day or yesterday)
    yield from (day for n in range(back) if (day := last - timedelta(days=n)) >= spec.first_day)
    yield from Ledger.of(settings, spec.name, "ingest").days()[-1:]
    yield spec.first_day


def _newest(days: Iterable[date], ask: Callable[[date], Delivery]) -> tuple[date, Delivery] | None:
    """Return the first delivery there is, one with rows if any has some."""
    empty = None
    for day in dict.fromkeys(days):
        try:
            delivery = ask(day)
        except NotDelivered:
            continue
        if delivery.rows is None or delivery.rows.num_rows:
            return day, delivery
        empty = empty or (day, delivery)
    return empty
