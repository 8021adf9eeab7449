"""The arithmetic of exported PyTorch programs: which operators are known, and one node's turn.

A node names an operator and describes its arguments. Operators are PyTorch's own, taken from a
list; arithmetic on sizes is Python's, on whole numbers that stay small. What an operator could be
asked to make out of nothing is bounded before it is called, and each result is.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_NUMBERS = 1 << 28
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
_PLAIN = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string")
DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
           12: "bool", 13: "bfloat16"}  # fmt: skip
_MEMORY_FORMATS = {1: "contiguous_format", 4: "preserve_format"}


class Refused(Exception):
    """The program holds something that is not evaluated here; the text says what."""


@dataclass(frozen=True)
class Node:
    """One step of a program."""

    name: str
    """``_operator.mul`` or ``aten.linear``, for messages."""
    call: Callable[..., Any]
    inputs: tuple[tuple[str, Mapping[str, Any]], ...]
    """Name and description of each argument."""
    outputs: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Node:
        """Read a node.

        Raises:
            Refused: It names something that is no known arithmetic.
        """
        import torch

        target = str(raw["target"])
        inputs = tuple((str(given["name"]), dict(given["arg"])) for given in raw["inputs"])
        outputs = tuple(raw["outputs"])
        match target.split("."):
            case ["_operator", name] if name in _NUMBERS:
                return cls(target, getattr(operator, name), inputs, outputs)
            case ["torch", "ops", "aten", name, overload] if name in _TENSORS:
                call = getattr(getattr(torch.ops.aten, name), overload)
                return cls(f"aten.{name}", call, inputs, outputs)
        raise Refused(f"its graph has {target[:80]!r} as target, which is not on the list of known arithmetic")

    def evaluate(self, values: dict[str, Any], given: set[int]) -> None:
        """Compute the node's results and put them among the values.

        Args:
            values: Tensors and sizes so far, by name.
            given: Addresses of the rows and weights, which no node may change.

        Raises:
            Refused: It is asked for more than any honest network needs.
        """
        arguments = {name: _argument(raw, values) for name, raw in self.inputs}
        computed = _on_numbers if self.name.startswith("_operator.") else _on_tensors
        result = computed(self, arguments, given)
        results = result if len(self.outputs) > 1 else (result,)
        for output, value in zip(self.outputs, results, strict=False):
            ((kind, content),) = output.items()
            if kind in ("as_tensors", "as_optional_tensors"):
                for one, tensor in zip(content, value, strict=True):
                    values[(one if "name" in one else one["as_tensor"])["name"]] = tensor
            elif kind != "as_none":
                values[content["name" if "name" in content else "as_name"]] = value


def _argument(raw: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return what a node is given, from its description."""
    import torch

    ((kind, content),) = raw.items()
    if kind in _PLAIN:
        return content
    if kind == "as_none":
        return None
    if kind in ("as_tensor", "as_optional_tensor"):
        return values[content["name"]]
    if kind in ("as_tensors", "as_optional_tensors"):
        return [values[one["name"]] if "name" in one else _argument(one, values) for one in content]
    if kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        ((inner, value),) = content.items()
        return values[value] if inner == "as_name" else value
    if kind in ("as_sym_ints", "as_sym_bools", "as_sym_floats"):
        return [_argument({kind.removesuffix("s"): one}, values) for one in content]
    if kind == "as_scalar_type":
        return getattr(torch, DTYPES[content])
    if kind == "as_memory_format":
        return getattr(torch, _MEMORY_FORMATS[content])
    if kind == "as_layout" and content == 7:
        return torch.strided
    if kind == "as_device" and content["type"] == "cpu":
        return torch.device("cpu")
    raise Refused(f"a node is given {kind} {str(content)[:80]!r}, which is no number and no tensor")


def _on_numbers(node: Node, arguments: Mapping[str, Any], _: set[int]) -> Any:
    """Return the result of Python's own arithmetic, which is on sizes."""
    numbers = list(arguments.values())
    if node.call is operator.getitem:
        return numbers[0][operator.index(numbers[1])]
    if not all(isinstance(value, int | float) and abs(value) <= _LARGEST for value in numbers):
        raise Refused(f"a size is computed as {node.name} of {str(numbers)[:80]}")
    if node.call is operator.pow and not 0 <= numbers[1] <= 64:
        raise Refused(f"a size is raised to the power {numbers[1]}")
    return node.call(*numbers)


def _on_tensors(node: Node, arguments: dict[str, Any], given: set[int]) -> Any:
    """Return an operator's result, once its arguments are known not to ask for more than there is."""
    import torch

    whole = [value for value in arguments.values() if isinstance(value, list) and all(map(_is_whole, value))]
    own = arguments.get("self")
    most = max((math.prod(max(1, abs(v)) for v in value) for value in whole), default=1)
    if node.name in ("aten.repeat", "aten.tile"):
        most *= own.numel()  # type: ignore[union-attr]
    elif node.name == "aten.one_hot":
        most = own.numel() * max(1, arguments.get("num_classes", -1))  # type: ignore[union-attr]
    elif node.name == "aten.arange":
        most = abs(arguments["end"] - arguments.get("start", 0)) / abs(arguments.get("step", 1))
    if not most <= MOST_NUMBERS or max(_flat(arguments.get("padding", 0)), default=0) > _MOST_PADDING:
        raise Refused(f"{node.name} is asked for {most:.3g} numbers")
    if node.name.endswith("_") and own.data_ptr() in given:  # type: ignore[union-attr]
        raise Refused(f"{node.name} changes the rows or a weight")
    result = node.call(**arguments)
    for tensor in result if isinstance(result, tuple | list) else (result,):
        if isinstance(tensor, torch.Tensor) and tensor.numel() > MOST_NUMBERS:
            raise Refused(f"{node.name} gives {tensor.numel()} numbers")
    return result


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _flat(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [value] if _is_whole(value) else []
