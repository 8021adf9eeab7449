from datetime import timedelta
from pathlib import Path

import pytest

from churn_model import DAY, Churn, delivery
from training_world import make_world
from windsock.settings import Settings
from windsock.spec import ModelSpec


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings, ModelSpec]:
    """A small world that is ready to be trained on; tests must not change it."""
    home = tmp_path_factory.mktemp("world")
    settings, spec = make_world(home)
    return home, settings, spec


@pytest.fixture(scope="session")
def churn_days(tmp_path_factory: pytest.TempPathFactory) -> Churn:
    """Twelve days of the churn model with their features; tests must not change it."""
    churn = Churn.make(tmp_path_factory.mktemp("churn"))
    for day in (DAY + timedelta(days=n) for n in range(12)):
        churn.ingest(delivery(day), day)
        churn.step("features", day)
    return churn
