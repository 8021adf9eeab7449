"""An ONNX graph as a model: ``model.onnx`` beside the card, run by onnxruntime.

It is the format for everybody else's models: what scikit-learn, XGBoost, CatBoost and PyTorch convert to. The card says
how the matrix of :func:`windsock.served.matrix.to_matrix` goes in (``input``: float32 or float64; trees compare in
float32, so their graphs take that) and what comes out (``output`` by name; ``column`` of it, or null for one score per
row). What a graph may contain is in :mod:`windsock.served.formats.onnx_graph`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from windsock.errors import DataContractError
from windsock.served.formats.onnx_graph import checked
from windsock.served.matrix import Feature
from windsock.served.model import MODEL_CARD, Floats, Scorer, Task, check_fields, threads
from windsock.store import to_json

FORMAT = "windsock-onnx/1"
MODEL_FILE = "model.onnx"
_CARD = ("format", "task", "features", "input", "output", "column")


def card_of(task: Task, features: Sequence[Feature], *, input: str, output: str, column: int | None = None) -> bytes:
    """Return ``model.json`` of a graph that takes ``input`` (``float32`` or ``float64``); see the module."""
    inputs = [f.to_json() for f in features]
    return to_json(
        {"format": FORMAT, "task": task, "features": inputs, "input": input, "output": output, "column": column}
    )


def read(folder: str, data: bytes, card: Mapping[str, Any], inputs: Sequence[Feature]) -> tuple[Any, Scorer]:
    """Read the graph that a card describes.

    Raises:
        DataContractError: The graph is damaged, refused, or does not fit the card.
    """
    check_fields(f"{folder}/{MODEL_CARD}", "the card", card, _CARD, FORMAT)
    where = f"{folder}/{MODEL_FILE}"
    graph = checked(data, where)
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
    session = _session(data, where)

    def scores(x: Floats) -> Any:
        # A number beyond float32 becomes infinite, as it does in the libraries whose trees compare in float32.
        with np.errstate(over="ignore"):
            rows = x.astype(graph.input_type)
        (found,) = session.run([output], {graph.input: rows})
        return (found if column is None else found[:, column]).reshape(len(x))

    return session, scores


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
