"""What requests of other episodes leave of a model's allowance: a cool-down between episodes, a budget for all."""

from collections.abc import Collection, Mapping
from datetime import date, timedelta

from windsock.governor.request_names import episode_of
from windsock.spec.operations import RetrainingSpec


def restraint(
    policy: RetrainingSpec,
    day: date,
    others: Mapping[date, str],
    asked: Mapping[date, str],
    kin: Collection[date] = (),
) -> str | None:
    """Return why requests on other days, but for those of the same episode, rule out one on this day, or None.

    Those of ``kin`` are no reason to cool down.
    """
    apart = (on for on in others if on not in asked and on not in kin)
    near = next((on for on in apart if abs((on - day).days) <= policy.cool_down_days), None)
    if near is not None:
        free = near + timedelta(days=policy.cool_down_days + 1)
        return f"cooling down until {free}: a retraining was asked for on {near}"
    # The most other episodes that any ``budget_days`` consecutive days with this one among them hold.
    rest = {on: episode_of(key) for on, key in others.items() if on not in asked}
    for back in range(policy.budget_days):
        within = {episode for on, episode in rest.items() if 0 <= (on - day).days + back < policy.budget_days}
        if len(within) >= policy.budget:
            return f"the budget of {policy.budget} retrainings in {_days(policy.budget_days)} is spent"
    return None


def _days(n: int) -> str:
    return f"{n} day{'' if n == 1 else 's'}"
