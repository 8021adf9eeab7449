"""How the labels come: do they come at all, when they should, and as many positive ones as before?

A label that is missing looks like a model that lost its touch, or hides one that did; learnt from, it teaches that
what went unnoticed is fine. So this is an alarm of its own, whatever the model's performance.
"""

from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from windsock.days import ONE_DAY, start_of
from windsock.ledger import Ledger
from windsock.monitoring.chance import independent
from windsock.monitoring.drift import rounded
from windsock.monitoring.scored import Past
from windsock.row_places import places_of
from windsock.served.metrics import TIME
from windsock.spec.columns import KNOWN_AT
from windsock.store import Store
from windsock.tables import read_labels

_US = pa.timestamp("us")
_LOOKED_BACK = 100
"""Days before those that a night reads in which an earlier word of a label is looked for."""
_FEWEST_DAYS = 4
"""Days before those judged that say what is usual; below, nothing is."""
_LATE_SHARE = 0.1
"""Largest share of positive labels that may come after their delay, as in training (``dataset.label_join``)."""
_FEWEST_LATE = 10
_MISSING_SHARE = 0.5
"""Of the labels that usually are there when they should."""
_RATE_OF_A_DAY, _RATE_OF_WEEK, _SIGMAS = 1.8, 1.5, 4.0
"""By which factor a rate must have moved to count, on the newest day or all of them, and how far beyond luck."""


def watch_labels(past: Past) -> dict[str, Any]:
    """Look at the labels of the matured days, at the age at which each day is judged first.

    Returns:
        ``share`` of the rows that had their label in time and the ``usual_share`` of the days before; ``rate`` of
        positives among them, that of the ``newest_day`` and the ``usual_rate`` (binary labels); ``late_share`` of the
        positives that were delivered lately and came after their delay (label files); ``unfinished``: labels have
        stopped, or are too late to judge by; ``alarm`` and ``why``.
    """
    days, events, labelled, positive = _in_time(past)
    judged = days >= past.first
    share, usual_share = (_ratio(labelled[at], events[at]) for at in (judged, ~judged))
    found: dict[str, Any] = {
        "share": rounded(share),
        "usual_share": rounded(usual_share),
        "rate": None,
        "newest_day": None,
        "usual_rate": None,
        "late_share": None,
        "unfinished": False,
        "why": None,
    }
    sentences = []
    last = past.matured
    if share is not None and events[judged].sum() and (share == 0 or share < _MISSING_SHARE * (usual_share or 0)):
        found["unfinished"] = True
        usual = f", where {usual_share:.0%} is usual" if usual_share else ""
        sentences.append(
            f"labels are missing: {share:.0%} of the rows up to {last} had theirs after {past.spec.label.delay_days} "
            f"days{usual}"
        )
    if past.spec.label.task == "binary":
        found["late_share"], late = _late(past)
        if late is not None:
            found["unfinished"] = True
            sentences.append(late)
        sentences += _rates(found, judged, labelled, positive)
    return {**found, "alarm": bool(sentences), "why": "; ".join(sentences) or None}


Counts = NDArray[np.int64]


def _in_time(past: Past) -> tuple[NDArray[Any], Counts, Counts, Counts]:
    """Count, for each matured day with events, those, the labels that came within their delay, and the positives."""
    spec, delay, label = past.spec, np.timedelta64(past.spec.label.delay_days + 1, "D"), past.spec.label.column
    event, known = (np.asarray(past.labels[name].cast(_US), "datetime64[us]") for name in ("event_time", KNOWN_AT))
    # Of several the one in force when the day matured: a first "no" may have been provisional.
    labels = past.labels.filter(pa.array(known < (event.astype("datetime64[D]") + delay).astype("datetime64[us]")))
    labels = labels.sort_by([(KNOWN_AT, "descending"), (label, "descending")])
    matured = past.days <= np.datetime64(past.matured)
    events = past.events.filter(pa.array(matured))
    place = places_of([events[spec.events.key], events[TIME]], [labels[spec.events.key], labels["event_time"]])
    value = labels[label].take(place.combine_chunks()).to_numpy(zero_copy_only=False).astype(np.float64)
    day, in_time = past.days[matured], place.is_valid().to_numpy()
    days, of = np.unique(day, return_inverse=True)
    counts = [
        np.bincount(of, at, minlength=len(days)).astype(np.int64)
        for at in (np.ones(len(day)), in_time, in_time & (value > 0))
    ]
    return days.astype("datetime64[D]").astype(object), *counts  # type: ignore[return-value]


