"""What may stand in LightGBM's model text, looked at before LightGBM sees it.

LightGBM believes its own text: it takes as many numbers as ``num_leaves`` promises, wherever its line ends, follows
children wherever they lead, and a text that was cut loads with the trees that were left. So the frame is read here
(every tree there, and the end mark), each list must have its length, and each tree must be one: children come after
their parent, and every node and leaf has exactly one. Only what scores need is handed on: the sizes by which LightGBM
would jump through the text in parallel, its parameters and pandas' categories stay behind.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from windsock.errors import DataContractError

_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")
_END = b"\nend of trees\n"
_HEADER = ("version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective",
           "average_output", "feature_names", "monotone_constraints", "feature_infos", "tree_sizes")  # fmt: skip
_PER_NODE = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child",
             "internal_value", "internal_weight", "internal_count")  # fmt: skip
_PER_LEAF = ("leaf_value", "leaf_weight", "leaf_count", "leaf_const", "num_features")
_SINGLE = ("num_leaves", "num_cat", "is_linear", "shrinkage")
_OTHER = ("cat_boundaries", "cat_threshold", "leaf_features", "leaf_coeff")
_NEEDED = ("split_feature", "threshold", "decision_type", "left_child", "right_child", "leaf_value")
_WHOLE = frozenset(("split_feature", "decision_type", "left_child", "right_child", "num_features", "num_leaves",
                    "num_cat", "is_linear", "cat_boundaries", "cat_threshold", "leaf_features"))  # fmt: skip
_CATEGORICAL = 1
"""Bit of ``decision_type``."""

_Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]
_Fields = Mapping[str, str]


class _Damaged(Exception):
    """What is wrong with the text."""


def checked(data: bytes, inputs: int, where: str) -> str:
    """Return the part of a model text that scores depend on, once it is whole and its trees are trees.

    Args:
        data: The file.
        inputs: How many features the card names.
        where: The file's place, for messages.

    Raises:
        DataContractError: The text was cut, changed or never was LightGBM's.
    """
    try:
        if found := _CONTROL.search(data):
            raise _Damaged(f"byte {found.start()} is no text")
        head, begun, rest = data.partition(b"\nTree=0\n")
        trees, ended, _ = (begun[1:] + rest).partition(_END)
        if not begun or not ended:
            raise _Damaged("it ends before its trees do" if begun else "it holds no tree")
        header = _header(head.decode(), inputs)
        blocks = trees.decode("ascii").removeprefix("Tree=").split("\nTree=")
        fields = [_fields(number, block) for number, block in enumerate(blocks)]
        promised = len(header["tree_sizes"].split())
        if len(fields) != promised:
            raise _Damaged(f"it holds {len(fields)} trees, but says that it has {promised}")
        _check_trees(fields, inputs)
    except (_Damaged, UnicodeDecodeError) as err:
        raise DataContractError(
            f"{where}: is damaged, or no model text of LightGBM's: {err}. Fetch or train the version again."
        ) from err
    lines = [line for line in head.decode().split("\n") if not line.startswith("tree_sizes=")]
    return "\n".join([*lines, trees.decode("ascii").rstrip("\n")]) + "\n\n" + _END.decode().lstrip("\n")


def _header(head: str, inputs: int) -> _Fields:
    found = _pairs("the header", [line for line in head.split("\n")[1:] if line], _HEADER)
    for name, wanted in (("num_class", 1), ("num_tree_per_iteration", 1), ("max_feature_idx", inputs - 1)):
        if found.get(name) != str(wanted):
            raise _Damaged(f"{name} is {found.get(name, 'missing')[:40]}, not {wanted}")
    for name in ("feature_names", "feature_infos"):
        if (count := len(found.get(name, "").split(" "))) != inputs:
            raise _Damaged(f"{name} lists {count}, not {inputs}")
    if "tree_sizes" not in found:
        raise _Damaged("it does not say how many trees it has")
    return found


def _fields(number: int, block: str) -> _Fields:
    """Return a tree's lines by name; ``block`` begins with its number."""
    first, *lines = block.rstrip("\n").split("\n")
    if first != str(number):
        raise _Damaged(f"tree {number} is missing: {first[:40]!r} stands in its place")
    found = _pairs(f"tree {number}", lines, (*_PER_NODE, *_PER_LEAF, *_SINGLE, *_OTHER))
    if missing := [name for name in ("num_leaves", "num_cat", *_NEEDED) if name not in found]:
        raise _Damaged(f"tree {number} has no {missing[0]}")
    return found


def _pairs(what: str, lines: Sequence[str], known: Sequence[str]) -> _Fields:
    pairs = [line.partition("=")[::2] for line in lines]
    found = dict(pairs)
    if unknown := [name for name in found if name not in known]:
        raise _Damaged(f"{what} has a line that starts with {unknown[0][:40]!r}")
    if len(found) < len(pairs):
        raise _Damaged(f"{what} has a line twice")
    return found


