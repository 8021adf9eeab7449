"""A trained network: scores after any epoch, the model folder, and what each input is worth.

A user's module becomes ``model.onnx``: the whole way from a raw row to its score, and no code of the user's.
"""

import io
import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch

from windsock.errors import DataContractError, SpecError
from windsock.learners.learner import Rows
from windsock.learners.neural.data import seed_of
from windsock.learners.neural.loop import Training
from windsock.learners.neural.step import Plan, loss_of
from windsock.served.formats import onnx
from windsock.served.formats.network import Perceptron, TabularNetwork, module_scores, network_files, threads_limited
from windsock.served.matrix import Feature
from windsock.served.model import MODEL_CARD, Floats, Task, load_files, scored

_SAMPLE_ROWS = 10_000
"""Training rows that importance is measured on, and that an exported module is tried on."""
_CLOSE = 1e-6
_OPSET = 18


class TrainedNetwork:
    """One trained network; see :class:`windsock.learners.learner.Learned`."""

    def __init__(
        self, network: TabularNetwork, features: Sequence[Feature], training: Training, plan: Plan, rows: Rows
    ) -> None:
        """Keep a sample of the training rows, and put the weights of a training that has ended into the network."""
        self._network: TabularNetwork = network.eval()
        self._trained = [p for p in network.body.parameters() if p.requires_grad]
        network.requires_grad_(False)
        self._features, self._plan = tuple(features), plan
        self._final, self._kept, self.curve = training.averaged(), training.progress.kept, training.progress.curve
        picked = np.random.default_rng(plan.seed).permutation(len(rows.y))[:_SAMPLE_ROWS]
        self._sample = rows.x[picked], rows.y[picked]

    def predict(self, x: Floats, rounds: int | None = None) -> Floats:
        """Score rows as the network stood after some epochs."""
        return module_scores(self._as_of(rounds), x)

    def files(self) -> dict[str, bytes]:
        """Return the model folder: safetensors of Windsock's own network, ONNX of a user's module.

        Raises:
            SpecError: The module cannot be exported, or the export does not score as it does.
        """
        network = self._as_of(None)
        task: Task = "binary" if network.binary else "regression"
        if isinstance(network.body, Perceptron):
            return network_files(network, task, self._features)
        with threads_limited():
            return _exported(network, task, self._features, self._sample[0])

    def importance(self) -> dict[str, float] | None:
        """Return each feature's share of what the loss gains by mixing up a feature's values; None if it never does."""
        x, y = self._sample
        self._as_of(None)
        plain, gains = self._loss(x, y), []
        for place in range(len(self._features)):
            mixed = x.copy()
            order = np.random.default_rng(seed_of(self._plan.seed, "importance", place)).permutation(len(x))
            mixed[:, place] = x[order, place]
            gains.append(max(0.0, self._loss(mixed, y) - plain))
        total = sum(gains)
        if not total > 0:
            return None
        return {f.name: round(gain / total, 6) for f, gain in zip(self._features, gains, strict=True)}

    def _loss(self, x: Floats, y: Floats) -> float:
        network = self._network
        with torch.no_grad(), threads_limited():
            prepared = network.preparation.split(network.preparation(torch.from_numpy(x)))
            # Scores are corrected for the weight of positives, so the loss is a plain one.
            return float(loss_of(self._plan.loss, 1.0, network.outcome(network.body(*prepared)), torch.from_numpy(y)))

    def _as_of(self, rounds: int | None) -> TabularNetwork:
        state = self._final if rounds is None or not self._kept else self._kept[rounds - 1]
        weights = torch.from_numpy(state["weights"]).split([p.numel() for p in self._trained])
        for parameter, part in zip(self._trained, weights, strict=True):
            parameter.copy_(part.view_as(parameter))
        for name, buffer in self._network.body.named_buffers():
            buffer.copy_(torch.from_numpy(state[f"buffers.{name}"]))
        return self._network


def _exported(network: TabularNetwork, task: Task, features: Sequence[Feature], x: Floats) -> dict[str, bytes]:
    """Return the model folder of a user's network, once it scores rows like ``x`` and extreme ones as the module does.

    Raises:
        SpecError: The module cannot be exported, is not served, or the graph does not score as the module does.
    """
    card = onnx.card_of(task, features, input="float64", output="score")
    files = {onnx.MODEL_FILE: _graph(network, len(features)), MODEL_CARD: card}
    try:
        served = load_files(files.__getitem__, "")
    except DataContractError as err:
        reason = str(err).removeprefix("/")
        raise SpecError(f"The module becomes a graph that Windsock does not serve: {reason}") from err
    tried = np.concatenate([x, _odd_rows(x)])
    expected, found = module_scores(network, tried), scored(served.scorer, tried)
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


def _odd_rows(x: Floats) -> Floats:
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
