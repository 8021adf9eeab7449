"""What may stand in a ``model.onnx``, looked at before onnxruntime sees it and without the package ``onnx``.

ONNX is protobuf (``onnx.proto3``), whose wire format is a row of numbered fields; a few lines read it. Only parts and
operators listed here pass: no graph inside a graph (loops, branches), no functions, no operators of other domains, no
files beside this one, no sparse tensor, and no operator whose result can be of any size whatever goes in. What is
left can still be slow or large: a stranger's model is loaded by a child first (:mod:`windsock.served.first_load`).
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from windsock.errors import DataContractError
from windsock.served.formats.onnx_trees import fault_of_trees

MOST_BYTES = 256 << 20
_MOST_NODES = 20_000
_MOST_SIDE = 4096
"""The largest kernel, stride or border of a convolution; a border makes the result larger."""

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

# Number of a field: the wire types it may have. 0 a varint, 1 eight bytes, 2 bytes with their length, 5 four bytes.
_FIELDS: Mapping[str, Mapping[int, tuple[int, ...]]] = {
    "model": {1: (0,), 2: (2,), 3: (2,), 4: (2,), 5: (0,), 6: (2,), 7: (2,), 8: (2,), 14: (2,)},
    "graph": dict.fromkeys((1, 2, 5, 10, 11, 12, 13, 16), (2,)),
    "node": dict.fromkeys((1, 2, 3, 4, 5, 6, 7, 9), (2,)),
    "attribute": {1: (2,), 2: (5,), 3: (0,), 4: (2,), 5: (2,), 7: (5, 2), 8: (0, 2), 9: (2,), 10: (2,), 13: (2,),
                  20: (0,)},
    "tensor": {1: (0, 2), 2: (0,), 4: (5, 2), 5: (0, 2), 6: (2,), 7: (0, 2), 8: (2,), 9: (2,), 10: (1, 2), 11: (0, 2),
               12: (2,), 14: (0,), 16: (2,)},
    "value": {1: (2,), 2: (2,), 3: (2,), 4: (2,)},
    "type": {1: (2,), 6: (2,)},
    "tensor type": {1: (0,), 2: (2,)},
    "shape": {1: (2,)},
    "dimension": {1: (0,), 2: (2,), 3: (2,)},
}  # fmt: skip
_REFUSED_PARTS = {
    ("model", 20): "training steps", ("model", 25): "functions", ("graph", 15): "sparse tensors",
    ("attribute", 6): "a graph inside the graph", ("attribute", 11): "graphs inside the graph",
    ("attribute", 22): "a sparse tensor", ("attribute", 23): "sparse tensors", ("tensor", 13): "data in another file",
    ("type", 4): "a sequence", ("type", 5): "a map (convert with zipmap=False)",
}  # fmt: skip
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 8: 1, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
_SIDES = ("pads", "kernel_shape", "strides", "dilations", "output_padding")
_TREES = ("nodes_treeids", "nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids")
_MODES = "nodes_modes"
_INPUT_TYPES = {1: "float32", 11: "float64"}

# An attribute's long lists as they stand in a file, one field after the other: floats, whole numbers, short texts.
_TEXT = re.compile(rb"\x4a(?:\x04.{4}|\x09.{9}|\x0a.{10})", re.DOTALL)
_RUN = re.compile(rb"(?:\x3d.{4})++|(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])++|(?:" + _TEXT.pattern + rb")++", re.DOTALL)

_Value = int | memoryview
_Message = dict[int, list[_Value]]


@dataclass(frozen=True)
class GraphInfo:
    """What a harmless graph takes and gives."""

    input: str
    input_type: str
    """``float32`` or ``float64``."""
    width: int | None
    """Columns of a row; None: the graph leaves it open."""
    outputs: tuple[str, ...]


def checked(data: bytes, where: str) -> GraphInfo:
    """Return what a graph takes and gives, once every part and operator in it is known to be harmless.

    Args:
        data: Content of a ``model.onnx``.
        where: Its place, for messages.

    Raises:
        DataContractError: It is no ONNX model, or holds a part that is not on the lists above.
    """
    if len(data) > MOST_BYTES:
        raise DataContractError(
            f"{where}: has {len(data) >> 20} MiB; at most {MOST_BYTES >> 20} are loaded. Use fewer or smaller trees."
        )
    try:
        return _model(memoryview(data))
    except (IndexError, UnicodeDecodeError) as err:
        raise DataContractError(
            f"{where}: is not an ONNX model, or is cut or damaged (it starts with {data[:8]!r}). Write it with "
            "SerializeToString, or train the version again."
        ) from err
    except _Refused as err:
        raise DataContractError(
            f"{where}: is refused: {err}. Windsock serves one plain graph of known operators in one file "
            "(docs/trainer.md, 'ONNX'). Convert the model without that part, or train another kind."
        ) from err


class _Refused(Exception):
    """A part that is not on the lists."""


def _model(data: memoryview) -> GraphInfo:
    model = _message(data, "model")
    graph = _message(_only(model, 7, "graph"), "graph")
    if len(graph[1]) > _MOST_NODES:
        raise _Refused(f"it has {len(graph[1])} nodes; at most {_MOST_NODES} are served")
    for node in graph[1]:
        _check_node(_message(node, "node"))
    constants = {_check_tensor(tensor) for tensor in graph[5]}
    inputs = [value for value in map(_value, graph[11]) if value[0] not in constants]
    outputs = tuple(_value(value)[0] for value in graph[12])
    for value in graph[13]:
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


def _check_node(node: _Message) -> None:
    operator, domain = _text(node, 4), _text(node, 7)
    if operator not in _OPERATORS.get(domain, ()):
        raise _Refused(f"it uses the operator {domain + ':' if domain else ''}{operator[:80]}, which is not served")
    lists: dict[str, list[int]] = {}
    for data in map(_bytes, node[5]):
        attribute = _message(data, "attribute")
        for tensor in [*attribute[5], *attribute[10]]:
            _check_tensor(tensor)
        name = _text(attribute, 1)
        if name in _SIDES and max(_whole(attribute[8]), default=0) > _MOST_SIDE:
            raise _Refused(f"a {operator} has {name} above {_MOST_SIDE}, or below 0")
        if operator.startswith("TreeEnsemble") and name in (*_TREES, _MODES):
            if name in lists:
                raise _Refused(f"a {operator} has {name} twice")
            lists[name] = (
                _whole(attribute[8]) if name != _MODES else [bytes(_bytes(mode)) == b"LEAF" for mode in attribute[9]]
            )
    if operator.startswith("TreeEnsemble"):
        trees, nodes, true, false, leaves = (lists.get(name, []) for name in (*_TREES, _MODES))
        fault = fault_of_trees(trees, nodes, true, false, leaves)
        if fault:
            raise _Refused(f"a {operator} has {fault}")


def _whole(given: list[_Value]) -> list[int]:
    """Return whole numbers, each of which stood alone or packed with others."""
    found: list[int] = []
    for one in given:
        if isinstance(one, int):
            found.append(one)
        else:
            found += _varints(one)
    return found


def _check_tensor(data: _Value) -> str:
    """Return a constant's name, once its shape is known to be no larger than its content."""
    tensor = _message(data, "tensor")
    kind = _number(tensor, 2)
    sides = _whole(tensor[1])
    if kind not in _ITEM_BYTES or len(sides) > 16 or _number(tensor, 14):
        raise _Refused("it has a constant of a type that is not served, or whose data lies elsewhere")
    count = math.prod(sides)
    typed = sum(1 if isinstance(v, int) else v.nbytes for n in (4, 5, 7, 10, 11) for v in tensor[n]) + len(tensor[6])
    held = len(_bytes(_only(tensor, 9, "data"))) // _ITEM_BYTES[kind] if tensor[9] else typed
    if count > held:
        raise _Refused(f"it has a constant of {count} numbers, of which the file holds at most {held}")
    return _text(tensor, 8)


