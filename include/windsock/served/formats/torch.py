"""PyTorch's exported program as a model: ``model.pt2`` holds graph and weights, ``model.json`` what to feed it.

Windsock 0.1 kept its networks so, and trainers of others may still hand one in (ONNX is
better). The program takes the matrix of :func:`windsock.served.matrix.to_matrix` (float64, NaN
is missing, a category is its value's position) and gives a score per row. It is read and
evaluated by :mod:`windsock.served.formats.pt2`; a pickle is never loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from windsock.errors import DataContractError
from windsock.served.formats.network import scored
from windsock.served.formats.pt2 import program_of
from windsock.served.matrix import Feature, to_matrix
from windsock.served.model import MODEL_CARD, Task, read_file
from windsock.store import to_json

if TYPE_CHECKING:
    import pyarrow as pa

MODEL_FILE = "model.pt2"


@dataclass(frozen=True)
class TorchModel:
    """A trained network that can predict; made by :func:`read`."""

    program: bytes
    """Content of ``model.pt2``."""
    card: bytes
    """Content of ``model.json``."""
    task: Task
    features: tuple[Feature, ...]
    module: Any
    """The program, ready to be called."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Inputs in model order."""
        return tuple(f.name for f in self.features)

    def predict(self, frame: pa.Table) -> npt.NDArray[np.float64]:
        """Score rows; see :meth:`windsock.served.model.Model.predict`."""
        return scored(self.module, to_matrix(frame, self.features))

    def files(self) -> dict[str, bytes]:
        """Return the artifact: file name to bytes."""
        return {MODEL_FILE: self.program, MODEL_CARD: self.card}


def read(folder: str, fs: Any, root: str, card: Mapping[str, Any], task: Task, inputs: Sequence[Feature]) -> TorchModel:
    """Read the program that a card describes.

    Raises:
        DataContractError: The program is absent, damaged, something else, or could run code.
    """
    raw = read_file(folder, fs, root, MODEL_FILE)
    where = f"{folder}/{MODEL_FILE}"
    # Waiting threads must sleep: spinning ones burn the cores that other tasks need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    module = program_of(raw, where)
    try:
        tried = scored(module, np.full((2, len(inputs)), np.nan))
    except Exception as err:
        raise DataContractError(
            f"{where}: PyTorch {torch.__version__} cannot run it on rows of {len(inputs)} features: "
            f"{type(err).__name__}: {str(err)[:300]}. Fetch it again, use the PyTorch it was made with, or train the "
            "version again."
        ) from err
    if tried.shape != (2,):
        raise DataContractError(
            f"{where}: gives scores of shape {tried.shape} for 2 rows; one score per row, shape (2,), is needed."
        )
    return TorchModel(raw, to_json(dict(card)), task, tuple(inputs), module)
