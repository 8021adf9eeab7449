"""A trained model as the rest of Windsock sees it, and how a model folder is loaded.

A model folder holds ``model.json``, the card: its format, the task, the inputs. Each
format (``formats``) keeps the rest in a file that can be loaded without running code
that somebody put into it: never a pickle.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from windsock.errors import DataContractError
from windsock.served.matrix import Feature

if TYPE_CHECKING:
    import pyarrow as pa

MODEL_CARD = "model.json"
FORMATS: Mapping[str, str] = {
    "windsock-lightgbm/1": "windsock.served.formats.lightgbm",
    "windsock-torch/1": "windsock.served.formats.torch",
    "windsock-linear/1": "windsock.served.formats.linear",
}
"""Format on the card to the module whose ``read`` loads it."""

Task = Literal["binary", "regression"]


class Model(Protocol):
    """A trained model that can predict."""

    @property
    def task(self) -> Task:
        """What the scores are."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """Inputs in model order."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs in model order."""

    def predict(self, frame: pa.Table) -> npt.NDArray[np.float64]:
        """Score rows.

        Args:
            frame: Rows with every feature as a column, in any order of columns.

        Returns:
            Probability of 1 (binary) or the label's expected value (regression), shape ``(rows,)``.

        Raises:
            DataContractError: A feature is missing.
        """

    def files(self) -> dict[str, bytes]:
        """Return the model folder: file name to bytes."""


def threads() -> int:
    """Return how many threads a model may use (``WINDSOCK_THREADS``, default 2)."""
    return max(1, int(os.environ.get("WINDSOCK_THREADS") or 2))


def load(folder: str | Path) -> Model:
    """Load a model from a folder, local or any fsspec URL.

    Raises:
        DataContractError: The folder holds no such model, or something else under its name.
    """
    import fsspec

    fs, root = fsspec.core.url_to_fs(str(folder))
    try:
        raw = bytes(fs.cat_file(f"{root}/{MODEL_CARD}"))
    except FileNotFoundError as err:
        raise absent(str(folder), fs, root, MODEL_CARD) from err
    try:
        card = json.loads(raw)
        inputs = tuple(Feature.from_json(f) for f in card["features"])
        task = {"binary": "binary", "regression": "regression"}[card["task"]]
        form = str(card["format"])
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise DataContractError(f"{folder}/{MODEL_CARD}: does not describe a model's inputs: {err!r}.") from err
    if form not in FORMATS:
        raise DataContractError(
            f"{folder}/{MODEL_CARD}: is of format {form!r}, but this version of Windsock reads {', '.join(FORMATS)}."
        )
    model: Model = importlib.import_module(FORMATS[form]).read(str(folder), fs, root, card, task, inputs)
    return model


def absent(folder: str, fs: Any, root: str, name: str) -> DataContractError:
    """Say that a model folder lacks a file, and what it holds instead."""
    present = sorted(str(p).rsplit("/", 1)[-1] for p in fs.ls(root, detail=False)) if fs.exists(root) else []
    return DataContractError(
        f"{folder}: is no model: it lacks {name} (it holds: {', '.join(present) or 'nothing'}). Windsock loads "
        "LightGBM's own text, PyTorch's pt2 and plain JSON, never a pickle, since that would run whatever it contains."
    )
