"""Every error Windsock raises on purpose, with the exit code a step reports.

WindsockError               exit 1   unclassified: a retry may help
├── SpecError               exit 64  what was asked for is wrong: fix it, never retry; so is a wrong command line
├── DataContractError       exit 65  the data is wrong: never retry
│   ├── DayRejected                  a whole delivery was refused and recorded as such
│   ├── DamagedRecord                what the store keeps cannot be read, or contradicts itself
│   ├── ParityError                  online and offline features disagree
│   └── TooLittleHistory             there are not yet enough days to train on
├── GateFailed              exit 65  a candidate did not pass: never retry
└── UpstreamUnavailable     exit 75  a service or a store is away: retry
    ├── NotReady                     days are still missing: wait and ask again
    └── ChampionChanged              somebody else promoted meanwhile: judge again
"""

from collections.abc import Iterable
from datetime import date
from difflib import get_close_matches
from typing import ClassVar, Self


class WindsockError(Exception):
    """Base of every deliberate failure; its text is one a person can act on."""

    exit_code: ClassVar[int] = 1


class SpecError(WindsockError):
    """A spec or a request names something that does not exist or does not fit."""

    exit_code: ClassVar[int] = 64

    @classmethod
    def unknown(cls, kind: str, name: str, known: Iterable[str], where: str = "") -> Self:
        """Name what was asked for, the nearest match and everything on offer, and where that is."""
        names = sorted(known)
        on_offer = f"Known{where and f' in {where}'}: {listed(names) or 'none'}"
        return cls(f"No {kind} named {name!r}.{did_you_mean(name, names)} {on_offer}.")


class DataContractError(WindsockError):
    """The data breaks its contract, and trying again would not mend it."""

    exit_code: ClassVar[int] = 65


class DayRejected(DataContractError):
    """A day's delivery was refused whole; the refusal itself has been recorded.

    ``brief`` says the same without any value of a row: what may leave the house.
    """

    def __init__(self, message: str, *, brief: str = "") -> None:
        super().__init__(message)
        self.brief = brief


class DamagedRecord(DataContractError):
    """A record of the store cannot be read, or says what cannot be: it is damaged, incomplete or another's."""


class ParityError(DataContractError):
    """The online store serves something else than the offline tables hold."""


class TooLittleHistory(DataContractError):
    """The days so far do not suffice for what was asked; more of them come with time."""


class GateFailed(WindsockError):
    """A candidate was judged and did not pass."""

    exit_code: ClassVar[int] = 65


class UpstreamUnavailable(WindsockError):
    """A service or a store could not be reached, or gave way to another writer."""

    exit_code: ClassVar[int] = 75


class NotReady(UpstreamUnavailable):
    """Something this step needs does not exist yet; ask again later.

    ``days`` of the ledger ``stage``, if given, are all that it waits for: who waits may look for them alone.
    """

    def __init__(self, message: str, *, stage: str = "", days: Iterable[date] = ()) -> None:
        super().__init__(message)
        self.stage, self.days = stage, tuple(days)


class ChampionChanged(UpstreamUnavailable):
    """The champion is no longer the one this candidate was compared with."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, or nothing."""
    near = get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def listed(names: Iterable[object], most: int = 10) -> str:
    """Write names for a message, ten of them at most: ``a, b, c and 4 more``."""
    given = [str(name) for name in names]
    some = ", ".join(given[:most])
    return f"{some} and {len(given) - most} more" if len(given) > most else some
