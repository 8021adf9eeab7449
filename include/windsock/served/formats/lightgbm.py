"""LightGBM's own text as a model: ``model.txt`` holds the trees, ``model.json`` what to feed them.

Both are plain text, so a model can be read, compared byte by byte and loaded without
trusting whoever wrote it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from windsock.errors import DataContractError
from windsock.served.matrix import Feature, to_matrix
from windsock.served.model import MODEL_CARD, Task, read_file, threads
from windsock.store import to_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "windsock-lightgbm/1"
MODEL_TEXT = "model.txt"
_THREADS = re.compile(r"^\[num_threads: -?\d+\]$", re.MULTILINE)


@dataclass(frozen=True)
class LightGBMModel:
    """Trained trees that can predict; made by the trainer or by :func:`read`."""

    text: str
    """LightGBM's model text, without the number of threads it was trained with."""
    task: Task
    features: tuple[Feature, ...]
    booster: Any

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Inputs in model order."""
        return tuple(f.name for f in self.features)

    def predict(self, frame: pa.Table) -> npt.NDArray[np.float64]:
        """Score rows; see :meth:`windsock.served.model.Model.predict`."""
        if frame.num_rows == 0:
            return np.empty(0, dtype=np.float64)
        scores = self.booster.predict(to_matrix(frame, self.features), num_threads=threads())
        return np.asarray(scores, dtype=np.float64)

    def files(self) -> dict[str, bytes]:
        """Return the artifact: file name to bytes."""
        card = {"format": FORMAT, "task": self.task, "features": [f.to_json() for f in self.features]}
        return {MODEL_TEXT: self.text.encode(), MODEL_CARD: to_json(card)}


def from_booster(booster: Any, task: Task, features: Sequence[Feature], rounds: int | None = None) -> LightGBMModel:
    """Make the artifact of a freshly trained booster; it predicts by the text that is kept."""
    # The text repeats the parameters it was trained with. The trees do not depend on the number of threads
    # (deterministic=true), so the text shall not either.
    text = _THREADS.sub("[num_threads: 0]", booster.model_to_string(num_iteration=rounds))
    return LightGBMModel(text, task, tuple(features), _booster(text))


def read(folder: str, fs: Any, root: str, card: Mapping[str, Any], task: Task, inputs: Sequence[Feature]) -> Any:
    """Read the trees that a card describes.

    Raises:
        DataContractError: The text is absent, damaged or something else.
    """
    raw = read_file(folder, fs, root, MODEL_TEXT)
    if not raw.startswith(b"tree\n"):
        raise DataContractError(
            f"{folder}/{MODEL_TEXT}: is not LightGBM's model text (it starts with {raw[:8]!r}), and pickles are "
            "never loaded. Save it with Booster.save_model, or train the version again."
        )
    text = raw.decode()
    return LightGBMModel(text, task, tuple(inputs), _booster(text))


def _booster(text: str) -> Any:
    # Waiting threads must sleep: spinning ones burn the cores that other tasks need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import lightgbm

    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as err:
        raise DataContractError(f"The model text is damaged: {err}. Fetch or train the version again.") from err
