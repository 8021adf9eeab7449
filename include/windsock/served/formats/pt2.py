"""What may stand in a ``model.pt2``, and writing it so that equal programs give equal bytes.

``torch.export.load`` (seen in 2.13) trusts its file in more ways than one:

- sample inputs are unpickled, without limits if a first, careful attempt fails; so are
  weights and constants that are marked ``use_pickle``, custom objects and legacy members;
- compiled libraries among the members are loaded;
- sizes go through ``sympify`` and guards through ``exec``, and names of tensors end up in
  Python source that is executed;
- a node may name any function below ``torch``, ``operator`` or ``math``, and it is called.

So an archive is checked first, member by member and word by word, and what is loaded is a
fresh archive made of the checked members alone. What is left is raw numbers and a graph
of known arithmetic on them.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from windsock.errors import DataContractError

_ROOT = "archive/"
_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_FIXED = (_GRAPH, _SAMPLES, _WEIGHTS, _CONSTANTS, "archive_format", "archive_version", "byteorder", ".data/version",
          ".data/serialization_id")  # fmt: skip
_RAW = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,6}")

_PYTHON = "add sub mul floordiv mod neg eq ne lt le gt ge and_ or_ getitem pow"
_OPERATORS = frozenset(f"_operator.{name}" for name in _PYTHON.split())
_TENSORS = """
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
_ATEN = frozenset(_TENSORS.split())
_TARGET = re.compile(r"torch\.ops\.aten\.(\w+)\.\w+")
_NAME = re.compile(r"\w{0,200}")
_DOTTED = re.compile(r"[\w.+]{0,400}")
_PATHS = ("fqn", "parameter_name", "buffer_name", "tensor_constant_name", "torch_version")
_FORBIDDEN = frozenset(("as_graph", "as_custom_obj", "as_operator"))
"""Kinds of arguments that are no numbers: a program inside the program, an object, a function."""
# Without ** and <<, whose results could be larger than any memory, and without going back over what has matched.
_EXPRESSION = re.compile(
    r"(?!.*\*\*)"
    r"(?:Symbol\('[su]\d{1,6}'(?:, (?:positive|integer|nonnegative)=(?:True|False))*+\)"
    r"|\b(?:[su]\d{1,6}|Integer|Add|Mul|Max|Min|Eq|Ne|Mod|FloorDiv|int_oo|oo)\b|\b\d{1,12}\b|[-+*/(), ])*+"
)


def checked(data: bytes, where: str) -> bytes:
    """Return an archive with the same program that is safe to load.

    Args:
        data: Content of a ``model.pt2``.
        where: Its place, for messages.

    Raises:
        DataContractError: It is no such archive, or holds something that loading would run.
    """
    members = _members(data, where)
    for name in members:
        if name not in _FIXED and not _RAW.fullmatch(name):
            raise _refused(where, f"it has a member {name!r}, which is neither graph nor numbers")
    if members.get(_SAMPLES):
        raise _refused(where, "it has sample inputs, which PyTorch stores as a pickle")
    for name, prefix in ((_WEIGHTS, "weight_"), (_CONSTANTS, "tensor_")):
        for payload in _json(members, name, where).get("config", {}).values():
            if payload.get("use_pickle", True) or not re.fullmatch(prefix + r"\d{1,6}", str(payload.get("path_name"))):
                raise _refused(where, f"{name} has an entry that is not raw numbers: {str(payload)[:80]}")
    graph = _json(members, _GRAPH, where)
    if graph.get("guards_code"):
        raise _refused(where, "it carries guards, which are Python code")
    members[_GRAPH] = json.dumps(_cleaned(graph, where), sort_keys=True).encode()
    return _archive(members)


