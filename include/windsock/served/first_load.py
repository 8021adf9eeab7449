"""The first load of a model that a stranger made: in a process of its own, with limits.

Formats refuse what could run code, but the libraries behind them are large programs: a file may
still crash one, keep it busy for ever or make it ask for more memory than there is. So a child
(this module as a program) loads the model and scores rows first; whatever happens to it becomes a
sentence. A model that came through is then known by its hash, and loaded like any other.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import windsock
from windsock.errors import DataContractError, WindsockError
from windsock.faults import file_system
from windsock.served.matrix import Feature
from windsock.served.model import ROWS_AT_ONCE, Model, load

_MOST_FILES = 8
_KEPT_VARIABLES = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "OMP_WAIT_POLICY", "OMP_NUM_THREADS",
                   "WINDSOCK_THREADS")  # fmt: skip
"""What the child gets of the environment: no credential among them."""
_MOST_MEMORY_BYTES = 4 << 30
_WALL_S = 600


def load_untrusted(folder: str, *, cpu_s: int = 120, file_bytes: int = 512 << 20) -> Model:
    """Load a model that Windsock did not make, from a folder, local or any fsspec URL.

    It is read once: what the child tried is what is loaded. The child may take ``cpu_s`` seconds of CPU to load it and
    score some rows; all files together may have ``file_bytes``.

    Raises:
        DataContractError: It is no model, or loading it failed, crashed, hung or took more than the limits allow.
    """
    with tempfile.TemporaryDirectory(prefix="windsock-first-load-") as scratch:
        copy, message = Path(scratch, "model"), Path(scratch, "message")
        copy.mkdir()
        message.touch()
        _copy(folder, copy, file_bytes)
        program = [sys.executable, "-P", "-m", "windsock.served.first_load", str(copy), str(message), str(cpu_s)]
        env = {name: value for name in _KEPT_VARIABLES if (value := os.environ.get(name)) is not None}
        env["PYTHONPATH"] = str(Path(windsock.__file__).parents[1])
        try:
            # What a library prints about a damaged file may hold anything; only our own sentence is read.
            code = subprocess.run(
                program, env=env, cwd=scratch, timeout=_WALL_S, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = -signal.SIGXCPU
        reason = message.read_text(errors="replace") or _how_it_ended(code, cpu_s)
        if code == DataContractError.exit_code:
            raise DataContractError(reason.replace(str(copy), folder))
        if code:
            raise DataContractError(
                f"{folder}: is refused: {reason} when a process of its own loaded it and scored {ROWS_AT_ONCE} rows. "
                "It is damaged, far too large, or made to do harm. Look at what wrote it, and train again."
            )
        return load(copy)


def _how_it_ended(code: int, cpu_s: int) -> str:
    if code == -signal.SIGXCPU:
        return f"it took more than {cpu_s} s of CPU or {_WALL_S} s"
    if code == -signal.SIGKILL:
        return "the system killed it, as it does when memory runs out,"
    return f"its library crashed ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


def _copy(folder: str, copy: Path, most: int) -> None:
    fs, root = file_system(folder)
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
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for feature in features:
        missing = rng.random(count) < 0.1
        if feature.categories:
            picked = pa.array(rng.integers(0, len(feature.categories), count), mask=missing)
            columns[feature.name] = pa.array(feature.categories).take(picked)
        else:
            columns[feature.name] = pa.array(rng.normal(size=count), mask=missing)
    return pa.table(columns)


def main(folder: str, message: str, cpu_s: str) -> int:
    """Load a model and score rows, within limits; say in a file what went wrong."""
    # Private memory, not the address space: mapped libraries, gigabytes with CUDA, are no trouble.
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 5))
    with suppress(OSError):  # where memory runs out all the same, this process is the one to end
        Path("/proc/self/oom_score_adj").write_text("1000")
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
