"""The trainer's image on the cluster's node, built from ``docker/trainer.Dockerfile`` once per content.

The tag is a digest of everything that goes into the image, so that a second session finds
it there and an edit makes a new one; only the layers that changed are built.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess

import pytest
from cluster import Cluster

from windsock.settings import REPO_ROOT

VARIABLE = "WINDSOCK_TRAINER_IMAGE"
"""Names an image that the cluster can pull, for clusters that nothing can be loaded into from here."""
LONGEST_BUILD_SECONDS = 1500
_GOES_IN = ("docker/trainer.Dockerfile", "docker/trainer.in", "docker/install.sh", "requirements.txt")


def make_trainer_image(cluster: Cluster) -> str:
    """Return the name of the image, and make sure that the node has it."""
    if given := os.environ.get(VARIABLE):
        assert cluster.can_run(given, pull="IfNotPresent"), f"the cluster cannot run {given}, which {VARIABLE} names"
        return given
    tag = f"test-{content_hash()[:12]}"
    name = f"windsock/trainer:{tag}"
    if cluster.can_run(name):
        return name
    if not (shutil.which("buildah") or docker_answers()):
        pytest.skip(f"no Docker daemon and no buildah to build the trainer's image with; {VARIABLE} can name one")
    done = subprocess.run(
        [str(REPO_ROOT / "scripts" / "images.sh"), "trainer", "--tag", tag, "--cluster"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=LONGEST_BUILD_SECONDS,
    )
    assert done.returncode == 0, f"the trainer's image could not be built:\n{done.stdout[-4000:]}"
    assert cluster.can_run(name), f"{name} was built, but the cluster cannot run it:\n{done.stdout[-2000:]}"
    return name


def docker_answers() -> bool:
    """Say whether there is a Docker daemon to build with."""
    return shutil.which("docker") is not None and not subprocess.run(["docker", "info"], capture_output=True).returncode


def content_hash() -> str:
    """Return a digest of what the image is made from."""
    package = REPO_ROOT / "include" / "windsock"
    files = [REPO_ROOT / name for name in _GOES_IN]
    files += [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(REPO_ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