def _check_trees(trees: Sequence[_Fields], inputs: int) -> None:
    """Check all trees at once: they are many, and each is small."""
    single = {name: _numbers(name, [tree.get(name, "0") for tree in trees], 1) for name in _SINGLE}
    leaves = single["num_leaves"].astype(np.int64)
    if leaves.min() < 1:
        raise _Damaged("a tree has no leaf")
    nodes = leaves - 1
    per = {
        name: _numbers(name, [_list(tree, name) for tree in trees], counts)
        for names, counts in ((_PER_NODE, nodes), (_PER_LEAF, leaves))
        for name in names
    }
    _within("split_feature", per["split_feature"], 0, inputs)
    _within("decision_type", per["decision_type"], -128, 128)
    if not np.isfinite(per["leaf_value"]).all() or np.isnan(per["threshold"]).any():
        raise _Damaged("a leaf value or a threshold is no number")
    _check_children(nodes, per["left_child"].astype(np.int64), per["right_child"].astype(np.int64))
    starts = np.cumsum(np.append(0, nodes))
    for number in np.flatnonzero(single["num_cat"]).tolist():
        here = slice(starts[number], starts[number + 1])
        by_category = (per["decision_type"][here].astype(np.int64) & _CATEGORICAL) != 0
        _check_categories(trees[number], per["threshold"][here][by_category])
    plain = np.repeat(single["num_cat"] == 0, nodes)
    if ((per["decision_type"].astype(np.int64) & _CATEGORICAL) != 0)[plain].any():
        raise _Damaged("a tree without categories splits by one")
    for number in np.flatnonzero(single["is_linear"]).tolist():
        _check_linear(trees[number], inputs)


def _list(tree: _Fields, name: str) -> str | None:
    """Return a line of a tree, None if LightGBM does not read it: of one leaf it writes most lists empty."""
    values = tree.get(name)
    return None if values == "" and name != "leaf_value" and tree["num_leaves"] == "1" else values


def _check_children(nodes: npt.NDArray[np.int64], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> None:
    """Check that each tree's children make one tree: a node's number counts from 0, a leaf's is ``-1 - number``."""
    count, first = int(nodes.sum()), np.cumsum(nodes) - nodes
    base, leaf_base = np.repeat(first, nodes), np.repeat(first + np.arange(len(nodes)), nodes)
    own, most = np.arange(count) - base, np.repeat(nodes, nodes)
    node_parents, leaf_parents = np.zeros(count, np.int64), np.zeros(count + len(nodes), np.int64)
    for child in (left, right):
        inner = child >= 0
        # A child behind its parent: there is no way round in a circle.
        if ((child >= most) | (child < -1 - most) | (inner & (child <= own))).any():
            raise _Damaged("a child is none of its tree's, or leads back")
        node_parents += np.bincount((base + child)[inner], minlength=count)
        leaf_parents += np.bincount((leaf_base - 1 - child)[~inner], minlength=len(leaf_parents))
    root = own == 0
    lone = np.repeat(nodes == 0, nodes + 1)
    if (node_parents[~root] != 1).any() or node_parents[root].any() or (leaf_parents[~lone] != 1).any():
        raise _Damaged("a node or a leaf has no parent, or two")


def _check_categories(tree: _Fields, thresholds: _Numbers) -> None:
    """Check that each split by categories (its threshold says which set) has a set within the tree's bits."""
    count = int(tree["num_cat"])
    bounds, bits = (_numbers(name, [tree.get(name, "")], None) for name in ("cat_boundaries", "cat_threshold"))
    _within("cat_threshold", bits, 0, 1 << 32)
    if len(bounds) != count + 1 or bounds[0] != 0 or bounds[-1] != len(bits) or (np.diff(bounds) < 0).any():
        raise _Damaged("its sets of categories are not where it says")
    _within("threshold of a category", thresholds, 0, count)


def _check_linear(tree: _Fields, inputs: int) -> None:
    """Check the lists of a tree whose leaves are linear models."""
    if missing := [name for name in ("leaf_const", "num_features", "leaf_features", "leaf_coeff") if name not in tree]:
        raise _Damaged(f"a linear tree has no {missing[0]}")
    counts, features, factors = (
        _numbers(name, [tree[name]], None) for name in ("num_features", "leaf_features", "leaf_coeff")
    )
    _within("num_features", counts, 0, inputs + 1)
    _within("leaf_features", features, 0, inputs)
    if not counts.sum() == len(features) == len(factors):
        raise _Damaged("a linear leaf has another number of features than it says")


def _within(name: str, values: _Numbers, least: int, end: int) -> None:
    if len(values) and not (values.min() >= least and values.max() < end):
        raise _Damaged(f"{name} has a value outside of {least} to {end - 1}")


def _numbers(name: str, lists: Sequence[str | None], counts: npt.NDArray[np.int64] | int | None) -> _Numbers:
    """Return the numbers of a line of all trees, one after the other.

    Args:
        name: The line.
        lists: What stands in it; None: the tree has no such line, which then is no trouble.
        counts: How many numbers each must have; None: any.
    """
    split = [(part or "").split() for part in lists]
    if counts is not None:
        wanted = np.broadcast_to(counts, len(lists)).tolist()
        for number, (part, values, count) in enumerate(zip(lists, split, wanted, strict=True)):
            if part is not None and len(values) != count:
                raise _Damaged(f"tree {number} has {len(values)} values of {name}, not {count}")
    try:
        joined = pa.array([value for values in split for value in values], pa.string())
        return joined.cast(pa.int64() if name in _WHOLE else pa.float64()).to_numpy()  # type: ignore[no-any-return]
    except pa.ArrowInvalid as err:
        raise _Damaged(f"{name} holds something that is no number: {str(err)[:80]}") from err
