"""What the tests of the installation by Airflow's chart share."""

import pytest

from chart import Render, renderer


@pytest.fixture(scope="session")
def render() -> Render:
    """A function that renders files of docker/helm as Helm does."""
    return renderer()
