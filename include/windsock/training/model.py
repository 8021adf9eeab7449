"""The model artifact: LightGBM's own text and a list of inputs, and nothing that could run code.

``model.txt`` holds the trees, ``model.json`` what to feed them. Both are plain text, so a
model can be read, compared byte by byte and loaded without trusting whoever wrote it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from windsock.errors import DataContractError
from windsock.store import to_json
from windsock.training.matrix import Feature, to_matrix

if TYPE_CHECKING:
    import pyarrow as pa

MODEL_TEXT = "model.txt"
MODEL_CARD = "model.json"
_FORMAT = "windsock-lightgbm/1"
_THREADS = re.compile(r"^\[num_threads: -?\d+\]$", re.MULTILINE)


def threads() -> int:
    """Return how many threads LightGBM may use (``WINDSOCK_THREADS``, default 2)."""
    return max(1, int(os.environ.get("WINDSOCK_THREADS") or 2))


@dataclass(frozen=True)
class Model:
    """A trained model that can predict; made by the trainer or by :func:`load`."""

    text: str
    """LightGBM's model text, without the number of threads it was trained with."""
    task: Literal["binary", "regression"]
    features: tuple[Feature, ...]
    booster: Any

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Inputs in model order."""
        return tuple(f.name for f in self.features)

    def predict(self, frame: pa.Table) -> npt.NDArray[np.float64]:
        """Score rows.

        Args:
            frame: Rows with every feature as a column, in any order of columns.

        Returns:
            Probability of 1 (binary) or the label's expected value (regression), shape ``(rows,)``.

        Raises:
            DataContractError: A feature is missing.
        """
        if frame.num_rows == 0:
            return np.empty(0, dtype=np.float64)
        scores = self.booster.predict(to_matrix(frame, self.features), num_threads=threads())
        return np.asarray(scores, dtype=np.float64)

    def files(self) -> dict[str, bytes]:
        """Return the artifact: file name to bytes."""
        card = {
            "format": _FORMAT,
            "task": self.task,
            "features": [f.to_json() for f in self.features],
        }
        return {MODEL_TEXT: self.text.encode(), MODEL_CARD: to_json(card)}


def from_booster(booster: Any, task: Literal["binary", "regression"], features: Sequence[Feature]) -> Model:
    """Make the artifact of a freshly trained booster; it predicts by the text that is kept."""
    # The text repeats the parameters it was trained with. The trees do not depend on the number of threads
    # (deterministic=true), so the text shall not either.
    text = _THREADS.sub("[num_threads: 0]", booster.model_to_string())
    return Model(text, task, tuple(features), _booster(text))


def load(folder: str | Path) -> Model:
    """Load a model from a folder, local or any fsspec URL.

    Raises:
        DataContractError: The folder holds no such model, or something else under its name.
    """
    import fsspec

    fs, root = fsspec.core.url_to_fs(str(folder))
    try:
        raw_text, raw_card = (bytes(fs.cat_file(f"{root}/{name}")) for name in (MODEL_TEXT, MODEL_CARD))
    except FileNotFoundError as err:
        present = sorted(str(p).rsplit("/", 1)[-1] for p in fs.ls(root, detail=False)) if fs.exists(root) else []
        raise DataContractError(
            f"{folder}: is no model: it lacks {MODEL_TEXT} or {MODEL_CARD} (it holds: {', '.join(present) or 'nothing'}"
            "). Windsock loads LightGBM's own text only, never a pickle, since that would run whatever it contains."
        ) from err
    if not raw_text.startswith(b"tree\n"):
        raise DataContractError(
            f"{folder}/{MODEL_TEXT}: is not LightGBM's model text (it starts with {raw_text[:8]!r}), and pickles are "
            "never loaded. Save it with Booster.save_model, or train the version again."
        )
    try:
        card = json.loads(raw_card)
        features = tuple(Feature.from_json(f) for f in card["features"])
        task = card["task"]
    except (ValueError, KeyError, TypeError) as err:
        raise DataContractError(f"{folder}/{MODEL_CARD}: does not describe a model's inputs: {err!r}.") from err
    if card.get("format") != _FORMAT:
        raise DataContractError(
            f"{folder}/{MODEL_CARD}: is of format {card.get('format')!r}, but this version of Windsock reads {_FORMAT}."
        )
    text = raw_text.decode()
    return Model(text, task, features, _booster(text))


def _booster(text: str) -> Any:
    # Waiting threads must sleep: spinning ones burn the cores that other tasks need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import lightgbm

    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as err:
        raise DataContractError(f"The model text is damaged: {err}. Fetch or train the version again.") from err
