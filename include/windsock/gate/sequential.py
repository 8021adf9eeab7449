"""How often, and at which level, challengers may be tried after a drift: a group-sequential rule.

After a believed drift there is a challenger every day, each judged on few days: each trial is a *look*, and every look
is a chance to promote a model that is no better by luck alone. All looks at one champion, after whichever drift or by
hand, are one account and spend at most ``gate.recovery_error_rate`` together: each a quarter of what is left, so that
early ones may find large differences, and there is always something left. By Bonferroni's inequality the sum of the
levels bounds the error whatever looks have in common. The bounds of a classic design would not hold: there, one sample
of the same two models grows, while here models and rows change from day to day. A champion that was proven better
begins with the whole: in a world without a change there is one only by an error before. ADR 0030 has the numbers.

A look is on record before it is taken: ``<model>/recovery/<number>.json``. What is judged again, by a retry or by
another run, finds its own record and spends nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from windsock.format_numbers import numbered
from windsock.store import Store, to_json

FOLDER = "recovery"
_SHARE = 0.25
_MEND = "Put the file back from a backup, or remove it: later looks say what had been spent."
"""What a look spends of what is left."""


@dataclass(frozen=True)
class Look:
    """One trial of a challenger after a drift."""

    number: int
    """From 1 within its episode, whichever champion was in force."""
    most: int
    """Trainings that the episode may have, by the spec of that day."""
    level: float
    """How likely this look may take a model for a better one that is none."""
    spent: float
    """By this look and those before it, of those at this champion."""
    left: float
    request: str
    version: str
    model_hash: str
    champion: str

    def sentence(self) -> str:
        """Return the look in words."""
        return (
            f"Look {self.number} of at most {self.most} after this drift, at level {self.level:.3g}; "
            f"{self.spent:.3g} of the error rate against this champion is spent, {self.left:.3g} is left. "
            "Usual trainings spend none, and another champion begins with the whole."
        )


def next_level(error_rate: float, spent: float) -> float:
    """Return the level of the next look at a champion of whose error rate so much is spent."""
    return (error_rate - spent) * _SHARE


def take_look(store: Store, model: str, subject: Mapping[str, str], *, error_rate: float, most: int) -> Look | None:
    """Return a look at a challenger, spending its level unless this very look is on record; None: all is spent.

    Args:
        store: The store.
        model: The model's name.
        subject: What is looked at: ``request`` (its key names the episode), ``version``, ``model_hash``, ``champion``.
        error_rate: What all looks at one champion may spend together.
        most: How many trainings the episode may have, for the record.
    """
    folder, episode = (model, FOLDER), _episode(subject["request"])
    while True:
        names = store.json_names(*folder)
        looks = [store.read_record("look", Look, *folder, f"{name}.json", mend=_MEND) for name in names]
        for look in looks:
            if all(getattr(look, name) == value for name, value in subject.items()):
                return look
        # The latest says what was spent, and how often, even if one before it is lost.
        before = max((look.spent for look in looks if look.champion == subject["champion"]), default=0.0)
        number = 1 + max((look.number for look in looks if _episode(look.request) == episode), default=0)
        if (level := next_level(error_rate, before)) <= 0:  # the rate was lowered
            return None
        look = Look(number, most, level, before + level, error_rate - before - level, **subject)
        place = 1 + max(map(int, names), default=0)
        try:
            store.create_bytes(to_json(numbered("look", asdict(look))), *folder, f"{place:04d}.json")
        except FileExistsError:  # another challenger was tried at the same time, and its level counts first
            continue
        return look


def _episode(request: str) -> str:
    return request.partition("#")[0]
