from pathlib import Path

import pytest

from training_world import make_world
from windsock.settings import Settings
from windsock.spec import ModelSpec


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings, ModelSpec]:
    """A small world that is ready to be trained on; tests must not change it."""
    home = tmp_path_factory.mktemp("world")
    settings, spec = make_world(home)
    return home, settings, spec
