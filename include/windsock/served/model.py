"""A trained model as the rest of Windsock sees it, and how a model folder is loaded.

A model folder holds ``model.json``, the card: its format, the task, the inputs. Each format (``formats``) keeps the
rest in a file that can be loaded without running code that somebody put into it: never a pickle. A model that a
stranger made is loaded by :mod:`windsock.served.first_load` first.
"""

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from windsock.errors import DataContractError, SpecError, did_you_mean
from windsock.faults import file_system
from windsock.served.matrix import Feature, to_matrix
from windsock.store import to_json

MODEL_CARD = "model.json"
FORMATS: Mapping[str, tuple[str, str]] = {
    "windsock-lightgbm/1": ("lightgbm", "model.txt"),
    "windsock-network/1": ("network", "model.safetensors"),
    "windsock-torch/1": ("torch", "model.pt2"),
    "windsock-onnx/1": ("onnx", "model.onnx"),
    "windsock-linear/1": ("linear", MODEL_CARD),
}
"""Format on the card to the module of ``formats`` that reads it, and the file that it reads."""

ROWS_AT_ONCE = 1 << 15
"""Rows that are scored in one go: memory grows with them."""
_MOST_CARD_BYTES = 32 << 20
_MOST_CARD_LEVELS = 8
_KINDS = {str: "texts", bool: "flags", int: "numbers", float: "numbers"}

