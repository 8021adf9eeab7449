"""PyTorch's ``pt2`` archive, read and evaluated here: ``torch.export.load`` is never called.

That function trusts its file in more ways than one: it unpickles, loads compiled libraries, hands
sizes to sympy and guards to ``exec``, and calls whatever function a node names. But what an archive
holds is a list of nodes and raw numbers, so reading it takes little: nodes of known arithmetic are
called one after the other, sizes are whole numbers by then, and nothing else is looked at.
What an operator could be asked to make is bounded before it is called.
"""

import io
import json
import math
import operator
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from windsock.errors import DataContractError
from windsock.served.formats.aten import DTYPES, MOST_NUMBERS, Node, Refused

_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = {"data/weights/": "model_weights_config.json", "data/constants/": "model_constants_config.json"}
_RAW = ("data/weights/weight_", "data/constants/tensor_")
_FIXED = (_GRAPH, _SAMPLES, *(folder + name for folder, name in _CONFIGS.items()), "archive_format", "archive_version",
          "byteorder", ".data/version", ".data/serialization_id")  # fmt: skip
_MOST_BYTES = 1 << 30
_MOST_MEMBERS = _MOST_NODES = 20_000


@dataclass(frozen=True)
class Program:
    """A network as its nodes and numbers; called with rows, it gives scores."""

    tensors: Mapping[str, Any]
    """Weights and constants by their name in the graph."""
    nodes: tuple[Node, ...]
    input: str
    output: str

    def __call__(self, x: Any) -> Any:
        """Evaluate the nodes.

        Args:
            x: Tensor of shape ``(rows, features)``.

        Raises:
            Refused: A number or a tensor on the way is larger than any honest network needs.
        """
        values = {**self.tensors, self.input: x}
        given = {value.data_ptr() for value in values.values()}
        for node in self.nodes:
            node.evaluate(values, given)
        return values[self.output]


def program_of(data: bytes, where: str) -> Program:
    """Read an archive.

    Args:
        data: Content of a ``model.pt2``.
        where: Its place, for messages.

    Raises:
        DataContractError: It is no such archive, is damaged, or holds something that is not evaluated here.
    """
    try:
        members = _members(data)
        graph = json.loads(members[_GRAPH])
        if graph.get("guards_code"):
            raise Refused("it carries guards, which are Python code")
        return _program(graph["graph_module"], _tensors(members))
    except Refused as err:
        raise DataContractError(
            f"{where}: is refused: {err}. Export a network of plain tensor arithmetic without sample inputs "
            "(program._example_inputs = None before torch.export.save), or better hand it in as ONNX (docs/trainer.md)."
        ) from err
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as err:
        raise DataContractError(
            f"{where}: is not PyTorch's pt2 archive (it starts with {data[:8]!r}), and pickles are never loaded. "
            "Save it with torch.export.save, or train the version again."
        ) from err
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as err:
        raise DataContractError(
            f"{where}: is damaged: {type(err).__name__}: {str(err)[:200]}. Fetch or train the version again."
        ) from err


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        names = [info.filename for info in infos]
        root = names[0].partition("/")[0] + "/" if names else ""
        if len(set(names)) < len(names) or len(names) > _MOST_MEMBERS or len(data) > _MOST_BYTES:
            raise Refused("its members are not those of one program, or are too many")
        # As they are and one after the other: a compressed or shared one could be many times as large as the file.
        ends = [info.header_offset + 30 + len(info.filename.encode()) + info.file_size for info in infos]
        starts = [*(info.header_offset for info in infos[1:]), archive.start_dir]
        if any(
            i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 1 or i.file_size != i.compress_size for i in infos
        ):
            raise Refused("it has compressed members")
        if any(end > start for end, start in zip(ends, starts, strict=True)):
            raise Refused("it has members that overlap")
        found = {name.removeprefix(root): archive.read(name) for name in names}
    for name in found:
        if name not in _FIXED and not (name.startswith(_RAW) and name.rpartition("_")[2].isdigit()):
            raise Refused(f"it has a member {name[:80]!r}, which is neither graph nor numbers")
    for name in (_GRAPH, *(folder + name for folder, name in _CONFIGS.items())):
        if name not in found:
            raise Refused(f"it lacks {name}, so it was not written by torch.export.save")
    if found.get(_SAMPLES):
        raise Refused("it has sample inputs, which PyTorch stores as a pickle")
    if found.get("byteorder", b"little") != b"little":
        raise Refused("its numbers are not little-endian")
    return found


def _tensors(members: Mapping[str, bytes]) -> dict[str, Any]:
    """Return weights and constants by their name in the module."""
    found = {}
    for folder, config in _CONFIGS.items():
        for name, entry in json.loads(members[folder + config])["config"].items():
            if entry.get("use_pickle", True) or f"{folder}{entry.get('path_name')}" not in members:
                raise Refused(f"{config} has an entry that is not raw numbers: {str(entry)[:80]}")
            found[name] = _tensor(members[folder + entry["path_name"]], entry["tensor_meta"])
    return found


def _tensor(raw: bytes, meta: Mapping[str, Any]) -> Any:
    import torch

    sizes, strides = ([operator.index(s["as_int"]) for s in meta[key]] for key in ("sizes", "strides"))
    offset = operator.index(meta["storage_offset"]["as_int"])
    dtype = getattr(torch, DTYPES[meta["dtype"]])
    count = math.prod(sizes)
    if len(sizes) != len(strides) or min([*sizes, *strides, offset]) < 0 or count > MOST_NUMBERS or len(sizes) > 16:
        raise Refused(f"a tensor has the sizes {sizes}, strides {strides} and offset {offset}")
    if count == 0:
        return torch.empty(sizes, dtype=dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if (last + 1) * dtype.itemsize > len(raw):
        raise Refused(f"a tensor reaches to number {last} of {len(raw) // dtype.itemsize}")
    return torch.frombuffer(bytearray(raw), dtype=dtype).as_strided(sizes, strides, offset)


def _program(module: Mapping[str, Any], tensors: Mapping[str, Any]) -> Program:
    graph, inputs, named = module["graph"], [], {}
    for spec in module["signature"]["input_specs"]:
        ((kind, entry),) = spec.items()
        if kind == "user_input":
            inputs.append(entry["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            named[entry["arg"]["name"]] = tensors[entry[f"{kind}_name"]]
        else:
            raise Refused(f"it takes a {kind}")
    outputs = graph["outputs"]
    if len(inputs) != 1 or len(outputs) != 1 or "as_tensor" not in outputs[0]:
        raise Refused(
            f"it takes {len(inputs)} inputs and gives {len(outputs)}; one matrix in and one score per row out"
        )
    if len(graph["nodes"]) > _MOST_NODES:
        raise Refused(f"it has {len(graph['nodes'])} nodes; at most {_MOST_NODES} are evaluated")
    return Program(named, tuple(map(Node.of, graph["nodes"])), inputs[0], outputs[0]["as_tensor"]["name"])
