"""The project's own images, built from docker/ once per content, and put where a test runs them.

The tag is a digest of everything that goes into an image. The builder's own storage is the
cache: a later session, of whatever checkout, finds the image there, and after an edit only the
layers that changed are built. One session builds at a time, the others wait for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from windsock.settings import REPO_ROOT

LONGEST_BUILD_SECONDS = 1500
IMAGES = ("trainer", "airflow")
_STAYS_OUT = {"__pycache__", "uncommitted"}


def given_image(which: str) -> str | None:
    """Return the image that ``WINDSOCK_TRAINER_IMAGE`` or ``WINDSOCK_AIRFLOW_IMAGE`` names: it is in a registry."""
    return os.environ.get(variable(which)) or None


def variable(which: str) -> str:
    """Return the variable that names an image for clusters that nothing can be loaded into from here."""
    return f"WINDSOCK_{which.upper()}_IMAGE"


def image_name(which: str) -> str:
    """Return the name that an image of today's content has."""
    return f"windsock/{which}:test-{content_hash(which)[:12]}"


def load_into_cluster(which: str) -> str:
    """Build an image unless it is built, put it into the node of the cluster, and return its name."""
    return _images_sh(which, "--cluster")


def load_into_docker(which: str) -> str:
    """Build an image unless it is built, put it into the Docker daemon, and return its name."""
    return _images_sh(which, "--docker")


def docker_answers() -> bool:
    """Say whether there is a Docker daemon."""
    return shutil.which("docker") is not None and not subprocess.run(["docker", "info"], capture_output=True).returncode


def content_hash(which: str) -> str:
    """Return a digest of what an image is made from."""
    digest = hashlib.sha256()
    for path in sorted(goes_in(which)):
        digest.update(f"{path.relative_to(REPO_ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def goes_in(which: str) -> list[Path]:
    """Return the files that a Dockerfile copies, and itself."""
    dockerfile = REPO_ROOT / "docker" / f"{which}.Dockerfile"
    text = dockerfile.read_text(encoding="utf-8").replace("\\\n", " ")
    copied = re.findall(r"^COPY (?!.*--from)(?:--\S+ )*(.+) \S+$", text, re.MULTILINE)
    tops = [dockerfile, *(REPO_ROOT / name for name in {name for names in copied for name in names.split()})]
    found = (path for top in tops for path in ([top] if top.is_file() else top.rglob("*")))
    return [p for p in found if p.is_file() and not _STAYS_OUT & set(p.parts) and ".egg-info" not in str(p)]


def _images_sh(which: str, target: str) -> str:
    name = image_name(which)
    if not (shutil.which("buildah") or docker_answers()):
        pytest.skip(f"no Docker daemon and no buildah to build windsock/{which} with; {variable(which)} can name one")
    with _one_at_a_time():
        done = subprocess.run(
            [str(REPO_ROOT / "scripts" / "images.sh"), which, "--tag", name.partition(":")[2], "--missing", target],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LONGEST_BUILD_SECONDS,
        )
    assert done.returncode == 0, f"the image '{which}' could not be built:\n{done.stdout[-4000:]}"
    return name


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    folder = Path("/var/tmp") / f"windsock-images-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
