"""The rows of a training that follows a believed drift: no gap, and only as many days held out as there are to spare.

As of day T such a training learns up to the last matured day but for a few that judge it. The gap, which stands for the
time that a model waits for its labels, would keep the first row of the new regime out for the label delay once more.
Without it a comparison stays fair, as each model is judged on rows later than its own training; and nothing is learnt
from a label that is not known as of T. ADR 0030 has the numbers.
"""

from datetime import date, timedelta

from windsock.days import parse_day
from windsock.errors import SpecError
from windsock.spec import ModelSpec

_JUDGES = 4
"""One of so many matured days of the new regime is held out: what is held out the judged model does not learn from."""


def recovery_holdout(spec: ModelSpec, new_days: int) -> int:
    """Return how many days are held out where so many days of the new regime have matured."""
    return max(1, min(new_days // _JUDGES, spec.training.holdout_days))


def first_recovery(spec: ModelSpec, regime_from: date) -> date:
    """Return as of which day ``retraining.fresh_days`` of a regime can be learnt from, and a later one judges."""
    fresh_days = min(spec.retraining.fresh_days, spec.training.window_days)
    new_days = fresh_days + 1
    while new_days - recovery_holdout(spec, new_days) < fresh_days:
        new_days += 1
    return regime_from + timedelta(days=spec.label.delay_days + new_days - 1)


def recovery_windows(spec: ModelSpec, recovery: object, as_of: object) -> dict[str, int]:
    """Return ``holdout_days`` and ``gap_days`` of a training as of a day that is to recover from a new regime.

    Raises:
        SpecError: One of them is no day, or no label of the regime is known as of that day.
    """
    began, day = parse_day(str(recovery), what="recovery"), parse_day(str(as_of or ""), what="as_of")
    new_days = (day - timedelta(days=spec.label.delay_days) - began).days + 1
    if new_days < 1:
        raise SpecError(
            f"{spec.name}: as of {day} no label is known of the regime that began on {began}: labels take "
            f"{spec.label.delay_days} days. Train as of {first_recovery(spec, began)} or later."
        )
    return {"holdout_days": recovery_holdout(spec, new_days), "gap_days": 0}
