"""What a plan compares with: the models as git has them at a revision, or the definitions of the champion.

Git is asked through its own program, and asked only: ``git archive`` hands out a folder as it was, without touching
index or work tree.
"""

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from windsock.errors import SpecError
from windsock.spec import find_specs

_TIMEOUT_S = 60


@dataclass(frozen=True)
class Revision:
    """The models as they were."""

    said: str
    """The revision in words; empty: git could not be asked."""
    specs: dict[str, Path] = field(default_factory=dict)
    """Model to its ``model.yaml`` in a folder that lives as long as the revision is open."""
    why_not: str = ""
    """Why git could not be asked."""


CHAMPION = "champion"
"""Asked for as a revision: no revision, but the definitions of each model's champion."""


@contextmanager
def revision(folders: Sequence[Path], against: str | None) -> Iterator[Revision]:
    """Open the models of some folders as they were at a revision; None: at ``HEAD``, where git can be asked.

    ``champion`` is none (a branch of that name is ``refs/heads/champion``): git is not asked at all.

    Raises:
        SpecError: A revision is asked for by name, and there is no git, no checkout, or no such revision.
    """
    if against == CHAMPION:
        yield Revision("")
        return
    rev, told, why_not = against or "HEAD", list[str](), ""
    specs: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="windsock-plan-") as scratch:
        for n, folder in enumerate(folders):
            if not folder.is_dir():
                continue
            try:
                commit = (
                    _git(folder, "rev-parse", "--verify", "--quiet", "--short", f"{rev}^{{commit}}").decode().strip()
                )
            except OSError as err:
                why_not = str(err)
                continue
            told.append(commit)
            if _exists(folder, f"{commit}:./"):
                target = Path(scratch) / str(n)
                with tarfile.open(fileobj=io.BytesIO(_git(folder, "archive", "--format=tar", commit, "."))) as archive:
                    archive.extractall(target, filter="data")
                specs |= find_specs([target])
        if told:
            yield Revision(rev if told[0] == rev else f"{rev} ({told[0]})", specs)
        elif against is not None:
            raise SpecError(
                f"--against {against}: {why_not or 'there is no folder of models'}. Name a commit, branch or tag that "
                "'git log' knows here (in CI, fetch it first), or leave --against out to compare with the champion."
            )
        else:
            yield Revision("", why_not=why_not)


def _git(folder: Path, *arguments: str) -> bytes:
    """Return what git prints.

    Raises:
        OSError: There is no git, or it refuses; the message says why.
    """
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError as err:
        raise OSError("there is no git on this machine") from err
    except subprocess.TimeoutExpired as err:
        raise OSError(f"git did not answer within {_TIMEOUT_S} s") from err
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()).removeprefix("fatal: ")
        raise OSError(said or f"{folder} is in a git checkout, which has no such revision")
    return done.stdout


def _exists(folder: Path, thing: str) -> bool:
    try:
        _git(folder, "rev-parse", "--verify", "--quiet", thing)
    except OSError:
        return False
    return True