Task = Literal["binary", "regression"]
Floats = npt.NDArray[np.float64]
Scorer = Callable[[Floats], Any]
"""From a matrix, shape ``(rows, features)``, to a score per row, shape ``(rows,)``."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model that can predict."""

    content: Mapping[str, bytes]
    """The model folder: file name to bytes."""
    task: Task
    features: tuple[Feature, ...]
    """Inputs in model order."""
    engine: Any
    """What computes: LightGBM's booster, a PyTorch module, onnxruntime's session."""
    scorer: Scorer

    @property
    def tolerance(self) -> float:
        """Largest difference of a score on other machines and libraries, in shares of the score where it is above 1.

        Networks compute in 32 bits: another BLAS, or number of threads, moves their last digits.
        """
        return 1e-9 if {"model.txt", MODEL_CARD} >= set(self.content) else 1e-6

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs in model order."""
        return tuple(f.name for f in self.features)

    def predict(self, frame: pa.Table) -> Floats:
        """Return the probability of 1 (binary) or the label's expected value (regression), shape ``(rows,)``.

        Raises:
            DataContractError: A feature is missing.
        """
        return scored(self.scorer, to_matrix(frame, self.features))


def scored(scorer: Scorer, x: Floats) -> Floats:
    """Score a matrix some rows at a time; ``x`` has shape ``(rows, features)``, the result ``(rows,)``."""
    parts = [scorer(x[start : start + ROWS_AT_ONCE]) for start in range(0, len(x), ROWS_AT_ONCE)]
    return np.concatenate([np.empty(0), *parts]).astype(np.float64, copy=False)


def largest_difference(recorded: Floats, now: Floats) -> float:
    """Return how far scores are from recorded ones at most, in shares of the score where that is above 1."""
    return float(np.max(np.abs(recorded - now) / np.maximum(1.0, np.abs(recorded)), initial=0.0))


def usable_scores(model: Model, task: Task, rows: pa.Table, what: str) -> Floats:
    """Return a model's scores of rows, shape ``(rows,)``, once each is one for this task; ``what`` names the rows.

    Raises:
        DataContractError: A score is no probability (binary) or no finite number.
    """
    scores = model.predict(rows)
    usable = np.isfinite(scores)
    if task == "binary":
        usable &= (scores >= 0) & (scores <= 1)
    if scores.shape != (rows.num_rows,) or not usable.all():
        wanted = "a probability from 0 to 1" if task == "binary" else "a finite number"
        raise DataContractError(
            f"{rows.num_rows - int(usable.sum())} of {rows.num_rows} {what} get no usable score (for example "
            f"{', '.join(map(repr, scores[~usable][:1].tolist()))}); {wanted} is wanted for each. Look at the model "
            "file and at the trainer's log."
        )
    return scores


def threads() -> int:
    """Return how many threads a model may use (``WINDSOCK_THREADS``, default 2).

    Raises:
        SpecError: It is no number.
    """
    given = os.environ.get("WINDSOCK_THREADS") or "2"
    if not given.isdecimal():
        raise SpecError(f"WINDSOCK_THREADS is {given!r}. Give a whole number of threads, for example 2.")
    return max(1, int(given))


def load(folder: str | Path) -> Model:
    """Load a model from a folder, local or any fsspec URL.

    Raises:
        DataContractError: The folder holds no such model, or something else under its name.
    """
    fs, root = file_system(str(folder))

    def read(name: str) -> bytes:
        try:
            return bytes(fs.cat_file(f"{root}/{name}"))
        except FileNotFoundError as err:
            present = sorted(str(p).rsplit("/", 1)[-1] for p in fs.ls(root, detail=False)) if fs.exists(root) else []
            raise DataContractError(
                f"{folder}: is no model: it lacks {name} (it holds: {', '.join(present) or 'nothing'}). Windsock loads "
                "LightGBM's own text, ONNX, safetensors, PyTorch's pt2 and plain JSON, never a pickle: that would run "
                "whatever it contains."
            ) from err

    return load_files(read, str(folder))


def load_files(read: Callable[[str], bytes], folder: str) -> Model:
    """Load a model whose files ``read`` gives by name; ``folder`` is their place for messages.

    Raises:
        DataContractError: They are no model.
    """
    place = f"{folder}/{MODEL_CARD}"
    card = _read_card(place, read(MODEL_CARD))
    try:
        inputs = tuple(Feature.from_json(f) for f in card["features"])
        task: Task = {"binary": "binary", "regression": "regression"}[card["task"]]  # type: ignore[assignment]
        form = str(card["format"])
    except (KeyError, TypeError, AttributeError) as err:
        raise DataContractError(f"{place}: does not describe a model's inputs: {err!r}.") from err
    if form not in FORMATS:
        raise DataContractError(
            f"{place}: is of format {form!r}, but this version of Windsock reads {', '.join(FORMATS)}."
        )
    _check_inputs(place, inputs)
    # Waiting threads must sleep: spinning ones burn the cores that other tasks need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    module, file = FORMATS[form]
    data = read(file)
    engine, scorer = importlib.import_module(f"windsock.served.formats.{module}").read(folder, data, card, inputs)
    try:
        tried = scored(scorer, np.array([[0.0], [np.nan]]).repeat(len(inputs), axis=1))
        if tried.shape != (2,):
            raise ValueError(f"it gives scores of shape {tried.shape}")
    except Exception as err:
        raise DataContractError(
            f"{folder}/{file}: cannot score two rows of {len(inputs)} features (one of zeros, one without any value): "
            f"{type(err).__name__}: {str(err)[-300:]}. One score per row is wanted, from what model.json names. Fetch "
            "it again, use the library that it was made with, or train the version again."
        ) from err
    return Model({file: data, MODEL_CARD: to_json(card)}, task, inputs, engine, scorer)


def check_fields(place: str, where: str, raw: Mapping[str, Any], known: Sequence[str], form: str) -> None:
    """Raise DataContractError if a part of a card has a field which its format does not know."""
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise DataContractError(
            f"{place}: {where} has the field {unknown[0]!r}, which {form} does not know."
            f"{did_you_mean(unknown[0], known)} Known here: {', '.join(known)}."
        )


def _read_card(place: str, raw: bytes) -> dict[str, Any]:
    """Parse a card that may come from anybody: bounded in size and depth, no field twice."""
    try:
        if len(raw) > _MOST_CARD_BYTES:
            raise ValueError(f"it has {len(raw) >> 20} MiB; at most {_MOST_CARD_BYTES >> 20} are read")
        card = json.loads(raw, object_pairs_hook=_object)
        if _deeper(card, _MOST_CARD_LEVELS):
            raise ValueError(f"it is nested more than {_MOST_CARD_LEVELS} levels deep")
        return dict(card)
    except (ValueError, TypeError, RecursionError) as err:
        raise DataContractError(f"{place}: does not describe a model's inputs: {err}.") from err


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a field is given twice in {str(pairs)[:80]}")
    return found


def _deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 1 or _deeper(v, levels - 1) for v in inner if isinstance(v, dict | list))


def _check_inputs(place: str, inputs: Sequence[Feature]) -> None:
    if not inputs:
        raise DataContractError(f"{place}: lists no input. Give one entry in 'features' per feature of the request.")
    known: set[str] = set()
    for feature in inputs:
        if not isinstance(feature.name, str):
            raise DataContractError(f"{place}: an input is named {feature.name!r}. Name each by its column.")
        if feature.name in known:
            raise DataContractError(f"{place}: the input {feature.name!r} is listed twice. Give each input once.")
        known.add(feature.name)
        if feature.categories is not None:
            _check_categories(place, f"the input {feature.name!r}", feature.categories)


def _check_categories(place: str, where: str, categories: Sequence[Any]) -> None:
    kinds = {_KINDS.get(type(c), type(c).__name__) for c in categories}
    if len(kinds) > 1 or not kinds <= set(_KINDS.values()):
        raise DataContractError(
            f"{place}: the categories of {where} are {', '.join(sorted(kinds))}. Give values of one kind: "
            "texts, numbers or flags, as the column holds them."
        )
    if len(set(categories)) != len(categories):
        raise DataContractError(f"{place}: {where} lists a category twice. Give each value once.")