def _late(past: Past) -> tuple[float | None, str | None]:
    """Return the share of the positives delivered lately that came late, and a sentence if that is too much.

    Only label files tell: a label that comes as a column of its event is taken to be known after its delay.
    """
    spec = past.spec
    if spec.label.files is None:
        return None, None
    since = past.day - timedelta(days=spec.monitoring.performance_days - 1)
    labels = _first_said(past, since)
    if labels.num_rows == 0:
        return None, None
    event, known = (np.asarray(labels[name].cast(_US), "datetime64[us]") for name in ("event_time", KNOWN_AT))
    took = (known.astype("datetime64[D]") - event.astype("datetime64[D]")).astype(int)
    late = took > spec.label.delay_days
    share = float(late.mean())
    if late.sum() < _FEWEST_LATE or share <= _LATE_SHARE:
        return rounded(share), None
    return rounded(share), (
        f"labels come late: {share:.0%} of the {len(late)} positive ones since {since} took longer than the "
        f"{spec.label.delay_days} days of label.delay_days, half of those {np.median(took[late]):.0f} days or more"
    )


def _first_said(past: Past, since: date) -> pa.Table:
    """Return event and ``known_at`` of the positives delivered from a day on, but for those that were said before.

    Those of events from so long ago that nobody looks for an earlier word of them are left out.
    """
    spec, key, label = past.spec, past.spec.events.key, past.spec.label.column

    def positive(labels: pa.Table) -> pa.Table:
        oldest = pa.scalar(start_of(past.since - timedelta(days=_LOOKED_BACK)), _US)
        said = labels.filter(
            pc.and_(pc.equal(labels[label], 1), pc.greater_equal(labels["event_time"].cast(_US), oldest))
        )
        return (
            said.group_by([key, "event_time"])
            .aggregate([(KNOWN_AT, "min")])
            .rename_columns({f"{KNOWN_AT}_min": KNOWN_AT})
        )

    found = positive(past.labels)
    found = found.filter(pc.greater_equal(found[KNOWN_AT].cast(_US), pa.scalar(start_of(since), _US)))
    old = pc.min(found["event_time"].cast(_US)).as_py() if found.num_rows else None
    if old is None or old.date() >= past.since:
        return found
    before = Ledger.of(past.settings, spec.name, "labels").between(old.date(), past.since - ONE_DAY)
    said = positive(read_labels(Store.of(past.settings), spec, before.values()))
    return found.filter(places_of([found[key], found["event_time"]], [said[key], said["event_time"]]).is_null())


def _rates(found: dict[str, Any], judged: NDArray[np.bool_], labelled: Counts, positive: Counts) -> list[str]:
    """Note the rates of positives, and return a sentence if they have moved by more than days do by themselves."""
    before = ~judged & (labelled > 0)
    at = np.flatnonzero(judged & (labelled > 0))
    rate, usual = _ratio(positive[at], labelled[at]), _ratio(positive[before], labelled[before])
    found["rate"], found["usual_rate"] = rounded(rate), rounded(usual)
    if not len(at):
        return []
    newest = float(positive[at[-1]] / labelled[at[-1]])
    found["newest_day"] = rounded(newest)
    if before.sum() < _FEWEST_DAYS or not usual:
        return []
    of_days = positive[before] / labelled[before]
    for value, chosen, factor, what in (
        (rate, at, _RATE_OF_WEEK, f"{len(at)} matured days"),
        (newest, at[-1:], _RATE_OF_A_DAY, "newest matured day"),
    ):
        # Days differ by more than the luck of their rows; the larger of both is what one must expect.
        luck = np.sqrt(usual * (1 - usual) / labelled[chosen].sum())
        a_day, alike = float(np.std(of_days, ddof=1)), _alike_next_day(of_days)
        spread = max(luck, a_day / np.sqrt(independent(len(chosen), alike)))
        spread = float(np.hypot(spread, a_day / np.sqrt(independent(len(of_days), alike))))
        moved = max(value / usual, usual / max(value, 1e-12)) if value is not None else 0.0
        if value is not None and moved >= factor and abs(value - usual) > _SIGMAS * spread:
            hint = "" if value > usual else ": either there are fewer, or their labels come later"
            return [f"the rate of positive labels of the {what} is {value:.3g}, where {usual:.3g} is usual{hint}"]
    return []


def _alike_next_day(of_days: NDArray[np.float64]) -> float:
    off = of_days - of_days.mean()
    return float(np.clip((off[1:] * off[:-1]).sum() / max((off**2).sum(), 1e-12), 0.0, 0.95))


def _ratio(part: Counts, whole: Counts) -> float | None:
    return float(part.sum() / whole.sum()) if whole.sum() else None
