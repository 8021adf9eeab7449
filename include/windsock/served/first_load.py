"""The first load of a model that a stranger made: in a process of its own, with limits.

Formats refuse what could run code, but the libraries behind them are large programs: a file may
still crash one, keep it busy for ever or make it ask for more memory than there is. So a child
loads the model and scores rows first; whatever happens to it becomes a sentence. A model that
came through is then known by its hash, and loaded like any other.

The child is this module as a program: ``python -m windsock.served.first_load FOLDER MESSAGE``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import windsock
from windsock.errors import DataContractError, WindsockError
from windsock.served.model import ROWS_AT_ONCE, Model, load

if TYPE_CHECKING:
    import pyarrow as pa

    from windsock.served.matrix import Feature

_MOST_FILES = 8
_KEPT_VARIABLES = (
    "PATH",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "OMP_WAIT_POLICY",
    "OMP_NUM_THREADS",
    "WINDSOCK_THREADS",
)
"""What the child gets of the environment: no credential among them."""


@dataclass(frozen=True)
class Limits:
    """What loading a model and scoring some rows may take."""

    memory_bytes: int = 4 << 30
    file_bytes: int = 512 << 20
    """Of all files of the model together."""
    cpu_seconds: int = 120
    wall_seconds: int = 600


def load_untrusted(folder: str, limits: Limits | None = None) -> Model:
    """Load a model that Windsock did not make.

    Args:
        folder: The model folder, local or any fsspec URL. It is read once: what the child tried is what is loaded.
        limits: Default: generous for an honest model.

    Raises:
        DataContractError: It is no model, or loading it failed, crashed, hung or took more than the limits allow.
    """
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="windsock-first-load-") as place:
        copy, message = Path(place, "model"), Path(place, "message")
        copy.mkdir()
        _copy(folder, copy, limits.file_bytes)
        program = [sys.executable, "-P", "-m", "windsock.served.first_load", str(copy), str(message)]
        given = [str(limits.memory_bytes), str(limits.cpu_seconds)]
        env = {name: value for name in _KEPT_VARIABLES if (value := os.environ.get(name)) is not None}
        env["PYTHONPATH"] = str(Path(windsock.__file__).parents[1])
        try:
            # What a library prints about a damaged file may hold anything; only our own sentence is read.
            code = subprocess.run(
                [*program, *given], env=env, cwd=place, timeout=limits.wall_seconds, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = -signal.SIGXCPU
        said = message.read_text(errors="replace") if message.exists() else ""
        if code == DataContractError.exit_code:
            raise DataContractError(said.replace(str(copy), folder))
        if code:
            raise DataContractError(
                f"{folder}: is refused: {_what_happened(code, said, limits)} when a process of its own loaded it and "
                f"scored {ROWS_AT_ONCE} rows. It is damaged, far too large, or made to do harm. Look at what wrote it, "
                "and train again."
            )
        return load(copy)


def _what_happened(code: int, said: str, limits: Limits) -> str:
    if said:
        return said
    if code == -signal.SIGXCPU:
        return f"it took more than {limits.cpu_seconds} s of CPU or {limits.wall_seconds} s"
    if code == -signal.SIGKILL:
        return "the system killed it, as it does when memory runs out,"
    return f"its library crashed ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


def _copy(folder: str, copy: Path, most: int) -> None:
    import fsspec

    fs, root = fsspec.core.url_to_fs(folder)
    files = [f for f in fs.ls(root, detail=True) if f["type"] == "file"] if fs.exists(root) else []
    size = sum(f["size"] or 0 for f in files)
    if len(files) > _MOST_FILES or size > most:
        raise DataContractError(
            f"{folder}: holds {len(files)} files of {size >> 20} MiB; a model may have {_MOST_FILES} of {most >> 20} "
            "MiB together. Leave only model.json and what its format needs, or train a smaller model."
        )
    for file in files:
        (copy / file["name"].rsplit("/", 1)[-1]).write_bytes(fs.cat_file(file["name"]))


def rows_like(features: tuple[Feature, ...], count: int, seed: int = 0) -> pa.Table:
    """Return random rows that a model takes: normal numbers, known categories, one value in ten missing."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for feature in features:
        missing = rng.random(count) < 0.1
        if feature.categories:
            place = pa.array(rng.integers(0, len(feature.categories), count), mask=missing)
            columns[feature.name] = pa.array(feature.categories).take(place)
        else:
            columns[feature.name] = pa.array(rng.normal(size=count), mask=missing)
    return pa.table(columns)


def _limit(memory_bytes: int, cpu_seconds: int) -> None:
    import resource

    # Private memory, not the address space: mapped libraries, gigabytes with CUDA, are no trouble.
    for what, most in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    with suppress(OSError):  # where memory runs out all the same, this process is the one to end
        Path("/proc/self/oom_score_adj").write_text("1000")


def main(folder: str, message: str, memory_bytes: str, cpu_seconds: str) -> int:
    """Load a model and score rows; say in a file what went wrong."""
    _limit(int(memory_bytes), int(cpu_seconds))
    try:
        model = load(folder)
        model.predict(rows_like(model.features, ROWS_AT_ONCE))
    except WindsockError as err:
        Path(message).write_text(str(err))
        return DataContractError.exit_code
    except BaseException as err:
        Path(message).write_text(f"{type(err).__name__}: {str(err)[:300]}")
        return 1
    return 0


if __name__ == "__main__":
    # Without the interpreter's own end: libraries' threads and destructors have nothing to do any more.
    os._exit(main(*sys.argv[1:]))
