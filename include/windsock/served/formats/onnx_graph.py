"""What may stand in a ``model.onnx``, looked at before onnxruntime sees it and without the package ``onnx``.

ONNX is protobuf (``onnx.proto3``). It is parsed here by a schema that holds no more than what may stand in a harmless
graph, so whatever else a file has is an unknown field, and refused: no graph inside a graph (loops, branches), no
functions, no files beside this one, no sparse tensor. So are operators of other domains, those whose result can be of
any size whatever goes in, and trees that are none. What is left can still be slow or large: a stranger's model is
loaded by a child first (:mod:`windsock.served.first_load`).
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from windsock.errors import DataContractError

MOST_BYTES = 256 << 20
_MOST_NODES = 20_000
_MOST_SIDE = 4096
"""The largest kernel, stride or border of a convolution; a border makes the result larger."""
_MOST_LEVELS = 1000
"""onnxruntime goes down a tree by recursion while it loads."""

_ML = """
ArrayFeatureExtractor Binarizer CategoryMapper FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor
Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsembleClassifier TreeEnsembleRegressor
"""
_CORE = """
Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant Conv Cos CumSum Div Dropout
Elu Equal Erf Exp Flatten Floor Gather GatherElements Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less
LessOrEqual Log LogSoftmax LpNormalization MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pow
RMSNormalization Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
ReduceSum ReduceSumSquare Relu Reshape Round Selu Shape Sigmoid Sign Sin Slice Softmax Softplus Softsign Split Sqrt
Squeeze Sub Sum Tan Tanh ThresholdedRelu TopK Transpose Unsqueeze Where Xor
"""
_OPERATORS = {"": frozenset(_CORE.split()), "ai.onnx": frozenset(_CORE.split()), "ai.onnx.ml": frozenset(_ML.split())}

# Fields by number, name and kind. Each may be repeated: where two stand for one, which would onnxruntime take? Whole
# numbers are read without sign, so that negative ones are huge.
_SCHEMA: Mapping[str, str] = {
    "model": "1 ir_version uint64, 2 producer bytes, 3 producer_version bytes, 4 domain bytes, 5 version uint64, "
    "6 doc bytes, 7 graph graph, 8 opsets bytes, 14 metadata bytes",
    "graph": "1 nodes node, 2 name bytes, 5 constants tensor, 10 doc bytes, 11 inputs value, 12 outputs value, "
    "13 inner value, 16 metadata bytes",
    "node": "1 inputs bytes, 2 outputs bytes, 3 name bytes, 4 operator bytes, 5 attributes attribute, 6 doc bytes, "
    "7 domain bytes, 9 metadata bytes",
    "attribute": "1 name bytes, 2 f float, 3 i uint64, 4 s bytes, 5 t tensor, 7 floats float, 8 ints uint64, "
    "9 strings bytes, 10 tensors tensor, 13 doc bytes, 20 type uint64",
    "tensor": "1 sides uint64, 2 type uint64, 4 floats float, 5 ints uint64, 6 strings bytes, 7 longs uint64, "
    "8 name bytes, 9 raw bytes, 10 doubles double, 11 unsigned uint64, 12 doc bytes, 14 location uint64, 16 meta bytes",
    "value": "1 name bytes, 2 type type, 3 doc bytes, 4 metadata bytes",
    "type": "1 tensor tensor_type, 6 denotation bytes",
    "tensor_type": "1 element uint64, 2 shape shape",
    "shape": "1 sides side",
    "side": "1 value uint64, 2 name bytes, 3 denotation bytes",
}
_REFUSED_PARTS = {
    ("model", 20): "training steps", ("model", 25): "functions", ("graph", 15): "sparse tensors",
    ("attribute", 6): "a graph inside the graph", ("attribute", 11): "graphs inside the graph",
    ("attribute", 22): "a sparse tensor", ("attribute", 23): "sparse tensors", ("tensor", 13): "data in another file",
    ("type", 4): "a sequence", ("type", 5): "a map (convert with zipmap=False)",
}  # fmt: skip
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 8: 1, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
_SIDES = (b"pads", b"kernel_shape", b"strides", b"dilations", b"output_padding")
_TREES = (b"nodes_treeids", b"nodes_nodeids", b"nodes_truenodeids", b"nodes_falsenodeids")
_MODES = b"nodes_modes"
_INPUT_TYPES = {1: "float32", 11: "float64"}

_Whole = npt.NDArray[np.uint64]


class GraphInfo(NamedTuple):
    """What a harmless graph takes and gives."""

    input: str
    input_type: str
    """``float32`` or ``float64``."""
    width: int | None
    """Columns of a row; None: the graph leaves it open."""
    outputs: tuple[str, ...]


class _Refused(Exception):
    """A part that is not on the lists."""


def checked(data: bytes, where: str) -> GraphInfo:
    """Return what a graph takes and gives, once every part and operator in it is known to be harmless.

    Raises:
        DataContractError: It is no ONNX model, or holds a part that is not on the lists above.
    """
    if len(data) > MOST_BYTES:
        raise DataContractError(
            f"{where}: has {len(data) >> 20} MiB; at most {MOST_BYTES >> 20} are loaded. Use fewer or smaller trees."
        )
    try:
        model = _model_class()()
        model.ParseFromString(data)
        graph = _only(model.graph, "graph")
        _check_parts(model)
        return _graph(graph)
    except DecodeError as err:
        raise DataContractError(
            f"{where}: is not an ONNX model, or is cut or damaged (it starts with {data[:8]!r}). Write it with "
            "SerializeToString, or train the version again."
        ) from err
    except _Refused as err:
        raise DataContractError(
            f"{where}: is refused: {err}. Windsock serves one plain graph of known operators in one file "
            "(docs/trainer.md, 'ONNX'). Convert the model without that part, or train another kind."
        ) from err


@cache
def _model_class() -> Any:
    file = FileDescriptorProto(name="windsock/onnx.proto", package="windsock")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for number, field, kind in map(str.split, fields.split(", ")):
            made = message.field.add(name=field, number=int(number), label=FieldDescriptorProto.LABEL_REPEATED)
            if kind in _SCHEMA:
                made.type, made.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".windsock.{kind}"
            else:
                made.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("windsock.model"))


def _check_parts(message: Any) -> None:
    kind = message.DESCRIPTOR.name
    if kind == "node":
        operator, domain = _text(message.operator), _text(message.domain)
        if operator not in _OPERATORS.get(domain, ()):
            raise _Refused(f"it uses the operator {domain + ':' if domain else ''}{operator[:80]}, which is not served")
    for unknown in UnknownFieldSet(message):
        number = unknown.field_number
        part = _REFUSED_PARTS.get((kind, number), f"part {number} of a {kind}, which is not known here")
        raise _Refused(f"it has {part}")
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            for inner in getattr(message, field.name):
                _check_parts(inner)


def _graph(graph: Any) -> GraphInfo:
    if len(graph.nodes) > _MOST_NODES:
        raise _Refused(f"it has {len(graph.nodes)} nodes; at most {_MOST_NODES} are served")
    for node in graph.nodes:
        _check_node(node)
    constants = {_check_tensor(tensor) for tensor in graph.constants}
    inputs = [value for value in map(_value, graph.inputs) if value[0] not in constants]
    outputs = tuple(_value(value)[0] for value in graph.outputs)
    for value in graph.inner:
        _value(value)
    if len(inputs) != 1:
        raise _Refused(f"it has {len(inputs)} inputs; one matrix (rows, features) is wanted")
    name, kind, shape = inputs[0]
    if kind not in _INPUT_TYPES or len(shape) != 2 or shape[0] is not None:
        raise _Refused(
            f"its input {name!r} is of type {kind} and shape {shape}; a float or double matrix (rows, features) with "
            "any number of rows is wanted"
        )
    return GraphInfo(name, _INPUT_TYPES[kind], shape[1], outputs)


def _check_node(node: Any) -> None:
    operator = _text(node.operator)
    lists: dict[bytes, _Whole] = {}
    for attribute in node.attributes:
        for tensor in [*attribute.t, *attribute.tensors]:
            _check_tensor(tensor)
        name = _only(attribute.name, "name")
        if name in _SIDES and max(attribute.ints, default=0) > _MOST_SIDE:
            raise _Refused(f"a {operator} has {name.decode()} above {_MOST_SIDE}, or below 0")
        if operator.startswith("TreeEnsemble") and name in (*_TREES, _MODES):
            if name in lists:
                raise _Refused(f"a {operator} has {name.decode()} twice")
            whole = attribute.ints if name != _MODES else [mode == b"LEAF" for mode in attribute.strings]
            lists[name] = np.array(whole, dtype=np.uint64)
    if operator.startswith("TreeEnsemble"):
        fault = _fault_of_trees(*(lists.get(name, np.empty(0, dtype=np.uint64)) for name in (*_TREES, _MODES)))
        if fault:
            raise _Refused(f"a {operator} has {fault}")


def _fault_of_trees(trees: _Whole, nodes: _Whole, true: _Whole, false: _Whole, leaves: _Whole) -> str | None:
    """Return what is wrong with an ensemble, or None; onnxruntime follows a circle of nodes for ever (1.32).

    Args:
        trees: Number of the tree that each node belongs to; the first of each is its root.
        nodes: Number of each node within its tree.
        true: Node that follows where the comparison holds; not looked at for a leaf.
        false: Node that follows elsewhere.
        leaves: Whether a node is a leaf (0 or 1).
    """
    if len({len(part) for part in (trees, nodes, true, false, leaves)}) != 1:
        return "lists of unequal length"
    if max(trees.max(initial=0), nodes.max(initial=0)) >= 1 << 31:
        return "a node or tree with a number above 2³¹"
    tree, branch = trees << np.uint64(32), leaves == 0
    keys = tree + nodes
    order = np.argsort(keys)
    if (np.diff(keys[order]) == 0).any():
        return "two nodes of one number"
    after: list[npt.NDArray[np.intp]] = []
    for followers in (true, false):
        wanted = tree | followers
        place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
        after.append(order[place])
        if (keys[after[-1]] != wanted)[branch].any():
            return "a node that leads to none of its tree"
    followed = np.concatenate([child[branch] for child in after])
    parents = np.bincount(followed, minlength=len(keys))
    _, roots = np.unique(tree, return_index=True)
    if (parents > 1).any() or parents[roots].any():
        return "a node that several lead to"
    level, seen = roots, 0
    for _ in range(_MOST_LEVELS):
        seen += len(level)
        inner = level[branch[level]]
        level = np.concatenate([child[inner] for child in after])
        if not len(level):
            # With one parent each, what no root leads to is a circle, or a tree of its own.
            return None if seen == len(keys) else "nodes that no root leads to"
    return f"a tree of more than {_MOST_LEVELS} levels"


def _check_tensor(tensor: Any) -> str:
    """Return a constant's name, once its shape is known to be no larger than its content."""
    kind = _number(tensor.type)
    if kind not in _ITEM_BYTES or len(tensor.sides) > 16 or _number(tensor.location):
        raise _Refused("it has a constant of a type that is not served, or whose data lies elsewhere")
    count = math.prod(tensor.sides)
    typed = sum(map(len, (tensor.floats, tensor.ints, tensor.strings, tensor.longs, tensor.doubles, tensor.unsigned)))
    held = len(_only(tensor.raw, "data")) // _ITEM_BYTES[kind] if tensor.raw else typed
    if count > held:
        raise _Refused(f"it has a constant of {count} numbers, of which the file holds at most {held}")
    return _text(tensor.name)


def _value(value: Any) -> tuple[str, int, list[int | None]]:
    """Return name, element type and shape of an input, an output or something between."""
    tensor = _only(_only(value.type, "type").tensor, "tensor type")
    sides = _only(tensor.shape, "shape").sides if tensor.shape else []
    return _text(value.name), _number(tensor.element), [int(side.value[-1]) if side.value else None for side in sides]


def _only(given: Any, what: str) -> Any:
    # A field that is given twice would be merged with, or replace, the first: which one was looked at?
    if len(given) != 1:
        raise _Refused(f"it has {len(given)} entries for a {what}, not one")
    return given[0]


def _text(given: Any) -> str:
    return _only(given, "name").decode(errors="replace") if given else ""


def _number(given: Any) -> int:
    return int(_only(given, "number")) if given else 0
