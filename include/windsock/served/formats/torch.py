"""PyTorch's exported program as a model: ``model.pt2`` holds graph and weights, ``model.json`` what to feed it.

Windsock 0.1 kept its networks so, and trainers of others may still hand one in (ONNX is better). The program takes the
matrix of :func:`windsock.served.matrix.to_matrix` and gives a score per row.

``torch.export.load`` is never called: it unpickles, loads compiled libraries, hands sizes to sympy and guards to
``exec``, and calls whatever function a node names. But what an archive holds is a list of nodes and raw numbers: nodes
of known arithmetic are called one after the other, sizes are whole numbers by then, and nothing else is looked at. What
an operator could be asked to make is bounded before it is called, and each result is.
"""

import io
import json
import math
import operator
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from windsock.errors import DataContractError
from windsock.served.formats.network import module_scores
from windsock.served.matrix import Feature
from windsock.served.model import Scorer

MODEL_FILE = "model.pt2"
_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = {"data/weights/": "model_weights_config.json", "data/constants/": "model_constants_config.json"}
_RAW = ("data/weights/weight_", "data/constants/tensor_")
_FIXED = (_GRAPH, _SAMPLES, *(folder + name for folder, name in _CONFIGS.items()), "archive_format", "archive_version",
          "byteorder", ".data/version", ".data/serialization_id")  # fmt: skip
_MOST_BYTES = 1 << 30
_MOST_MEMBERS = _MOST_NODES = 20_000
_MOST_NUMBERS = 1 << 28
"""Of one tensor."""
_LARGEST = 1 << 40
"""Of a whole number that sizes are computed with."""
_MOST_PADDING = 4096

_PYTHON = "add sub mul floordiv mod neg eq ne lt le gt ge and_ or_ getitem pow"
_ATEN = """
abs add add_ addmm amax amin any all argmax argmin arange baddbmm batch_norm bitwise_and bitwise_not bitwise_or
bmm bucketize cat ceil celu chunk clamp clamp_max clamp_min clone concat contiguous conv1d copy cos cumsum detach
detach_ div dropout einsum elu embedding eq erf exp expand expm1 flatten floor floor_divide full full_like
gather ge gelu getitem glu gt hardsigmoid hardswish hardtanh index index_select isfinite isinf isnan layer_norm le
leaky_relu lerp lift_fresh_copy linear log log1p log2 log_softmax logical_and logical_not logical_or logsumexp lt
masked_fill matmul max maximum mean min minimum mish mm movedim mul nan_to_num native_batch_norm native_dropout
native_layer_norm ne neg new_full new_ones new_zeros one_hot ones ones_like outer permute pow prelu prod reciprocal
relu relu_ repeat reshape rms_norm round rsqrt rsub scalar_tensor scaled_dot_product_attention searchsorted select
selu sigmoid sign silu silu_ sin slice softmax softplus split split_with_sizes sqrt square squeeze stack std sub sum
sym_size t tanh tile to transpose unbind unflatten unsqueeze var view where zeros zeros_like _assert_scalar
_assert_tensor_metadata _log_softmax _native_batch_norm_legit_no_training _softmax _to_copy _unsafe_view
sym_constrain_range_for_size
"""
_NUMBERS, _TENSORS = frozenset(_PYTHON.split()), frozenset(_ATEN.split())
_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
           12: "bool", 13: "bfloat16"}  # fmt: skip
_MEMORY_FORMATS = {1: "contiguous_format", 4: "preserve_format"}


class _Refused(Exception):
    """The program holds something that is not evaluated here; the text says what."""


@dataclass(frozen=True)
class _Node:
    """One step of a program."""

    name: str
    """``_operator.mul`` or ``aten.linear``, for messages."""
    call: Callable[..., Any]
    inputs: Mapping[str, Mapping[str, Any]]
    """Name and description of each argument."""
    outputs: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Program:
    """A network as its nodes and numbers; called with rows, it gives scores."""

    tensors: Mapping[str, Any]
    """Weights and constants by their name in the graph."""
    nodes: Sequence[_Node]
    input: str
    output: str

    def __call__(self, x: Any) -> Any:
        """Return the scores of rows; ``x`` is a tensor of shape ``(rows, features)``."""
        values = {**self.tensors, self.input: x}
        given = {value.data_ptr() for value in values.values()}
        for node in self.nodes:
            arguments = {name: _argument(raw, values) for name, raw in node.inputs.items()}
            if node.name.startswith("_operator."):
                result = _on_numbers(node, list(arguments.values()))
            else:
                result = _on_tensors(node, arguments, given)
            for output, value in zip(node.outputs, result if len(node.outputs) > 1 else (result,), strict=False):
                ((kind, content),) = output.items()
                if kind in ("as_tensors", "as_optional_tensors"):
                    for one, tensor in zip(content, value, strict=True):
                        values[(one if "name" in one else one["as_tensor"])["name"]] = tensor
                elif kind != "as_none":
                    values[content["name" if "name" in content else "as_name"]] = value
        return values[self.output]


