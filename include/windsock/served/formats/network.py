"""Windsock's own network as a model: ``model.safetensors`` holds its numbers, ``model.json`` its architecture.

The network is built from the card, and the numbers are put in by name: the file is nothing but
named arrays, and each must have exactly the shape and type that the card asks for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from windsock.errors import DataContractError
from windsock.served.matrix import Feature
from windsock.served.model import MODEL_CARD, Floats, Scorer, Task, scored, threads
from windsock.store import to_json

FORMAT = "windsock-network/1"
MODEL_FILE = "model.safetensors"
_MOST_LAYERS, _MOST_UNITS, _MOST_BYTES = 8, 1 << 20, 1 << 31
_MOST_HEADER = 1 << 20


def network_files(network: Any, task: Task, features: Sequence[Feature]) -> dict[str, bytes]:
    """Return the model folder of a trained network: equal weights give equal bytes."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    hidden = [layer.out_features for layer in network.body.layers[:-1]]
    card = {
        "format": FORMAT, "task": task, "features": [f.to_json() for f in features],
        "network": {"hidden": hidden, "gaps": network.preparation.gaps},
    }  # fmt: skip
    return {MODEL_FILE: save(tensors), MODEL_CARD: to_json(card)}


def read(folder: str, data: bytes, card: Mapping[str, Any], inputs: Sequence[Feature]) -> tuple[Any, Scorer]:
    """Build the :class:`windsock.served.network.TabularNetwork` that a card describes and put its numbers in.

    Raises:
        DataContractError: The card describes no network, or the file is damaged or another network's.
    """
    network = _built(f"{folder}/{MODEL_CARD}", card, inputs)
    network.load_state_dict(_tensors(f"{folder}/{MODEL_FILE}", data, network.state_dict()), assign=True)
    network.eval().requires_grad_(False)
    return network, partial(module_scores, network)


def _built(where: str, card: Mapping[str, Any], inputs: Sequence[Feature]) -> Any:
    """Return the card's network without memory for its numbers."""
    import torch

    from windsock.served.network import Perceptron, Preparation, TabularNetwork

    about = card.get("network")
    hidden, gaps = (about.get(name) for name in ("hidden", "gaps")) if isinstance(about, dict) else (None, None)
    numbers = sum(f.categories is None for f in inputs)
    if (
        not (isinstance(hidden, list) and 1 <= len(hidden) <= _MOST_LAYERS and isinstance(gaps, list) and inputs)
        or not all(type(units) is int and 1 <= units <= _MOST_UNITS for units in hidden)
        or not all(type(place) is int and 0 <= place < numbers for place in gaps)
        or sorted(set(gaps)) != gaps
    ):
        raise DataContractError(
            f"{where}: describes no network that {FORMAT} knows. Its field 'network' must have 'hidden', the units of "
            f"1 to {_MOST_LAYERS} layers (up to {_MOST_UNITS:,} each), and 'gaps', the places of the numeric inputs "
            "that have a flag for missing values. Fetch it again or train the version again."
        )
    with torch.device("meta"):
        preparation = Preparation(inputs, gaps)
        body = Perceptron(preparation.width, preparation.tables, hidden)
        network = TabularNetwork(preparation, body, binary=card["task"] == "binary")
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > _MOST_BYTES:
        raise DataContractError(f"{where}: describes a network of more than {_MOST_BYTES >> 30} GiB; none is loaded.")
    return network


def _tensors(where: str, raw: bytes, wanted: Mapping[str, Any]) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    if len(raw) > sum(tensor.nbytes for tensor in wanted.values()) + _MOST_HEADER:
        raise _refused(where, f"it has {len(raw):,} bytes, far more than the card's network takes")
    if int.from_bytes(raw[:8], "little") > min(_MOST_HEADER, len(raw)):
        raise _refused(where, "it does not begin with a safetensors header")
    try:
        tensors: dict[str, Any] = load(raw)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as err:
        raise _refused(where, f"safetensors cannot read it: {type(err).__name__}: {str(err)[:200]}") from err
    if sorted(tensors) != sorted(wanted):
        odd = sorted(set(tensors) ^ set(wanted))
        raise _refused(where, f"it does not hold the arrays of the card's network: {', '.join(odd)[:200]}")
    for name, tensor in tensors.items():
        expected = wanted[name]
        if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise _refused(
                where,
                f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, but the card's network has "
                f"{expected.dtype} of shape {tuple(expected.shape)}",
            )
        if not torch.isfinite(tensor).all():
            raise _refused(where, f"{name} holds numbers that are not finite")
    return tensors


def _refused(where: str, why: str) -> DataContractError:
    return DataContractError(f"{where}: is refused: {why}. Fetch it again, or train the version again.")


def module_scores(network: Callable[[Any], Any], x: Floats) -> Floats:
    """Score a matrix, shape ``(rows, features)``, by a network that takes float64 rows, with ``WINDSOCK_THREADS``."""
    import torch

    def scores(part: Floats) -> Any:
        return network(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float64))).to(torch.float64).numpy()

    with torch.no_grad(), threads_limited():
        return scored(scores, x)


@contextmanager
def threads_limited() -> Iterator[None]:
    """Let PyTorch use ``WINDSOCK_THREADS`` threads for a while, then as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)