def rewritten(data: bytes, where: str = "the exported program") -> bytes:
    """Return what ``torch.export.save`` wrote as the archive that is kept: no guards, no sample inputs, fixed times.

    Raises:
        DataContractError: The program holds something that :func:`checked` would refuse.
    """
    members = _members(data, where)
    members[_SAMPLES] = b""
    graph = _json(members, _GRAPH, where)
    graph["guards_code"] = []
    members[_GRAPH] = json.dumps(graph, sort_keys=True).encode()
    # A hash over the members as they were.
    members[".data/serialization_id"] = b"0" * 40
    return checked(_archive(members), where)


def _members(data: bytes, where: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            root = names[0].partition("/")[0] + "/" if names else _ROOT
            if len(set(names)) < len(names) or not all(name.startswith(root) for name in names):
                raise _refused(where, "its members are not those of one program")
            # Stored as they are: a compressed one could be many times as large as the file.
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise _refused(where, "it has compressed members")
            found = {name.removeprefix(root): archive.read(name) for name in names}
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as err:
        raise DataContractError(
            f"{where}: is not PyTorch's pt2 archive (it starts with {data[:8]!r}), and pickles are never loaded. "
            "Save it with torch.export.save, or train the version again."
        ) from err
    for name in (_GRAPH, _WEIGHTS, _CONSTANTS):
        if name not in found:
            raise _refused(where, f"it lacks {name}, so it was not written by torch.export.save")
    return found


def _archive(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted({_SAMPLES: b"", **members}):
            # The constructor's default time is 1980, so the clock leaves no trace.
            archive.writestr(zipfile.ZipInfo(_ROOT + name), members.get(name, b""))
    return file.getvalue()


def _json(members: Mapping[str, bytes], name: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(members[name])
    except (ValueError, RecursionError) as err:
        raise DataContractError(f"{where}: {name} inside is damaged: {err}. Fetch or train the version again.") from err
    if not isinstance(content, dict):
        raise _refused(where, f"{name} inside is no JSON object")
    return content


def _cleaned(graph: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a graph without its notes about source code, once every word in it is known to be harmless.

    Raises:
        DataContractError: A word could run something.
    """
    cleaned: dict[str, Any] = _without_notes(graph)
    for key, word in _words(cleaned):
        if key == "target":
            harmless = word in _OPERATORS or ((match := _TARGET.fullmatch(word)) is not None and match[1] in _ATEN)
            why = "on the list of known arithmetic (windsock/served/formats/pt2.py)"
        elif key == "expr_str":
            harmless, why = _EXPRESSION.fullmatch(word) is not None, "plain arithmetic on sizes"
        elif key in ("in_spec", "out_spec"):
            harmless, why = _plain_spec(word), "one matrix in and one score per row out"
        else:
            allowed = _DOTTED if key in _PATHS else _NAME
            harmless, why = allowed.fullmatch(word) is not None and word not in _FORBIDDEN, "a plain name"
        if not harmless:
            raise _refused(where, f"its graph has {word[:80]!r} as {key or 'a part'}, which is not {why}")
    return cleaned


def _without_notes(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: {} if k == "metadata" else _without_notes(v) for k, v in value.items()}
    return [_without_notes(v) for v in value] if isinstance(value, list) else value


def _words(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text with the name it stands under, and every name as well: some are tensors'."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield "", name
            yield from _words(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner, key)
    elif isinstance(value, str):
        yield key, value


def _plain_spec(text: str) -> bool:
    """Say whether a description of inputs or outputs is made of tuples, lists and empty dictionaries alone."""

    def plain(spec: Any) -> bool:
        return (
            isinstance(spec, dict)
            and spec.get("type") in (None, "builtins.tuple", "builtins.list", "builtins.dict")
            and spec.get("context") in (None, "null", "[]")
            and all(plain(child) for child in spec.get("children_spec", ()))
        )

    try:
        version, spec = json.loads(text)
    except (ValueError, TypeError):
        return False
    return version == 1 and plain(spec)


def _refused(where: str, why: str) -> DataContractError:
    return DataContractError(
        f"{where}: is refused: {why}. Loading it could run whatever it contains. Export a network of plain tensor "
        "arithmetic without sample inputs (program._example_inputs = None before torch.export.save), or train again."
    )