def read(folder: str, data: bytes, card: Mapping[str, Any], inputs: Sequence[Feature]) -> tuple[Program, Scorer]:
    """Read a program.

    Raises:
        DataContractError: It is no such archive, is damaged, or holds something that is not evaluated here.
    """
    where = f"{folder}/{MODEL_FILE}"
    try:
        members = _members(data)
        graph = json.loads(members[_GRAPH])
        if graph.get("guards_code"):
            raise _Refused("it carries guards, which are Python code")
        program = _program(graph["graph_module"], _tensors(members))
        return program, partial(module_scores, program)
    except _Refused as err:
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
            raise _Refused("its members are not those of one program, or are too many")
        # As they are and one after the other: a compressed or shared one could be many times as large as the file.
        ends = [info.header_offset + 30 + len(info.filename.encode()) + info.file_size for info in infos]
        starts = [*(info.header_offset for info in infos[1:]), archive.start_dir]
        if any(
            i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 1 or i.file_size != i.compress_size for i in infos
        ):
            raise _Refused("it has compressed members")
        if any(end > start for end, start in zip(ends, starts, strict=True)):
            raise _Refused("it has members that overlap")
        found = {name.removeprefix(root): archive.read(name) for name in names}
    for name in found:
        if name not in _FIXED and not (name.startswith(_RAW) and name.rpartition("_")[2].isdigit()):
            raise _Refused(f"it has a member {name[:80]!r}, which is neither graph nor numbers")
    for name in (_GRAPH, *(folder + name for folder, name in _CONFIGS.items())):
        if name not in found:
            raise _Refused(f"it lacks {name}, so it was not written by torch.export.save")
    if found.get(_SAMPLES):
        raise _Refused("it has sample inputs, which PyTorch stores as a pickle")
    if found.get("byteorder", b"little") != b"little":
        raise _Refused("its numbers are not little-endian")
    return found


def _tensors(members: Mapping[str, bytes]) -> dict[str, Any]:
    """Return weights and constants by their name in the module."""
    found = {}
    for folder, config in _CONFIGS.items():
        for name, entry in json.loads(members[folder + config])["config"].items():
            if entry.get("use_pickle", True) or f"{folder}{entry.get('path_name')}" not in members:
                raise _Refused(f"{config} has an entry that is not raw numbers: {str(entry)[:80]}")
            found[name] = _tensor(members[folder + entry["path_name"]], entry["tensor_meta"])
    return found


