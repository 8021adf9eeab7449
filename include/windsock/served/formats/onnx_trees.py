"""Are the trees of an ONNX tree ensemble trees? onnxruntime follows a circle of nodes for ever (1.32)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MOST_LEVELS = 1000
"""onnxruntime goes down a tree by recursion while it loads."""


def fault_of_trees(
    trees: Sequence[int], nodes: Sequence[int], true: Sequence[int], false: Sequence[int], leaves: Sequence[int]
) -> str | None:
    """Return what is wrong with an ensemble, or None.

    Args:
        trees: Number of the tree that each node belongs to, shape ``(nodes,)``; the first of each is its root.
        nodes: Number of each node within its tree, shape ``(nodes,)``.
        true: Node that follows where the comparison holds, shape ``(nodes,)``; not looked at for a leaf.
        false: Node that follows elsewhere, shape ``(nodes,)``.
        leaves: Whether a node is a leaf (0 or 1), shape ``(nodes,)``.
    """
    if len({len(part) for part in (trees, nodes, true, false, leaves)}) != 1:
        return "lists of unequal length"
    if max([*trees, *nodes], default=0) >= 1 << 31:
        return "a node or tree with a number above 2³¹"
    tree, branch = np.array(trees, dtype=np.uint64) << np.uint64(32), ~np.array(leaves, dtype=bool)
    keys = tree + np.array(nodes, dtype=np.uint64)
    order = np.argsort(keys)
    if (np.diff(keys[order]) == 0).any():
        return "two nodes of one number"
    after: list[npt.NDArray[np.intp]] = []
    for followers in (true, false):
        wanted = tree | np.array(followers, dtype=np.uint64)
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
