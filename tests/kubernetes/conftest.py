"""What the tests on a cluster share: its namespace, the trainer's image, one stack whose training runs in pods."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, open_cluster
from cluster_stack import ClusterStack, start_cluster_stack
from pod_world import World, pod_world, python_image

from built_images import LONGEST_BUILD_SECONDS, given_image, image_name, load_into_cluster, variable

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [place for place, item in enumerate(items) if item.path.is_relative_to(HERE)]
    for place in places:
        items[place].add_marker(pytest.mark.kubernetes)
        # The first test that asks for the image may have to wait until it is built.
        items[place].add_marker(pytest.mark.timeout(LONGEST_BUILD_SECONDS + 600))
    # Those that share the stack come last: it does not stand idle while others have stacks of their own.
    ours = sorted((items[place] for place in places), key=lambda i: "cluster_stack" in getattr(i, "fixturenames", ()))
    for place, item in zip(places, ours, strict=True):
        items[place] = item


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """A namespace on the cluster that KUBECONFIG names; skips where there is none."""
    opened = open_cluster()
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="package")
def trainer_image(cluster: Cluster) -> str:
    """The image built from docker/trainer.Dockerfile, on the node."""
    return _on_the_node(cluster, "trainer")


@pytest.fixture(scope="package")
def airflow_image(cluster: Cluster) -> str:
    """The image built from docker/airflow.Dockerfile, on the node."""
    return _on_the_node(cluster, "airflow")


def _on_the_node(cluster: Cluster, which: str) -> str:
    if given := given_image(which):
        assert cluster.can_run(given, pull="IfNotPresent"), f"the cluster cannot run {given}: {variable(which)}"
        return given
    name = image_name(which)
    if not cluster.can_run(name):
        load_into_cluster(which)
        assert cluster.can_run(name), f"{name} was built, but the cluster cannot run it"
    return name


@pytest.fixture(scope="package")
def cluster_stack(cluster: Cluster, trainer_image: str) -> Iterator[ClusterStack]:
    """A stack whose training runs in pods, with days to train on."""
    running = start_cluster_stack(cluster, trainer_image)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="package")
def pods(cluster: Cluster) -> Iterator[World]:
    """A stack whose trainers misbehave on purpose, each in its own way."""
    image = python_image(cluster)
    if image is None or not cluster.can_run(image, pull="IfNotPresent"):
        pytest.skip("no node has an image with python3; name one in WINDSOCK_TEST_PYTHON_IMAGE")
    with pod_world(cluster, image) as world:
        yield world