def _tensor(raw: bytes, meta: Mapping[str, Any]) -> Any:
    sizes, strides = ([operator.index(s["as_int"]) for s in meta[key]] for key in ("sizes", "strides"))
    offset = operator.index(meta["storage_offset"]["as_int"])
    dtype = getattr(torch, _DTYPES[meta["dtype"]])
    count = math.prod(sizes)
    if len(sizes) != len(strides) or min([*sizes, *strides, offset]) < 0 or count > _MOST_NUMBERS or len(sizes) > 16:
        raise _Refused(f"a tensor has the sizes {sizes}, strides {strides} and offset {offset}")
    if count == 0:
        return torch.empty(sizes, dtype=dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if (last + 1) * dtype.itemsize > len(raw):
        raise _Refused(f"a tensor reaches to number {last} of {len(raw) // dtype.itemsize}")
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
            raise _Refused(f"it takes a {kind}")
    outputs = graph["outputs"]
    if len(inputs) != 1 or len(outputs) != 1 or "as_tensor" not in outputs[0]:
        raise _Refused(
            f"it takes {len(inputs)} inputs and gives {len(outputs)}; one matrix in and one score per row out"
        )
    if len(graph["nodes"]) > _MOST_NODES:
        raise _Refused(f"it has {len(graph['nodes'])} nodes; at most {_MOST_NODES} are evaluated")
    return Program(named, [_node(raw) for raw in graph["nodes"]], inputs[0], outputs[0]["as_tensor"]["name"])


def _node(raw: Mapping[str, Any]) -> _Node:
    inputs = {str(given["name"]): dict(given["arg"]) for given in raw["inputs"]}
    match str(raw["target"]).split("."):
        case ["_operator", name] if name in _NUMBERS:
            return _Node(f"_operator.{name}", getattr(operator, name), inputs, raw["outputs"])
        case ["torch", "ops", "aten", name, overload] if name in _TENSORS:
            return _Node(f"aten.{name}", getattr(getattr(torch.ops.aten, name), overload), inputs, raw["outputs"])
    raise _Refused(f"its graph has {str(raw['target'])[:80]!r} as target, which is not on the list of known arithmetic")


def _argument(raw: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return what a node is given, from its description."""
    ((kind, content),) = raw.items()
    match kind:
        case "as_int" | "as_ints" | "as_float" | "as_floats" | "as_bool" | "as_bools" | "as_string":
            return content
        case "as_none":
            return None
        case "as_tensor" | "as_optional_tensor":
            return values[content["name"]]
        case "as_tensors" | "as_optional_tensors":
            return [values[one["name"]] if "name" in one else _argument(one, values) for one in content]
        case "as_sym_int" | "as_sym_bool" | "as_sym_float":
            ((inner, value),) = content.items()
            return values[value] if inner == "as_name" else value
        case "as_sym_ints" | "as_sym_bools" | "as_sym_floats":
            return [_argument({kind.removesuffix("s"): one}, values) for one in content]
        case "as_scalar_type":
            return getattr(torch, _DTYPES[content])
        case "as_memory_format":
            return getattr(torch, _MEMORY_FORMATS[content])
        case "as_layout" if content == 7:
            return torch.strided
        case "as_device" if content["type"] == "cpu":
            return torch.device("cpu")
    raise _Refused(f"a node is given {kind} {str(content)[:80]!r}, which is no number and no tensor")


def _on_numbers(node: _Node, numbers: Sequence[Any]) -> Any:
    """Return the result of Python's own arithmetic, which is on sizes."""
    if node.call is operator.getitem:
        return numbers[0][operator.index(numbers[1])]
    if not all(isinstance(value, int | float) and abs(value) <= _LARGEST for value in numbers):
        raise _Refused(f"a size is computed as {node.name} of {str(numbers)[:80]}")
    if node.call is operator.pow and not 0 <= numbers[1] <= 64:
        raise _Refused(f"a size is raised to the power {numbers[1]}")
    return node.call(*numbers)


def _on_tensors(node: _Node, arguments: Mapping[str, Any], given: set[int]) -> Any:
    """Return an operator's result, once its arguments are known not to ask for more than there is.

    ``given`` are the addresses of the rows and weights, which no node may change.
    """
    own: Any = arguments.get("self")
    sizes = [value for value in arguments.values() if isinstance(value, list) and all(map(_is_whole, value))]
    most: float = max((math.prod(max(1, abs(side)) for side in size) for size in sizes), default=1)
    if node.name in ("aten.repeat", "aten.tile"):
        most *= own.numel()
    elif node.name == "aten.one_hot":
        most = own.numel() * max(1, arguments.get("num_classes", -1))
    elif node.name == "aten.arange":
        most = abs(arguments["end"] - arguments.get("start", 0)) / abs(arguments.get("step", 1))
    padding = arguments.get("padding", 0)
    sides = padding if isinstance(padding, list) else [padding] if _is_whole(padding) else []
    if not most <= _MOST_NUMBERS or max(sides, default=0) > _MOST_PADDING:
        raise _Refused(f"{node.name} is asked for {most:.3g} numbers")
    if node.name.endswith("_") and own.data_ptr() in given:
        raise _Refused(f"{node.name} changes the rows or a weight")
    result = node.call(**arguments)
    for tensor in result if isinstance(result, tuple | list) else (result,):
        if isinstance(tensor, torch.Tensor) and tensor.numel() > _MOST_NUMBERS:
            raise _Refused(f"{node.name} gives {tensor.numel()} numbers")
    return result


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
