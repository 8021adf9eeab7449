"""From a trained module to ``model.onnx``: the whole way from a raw row to its score, and no code of the user's."""

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from windsock.errors import DataContractError, SpecError
from windsock.served.formats.network import scored
from windsock.served.formats.onnx import MODEL_FILE, OnnxModel, card_of
from windsock.served.matrix import Feature
from windsock.served.model import MODEL_CARD, Task, load
from windsock.served.network import TabularNetwork

_CLOSE = 1e-6
_OPSET = 18


def exported(
    network: TabularNetwork, task: Task, features: Sequence[Feature], x: npt.NDArray[np.float64]
) -> dict[str, bytes]:
    """Return the model folder of a trained network.

    Args:
        network: On the CPU; its weights are as they shall be.
        task: Of the model.
        features: Inputs in order.
        x: Rows to try the graph on, shape ``(rows, features)``; missing and extreme values are added.

    Raises:
        SpecError: The module cannot be exported, or the graph does not score as the module does.
    """
    card = card_of(task, features, input="float64", output="score")
    files = {MODEL_FILE: _graph(network, len(features)), MODEL_CARD: card}
    tried = np.concatenate([x, _odd_rows(x)])
    expected, found = scored(network, tried), _served(files, tried)
    farthest = float(np.abs(found - expected).max())
    spread = max(1.0, float(network.target[1]))
    if not farthest <= _CLOSE * spread:
        raise SpecError(
            f"The module does not become ONNX exactly: of {len(tried)} rows, some score up to {farthest:g} apart. "
            "Look for randomness outside of training (self.training) and for operations whose meaning depends on the "
            "rows around, or replace what converts badly."
        )
    return files


def _graph(network: TabularNetwork, features: int) -> bytes:
    example = torch.zeros((3, features), dtype=torch.float64)
    quiet = logging.getLogger("torch")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, (example,), dynamo=True, opset_version=_OPSET, verbose=False, input_names=["rows"],
                output_names=["score"], dynamic_shapes=({0: torch.export.Dim("count", min=1)},), external_data=False,
            )  # fmt: skip
    except Exception as err:
        raise SpecError(
            f"The module cannot be exported to ONNX, which is what Windsock serves: {type(err).__name__}: "
            f"{str(err)[:300]}. Its forward must be tensor operations alone, without choices by values."
        ) from err
    finally:
        quiet.setLevel(level)
    data: bytes = _plain(program.model_proto).SerializeToString(deterministic=True)
    return data


def _plain(model: Any) -> Any:
    """Take out what tracing noted about the code: paths and names of this machine."""
    for part in (model, model.graph, *model.functions):
        part.doc_string = ""
        del part.metadata_props[:]
    for graph in (model.graph, *model.functions):
        for item in (*graph.node, *graph.value_info, *getattr(graph, "initializer", ())):
            item.doc_string = ""
            del item.metadata_props[:]
    return model


def _served(files: Mapping[str, bytes], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Score rows as they will be scored: by the model that the folder's files are read as."""
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        try:
            model = load(folder)
        except DataContractError as err:
            reason = str(err).replace(f"{folder}/", "")
            raise SpecError(f"The module becomes a graph that Windsock does not serve: {reason}") from err
        assert isinstance(model, OnnxModel)
        return model.scores(x)


def _odd_rows(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return rows with missing, unknown and extreme values: one of each kind per feature, and of all at once."""
    kinds = np.array([np.nan, -1.0, 0.0, 1e6, -1e300, 1e300, np.inf, -np.inf])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a column of missing values has no median
        middle = np.nan_to_num(np.nanmedian(np.where(np.isfinite(x), x, np.nan), axis=0))
    rows = [np.full(x.shape[1], kind) for kind in kinds]
    for place in range(x.shape[1]):
        for kind in kinds:
            row = middle.copy()
            row[place] = kind
            rows.append(row)
    return np.stack(rows)
