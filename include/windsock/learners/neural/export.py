"""From a trained network to the file that is kept: a traced graph and raw weights, no code, no pickle.

``torch.export.save`` by itself writes the sample inputs as a pickle. Here the program has
none, and the archive is written again with fixed times, so that equal weights give equal
bytes. Reading it, and what is refused there, is in :mod:`windsock.served.formats.torch`.
"""

from __future__ import annotations

import io
import logging
from typing import Any

import torch

from windsock.learners.neural.network import TabularNetwork
from windsock.served.formats.torch import rewritten

_DROPPED = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
"""What tracing notes about the code that was traced: paths of this machine, of no use to a reader."""


def exported(network: TabularNetwork, features: int) -> bytes:
    """Return ``model.pt2``: rows of any number in, scores out.

    Args:
        network: On the CPU; its weights are as they shall be.
        features: Columns of a row.
    """
    network = network.eval()
    example = torch.zeros((2, features), dtype=torch.float64)
    # Tracing looks for compilers and the like, and warns about what a network does not need.
    quiet = logging.getLogger("torch")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with torch.no_grad():
            program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},))
        _forget_the_source(program)
        file = io.BytesIO()
        torch.export.save(program, file)
    finally:
        quiet.setLevel(level)
    return rewritten(file.getvalue())


def _forget_the_source(program: Any) -> None:
    program._example_inputs = None
    for node in program.graph.nodes:
        for name in _DROPPED:
            node.meta.pop(name, None)