def _value(data: _Value) -> tuple[str, int, list[int | None]]:
    """Return name, element type and shape of an input, an output or something between."""
    value = _message(data, "value")
    kind = _message(_only(value, 2, "type"), "type")
    tensor = _message(_only(kind, 1, "tensor type"), "tensor type")
    shape = _message(_only(tensor, 2, "shape"), "shape")[1] if tensor[2] else []
    sides = [_message(side, "dimension")[1] for side in shape]
    return _text(value, 1), _number(tensor, 1), [int(side[-1]) if side else None for side in sides]


def _message(data: _Value, kind: str) -> _Message:
    """Return the fields of a message by their number."""
    known = _FIELDS[kind]
    found: _Message = {number: [] for number in known}
    for number, wire_type, values in _fields(_bytes(data), runs=kind == "attribute"):
        if wire_type not in known.get(number, ()):
            part = _REFUSED_PARTS.get((kind, number), f"part {number} of a {kind}, which is not known here")
            raise _Refused(f"it has {part}")
        found[number].extend(values)
    return found


def _fields(data: memoryview, *, runs: bool) -> Iterator[tuple[int, int, Sequence[_Value]]]:
    """Yield number, wire type and content of each field, or of many of one number together."""
    at = 0
    while at < len(data):
        if runs and (run := _RUN.match(data, at)):
            at = run.end()
            yield from _run_of(run[0])
            continue
        key, at = _varint(data, at)
        wire_type = key & 7
        if wire_type == 0:
            value, at = _varint(data, at)
            yield key >> 3, wire_type, [value]
            continue
        size = {1: 8, 5: 4}.get(wire_type, 0)
        if wire_type == 2:
            size, at = _varint(data, at)
        elif not size:
            _damaged()
        if at + size > len(data):
            _damaged()
        yield key >> 3, wire_type, [data[at : at + size]]
        at += size


def _run_of(run: bytes) -> Iterator[tuple[int, int, Sequence[_Value]]]:
    """Yield a long list; of floats there is nothing to know."""
    if run[0] == 0x4A:
        yield 9, 2, [memoryview(text)[2:] for text in _TEXT.findall(run)]
    elif run[0] == 0x40:
        content = np.frombuffer(run, dtype=np.uint8)
        ends = np.flatnonzero(content < 0x80)  # the mark of a field, the last byte of its number, the next mark ...
        starts, lasts = ends[::2] + 1, ends[1::2]
        values = np.zeros(len(starts), dtype=np.uint64)
        for place in range(int((lasts - starts).max()) + 1):
            at = np.minimum(starts + place, lasts)
            digits = (content[at] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
            values |= np.where(starts + place <= lasts, digits, np.uint64(0))
        yield 8, 0, values.tolist()


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    _damaged()


def _varints(data: memoryview) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


def _only(message: _Message, number: int, what: str) -> _Value:
    # A field that is given twice would be merged with, or replace, the first: which one was looked at?
    if len(message[number]) != 1:
        raise _Refused(f"it has {len(message[number])} entries for a {what}, not one")
    return message[number][0]


def _text(message: _Message, number: int) -> str:
    return str(_bytes(_only(message, number, "name")), "utf-8") if message[number] else ""


def _number(message: _Message, number: int) -> int:
    given = _only(message, number, "number") if message[number] else 0
    return given if isinstance(given, int) else _damaged()


def _bytes(value: _Value) -> memoryview:
    return value if isinstance(value, memoryview) else _damaged()


def _damaged() -> NoReturn:
    raise IndexError("not protobuf")
