"""How many examples a property test tries: ``@examples(60)`` says how many are thorough, and quick runs try a third.

``HYPOTHESIS_PROFILE=thorough`` (``make test-thorough``) tries them all.
"""

import os
from collections.abc import Iterable

from hypothesis import HealthCheck, settings

PROFILE_VARIABLE = "HYPOTHESIS_PROFILE"
QUICK, THOROUGH = "quick", "thorough"
_FEWEST = 5
_HYPOTHESIS_OWN = 100


def thorough() -> bool:
    """Return whether this run takes the time to try everything."""
    return os.environ.get(PROFILE_VARIABLE, QUICK) == THOROUGH


def number_of(most: int) -> int:
    """Return how many of ``most`` examples or trials this run makes: all, or a third, but at least five."""
    return most if thorough() else min(most, max(_FEWEST, most // 3))


def examples(most: int, *, suppress: Iterable[HealthCheck] = ()) -> settings:
    """Return a property test's settings; no example has a deadline, as other tests may keep the cores busy."""
    return settings(max_examples=number_of(most), deadline=None, suppress_health_check=list(suppress))


def load_profile() -> None:
    """Choose the profile for the properties that state no number of examples."""
    settings.register_profile(QUICK, max_examples=number_of(_HYPOTHESIS_OWN), deadline=None)
    settings.register_profile(THOROUGH, max_examples=_HYPOTHESIS_OWN, deadline=None)
    settings.load_profile(THOROUGH if thorough() else QUICK)
