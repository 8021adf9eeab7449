"""An ONNX graph as a model: ``model.onnx`` beside the card, run by onnxruntime.

It is the format for everybody else's models: what scikit-learn, XGBoost, CatBoost and PyTorch
convert to. The card says how the matrix of :func:`windsock.served.matrix.to_matrix` goes in
(``input``: float32 or float64; trees compare in float32, so their graphs take that) and what
comes out (``output`` by name; ``column`` of it, or null for one score per row). What a graph
may contain is in :mod:`windsock.served.formats.onnx_graph`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from windsock.errors import DataContractError
from windsock.served.formats.onnx_graph import checked
from windsock.served.matrix import Feature, to_matrix
from windsock.served.model import MODEL_CARD, ROWS_AT_ONCE, Task, check_fields, read_file, threads
from windsock.store import to_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "windsock-onnx/1"
MODEL_FILE = "model.onnx"
_CARD = ("format", "task", "features", "input", "output", "column")


@dataclass(frozen=True)
class OnnxModel:
    """A graph that can predict; made by :func:`read`."""

    graph: bytes
    """Content of ``model.onnx``."""
    card: bytes
    """Content of ``model.json``."""
    task: Task
    features: tuple[Feature, ...]
    session: Any
    input_type: str
    output: str
    column: int | None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Inputs in model order."""
        return tuple(f.name for f in self.features)

    def predict(self, frame: pa.Table) -> npt.NDArray[np.float64]:
        """Score rows; see :meth:`windsock.served.model.Model.predict`."""
        return self.scores(to_matrix(frame, self.features))

    def scores(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Score a matrix of shape ``(rows, features)``, some rows at a time."""
        name = self.session.get_inputs()[0].name
        # A number beyond float32 becomes infinite, as it does in the libraries whose trees compare in float32.
        with np.errstate(over="ignore"):
            inputs = x.astype(self.input_type)
        parts = [np.empty(0)]
        for start in range(0, len(inputs), ROWS_AT_ONCE):
            (given,) = self.session.run([self.output], {name: inputs[start : start + ROWS_AT_ONCE]})
            parts.append(given if self.column is None else given[:, self.column])
        return np.concatenate([part.reshape(len(part)) for part in parts]).astype(np.float64)

    def files(self) -> dict[str, bytes]:
        """Return the model folder: file name to bytes."""
        return {MODEL_FILE: self.graph, MODEL_CARD: self.card}


def card_of(task: Task, features: Sequence[Feature], *, input: str, output: str, column: int | None = None) -> bytes:
    """Return ``model.json`` of a graph.

    Args:
        task: What the scores are.
        features: Inputs in model order.
        input: ``float32`` or ``float64``, what the graph takes.
        output: Name of the graph's output that holds the scores.
        column: Which column of it, such as 1 for ``probabilities``; None: it holds one score per row.
    """
    inputs = [f.to_json() for f in features]
    return to_json(
        {"format": FORMAT, "task": task, "features": inputs, "input": input, "output": output, "column": column}
    )


def read(folder: str, fs: Any, root: str, card: Mapping[str, Any], task: Task, inputs: Sequence[Feature]) -> OnnxModel:
    """Read the graph that a card describes.

    Raises:
        DataContractError: The graph is absent, damaged, refused, or does not fit the card.
    """
    check_fields(f"{folder}/{MODEL_CARD}", "the card", card, _CARD, FORMAT)
    raw = read_file(folder, fs, root, MODEL_FILE)
    where = f"{folder}/{MODEL_FILE}"
    graph = checked(raw, where)
    output, column = card.get("output"), card.get("column")
    if card.get("input") != graph.input_type or graph.width not in (None, len(inputs)):
        raise DataContractError(
            f"{where}: takes {graph.width} columns of {graph.input_type}, but model.json lists {len(inputs)} features "
            f"and the input {card.get('input')!r}. Write the card that belongs to this graph."
        )
    if output not in graph.outputs or not (column is None or (type(column) is int and column >= 0)):
        raise DataContractError(
            f"{where}: gives {', '.join(graph.outputs)}, but model.json asks for column {column!r} of {output!r}. "
            "Name an output, and a column (counted from 0) or null."
        )
    model = OnnxModel(
        raw, to_json(dict(card)), task, tuple(inputs), _session(raw, where), graph.input_type, output, column
    )
    try:
        model.scores(np.vstack([np.zeros((1, len(inputs))), np.full((1, len(inputs)), np.nan)]))
    except Exception as err:
        raise DataContractError(
            f"{where}: cannot score two rows of {len(inputs)} features (one of zeros, one without any value): "
            f"{type(err).__name__}: {str(err)[-200:]}. One number per row is wanted from column {column} of {output!r}."
        ) from err
    return model


def _session(raw: bytes, where: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    # Optimisations beyond these depend on the processor, and scores with them.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.enable_cpu_mem_arena = False  # it would keep the most that was ever needed
    options.log_severity_level = 4  # what goes wrong becomes an error message of ours
    # Waiting threads must sleep: spinning ones burn the cores that other tasks need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    except Exception as err:
        raise DataContractError(
            f"{where}: onnxruntime {onnxruntime.__version__} cannot load it: {str(err)[-200:]}. Fetch it again, "
            "convert for an older opset, or train the version again."
        ) from err
