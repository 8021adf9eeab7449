"""From a trained network to the file that is kept: a traced graph and raw weights, no code, no pickle.

``torch.export.save`` by itself writes the sample inputs as a pickle. Here the program has
none, and the archive is written again with fixed times, so that equal weights give equal
bytes. Reading it, and what is refused there, is in :mod:`windsock.served.formats.torch`.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from typing import Any

import torch

from windsock.learners.neural.network import TabularNetwork

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
    return _rewritten(file.getvalue())


def _forget_the_source(program: Any) -> None:
    program._example_inputs = None
    for node in program.graph.nodes:
        for name in _DROPPED:
            node.meta.pop(name, None)


def _rewritten(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        root = archive.namelist()[0].partition("/")[0] + "/"
        members = {name.removeprefix(root): archive.read(name) for name in archive.namelist()}
    graph = json.loads(members["models/model.json"])
    graph["guards_code"] = []
    members |= {
        "models/model.json": json.dumps(_without_notes(graph), sort_keys=True).encode(),
        "data/sample_inputs/model.pt": b"",
        # A hash over the members as they were.
        ".data/serialization_id": b"0" * 40,
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            # The constructor's default time is 1980, so the clock leaves no trace.
            archive.writestr(zipfile.ZipInfo("archive/" + name), members[name])
    return file.getvalue()


def _without_notes(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: {} if k == "metadata" else _without_notes(v) for k, v in value.items()}
    return [_without_notes(v) for v in value] if isinstance(value, list) else value
