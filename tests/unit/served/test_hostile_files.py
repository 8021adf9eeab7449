"""Damaged and hostile model files of every format, one after the other in one process with limits: each is refused.

The process must be alive after the last of them. It may use 2 GiB of memory and a minute of CPU for all together.
"""

import io
import json
import re
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from fork_server import fork_context
from windsock.errors import DataContractError
from windsock.served.formats.lightgbm import lightgbm_files
from windsock.served.formats.lightgbm_text import checked
from windsock.served.matrix import Feature
from windsock.served.model import load

FEATURES = (Feature("a"), Feature("b"), Feature("kind", ("u", "v", "w", "x", "y")))
ROWS = np.random.default_rng(0)
X = np.column_stack([ROWS.normal(size=(600, 2)), ROWS.integers(0, 5, 600)])
X[::9, 0] = np.nan
Y = (np.nan_to_num(X[:, 0]) + np.isin(X[:, 2], (1, 4)) + X[:, 1] ** 2 > 1).astype(float)


def boosted(**params: object) -> lightgbm.Booster:
    settled = {"verbosity": -1, "num_threads": 1, "num_leaves": 12, "objective": "binary", "min_data_per_group": 5}
    data = lightgbm.Dataset(X, Y, categorical_feature=[2])
    return lightgbm.train({**settled, **params}, data, 12)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"boosting": "dart"},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7},
        {"objective": "regression", "linear_tree": True},
        {"objective": "quantile"},
        {"objective": "regression", "monotone_constraints": [1, 0, 0]},
        {"objective": "poisson", "min_gain_to_split": 1e9},  # nothing but single leaves
        {"cat_smooth": 1.0, "max_cat_to_onehot": 1, "extra_trees": True},
    ],
    ids=str,
)
def test_the_checked_part_of_an_honest_text_scores_bit_for_bit_as_all_of_it(params: dict[str, object]) -> None:
    text = boosted(**params).model_to_string()
    part = checked(text.encode(), len(FEATURES), "here")
    scores = [lightgbm.Booster(model_str=one).predict(X, num_threads=1) for one in (text, part)]
    np.testing.assert_array_equal(*scores)
    assert "parameters" not in part


def texts() -> Iterator[tuple[str, bytes, str]]:
    """Yield name, content and what is said of each hostile text of LightGBM's."""
    whole = boosted(num_threads=1).model_to_string()
    end = whole.index("end of trees")
    sizes = next(line for line in whole.split("\n") if line.startswith("tree_sizes="))
    bare = whole.replace(sizes + "\n", "")
    for text, kind in ((whole, "sized"), (bare, "bare")):
        for share in (10, 30, 50, 90, 99):
            yield (
                f"{kind}, cut at {share} %",
                text[: end * share // 100].encode(),
                "ends before its trees|holds no tree",
            )
    yield "bare", bare.encode(), "does not say how many trees"

    def line(name: str, change: Callable[[list[str]], list[str]]) -> bytes:
        """Change the values of a line of the first tree that splits by categories."""
        tree = whole.index("num_cat=1")
        begin = whole.index(f"\n{name}=", whole.rindex("Tree=", 0, tree)) + len(name) + 2
        stop = whole.index("\n", begin)
        return (whole[:begin] + " ".join(change(whole[begin:stop].split())) + whole[stop:]).encode()

    def first(value: object) -> Callable[[list[str]], list[str]]:
        return lambda values: [str(value), *values[1:]]

    no_child, no_parent = "none of its tree's, or leads back", "has no parent, or two"
    yield (
        "circle",
        re.sub(rb"(left|right)_child=.*", lambda m: m[1] + b"_child=" + b" ".join([b"0"] * 11), whole.encode()),
        (f"{no_child}|not \\d+"),
    )
    for child in (100000, -100000, 99999999, -99999999, 0, 2**62, -(2**63)):
        yield f"child {child}", line("left_child", first(child)), no_child
    yield "a child twice", line("left_child", lambda values: [values[1], *values[1:]]), f"{no_child}|{no_parent}"
    yield "leaves of another", line("right_child", lambda values: [*values[:-1], "-1"]), no_parent
    yield "a far feature", line("split_feature", first(99999999)), "split_feature has a value outside"
    yield "a feature before all", line("split_feature", first(-1)), "split_feature has a value outside"
    yield "many leaves", line("num_leaves", first(2000000000)), "not 1999999999|values of"
    yield "no leaf", line("num_leaves", first(0)), "has no leaf|values of"
    yield "leaves beyond numbers", line("num_leaves", first(2**70)), "no number"
    yield "one leaf value", line("leaf_value", lambda values: values[:1]), "1 values of leaf_value"
    yield "one leaf value more", line("leaf_value", lambda values: [*values, "1"]), "values of leaf_value"
    yield "a leaf of nan", line("leaf_value", first("nan")), "is no number"
    yield "an endless leaf", line("leaf_value", first("1e999")), "is no number"
    yield "a threshold of text", line("threshold", first("%s%n")), "threshold holds something that is no number"
    yield "a child of text", line("left_child", first("1x")), "left_child holds something that is no number"
    yield "a far set", line("threshold", lambda values: ["9" * 9] * len(values)), "threshold of a category|no number"
    yield "sets of nobody", line("num_cat", first(0)), "without categories splits by one"
    yield (
        "far sets",
        line("cat_boundaries", lambda values: ["0", *["99999999"] * (len(values) - 1)]),
        "not where it says",
    )
    yield "sets before all", line("cat_boundaries", first(-7)), "not where it says"
    yield "many sets", line("num_cat", first(2000000000)), "not where it says"
    yield "bits beyond", line("cat_threshold", first(2**40)), "cat_threshold has a value outside"
    yield "a linear tree of nothing", line("is_linear", first(1)), "a linear tree has no"
    yield "a decision beyond", line("decision_type", first(300)), "decision_type has a value outside"
    trees = whole.split("\nTree=")
    yield "a tree less", "\nTree=".join(trees[:5] + trees[6:]).encode(), "tree 4 is missing|tree 5 is missing"
    yield "trees exchanged", "\nTree=".join([*trees[:3], trees[4], trees[3], *trees[5:]]).encode(), "is missing"
    yield "a promise more", whole.replace(sizes, f"{sizes} 100").encode(), "says that it has 13"
    yield (
        "a line less",
        whole.replace("left_child=", "wrong_child=", 1).encode(),
        "a line that starts with 'wrong_child'",
    )
    yield "a line twice", whole.replace("num_leaves=", "num_leaves=3\nnum_leaves=", 1).encode(), "has a line twice"
    yield "a line of nothing", whole.replace("num_leaves=", "\nnum_leaves=", 1).encode(), "line that starts with ''"
    yield "a line without a name", whole.replace("num_leaves=", "num_leaves", 1).encode(), "a line that starts with"
    yield "many classes", whole.replace("num_class=1", "num_class=2000000000").encode(), "num_class is 2000000000"
    yield "many trees a round", whole.replace("iteration=1", "iteration=7").encode(), "num_tree_per_iteration is 7"
    yield "many features", whole.replace("feature_idx=2", "feature_idx=1999999999").encode(), "max_feature_idx is"
    yield "few names", whole.replace("feature_names=Column_0 ", "feature_names=").encode(), "feature_names lists 2"
    yield "zeros", whole.encode().replace(b"threshold", b"thres\x00old", 1), "is no text"
    yield "another system's lines", whole.replace("\n", "\r\n").encode(), "not LightGBM's model text"
    yield "no UTF-8", whole.encode().replace(b"Column_0", b"Colum\xff_0"), "can't decode"
    yield "nothing", b"", "not LightGBM's model text"
    yield "a head alone", b"tree\n", "holds no tree"


def zipped(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def overlapping() -> bytes:
    """Four hundred entries of the table of contents that are one and the same megabyte."""
    raw = zipped([("a/data/weights/weight_0", bytes(1 << 20))])
    begin = raw.index(b"PK\x01\x02")
    entry, end = raw[begin : raw.index(b"PK\x05\x06")], bytearray(raw[raw.index(b"PK\x05\x06") :])
    entries = b"".join(entry.replace(b"weight_0", b"weight_" + b"%03d" % n).replace(
        struct.pack("<H", len("a/data/weights/weight_0")), struct.pack("<H", len("a/data/weights/weight_000")), 1)
        for n in range(400))  # fmt: skip
    struct.pack_into("<HHI", end, 8, 400, 400, len(entries))
    return raw[:begin] + entries + bytes(end)


def others() -> Iterator[tuple[str, dict[str, bytes], str]]:
    """Yield name, files and what is said of hostile files of the other formats."""
    inputs = [{"name": "a", "categories": None}]

    def card(form: str, features: object = inputs, **more: object) -> bytes:
        return json.dumps({"format": f"windsock-{form}/1", "task": "regression", "features": features, **more}).encode()

    number = {"name": "a", "categories": None, "coefficient": 1.0}
    for name, features, said in (
        ("a coefficient beyond", [{**number, "coefficient": 10**400}], "not a finite number"),
        ("twenty thousand times one input", [number] * 20_000, "is listed twice"),
        ("a scale of nothing", [{**number, "scale": 0}], "must be above 0"),
        ("few coefficients", [{"name": "a", "categories": ["u", "v"], "coefficients": [1]}], "1 coefficients"),
    ):
        yield f"linear: {name}", {"model.json": card("linear", features, intercept=0.0)}, said
    yield "linear: deep", {"model.json": b"[" * 900 + b"]" * 900}, "nested more than"
    yield "linear: deeper", {"model.json": b'{"a":' * 200_000}, "does not describe"
    yield "a long number", {"model.json": b'{"format": ' + b"9" * 100_000 + b"}"}, "does not describe"

    about = {"network": {"hidden": [4], "gaps": []}}
    header = json.dumps({"x": {"dtype": "F64", "shape": [1 << 40], "data_offsets": [0, 8]}}).encode()
    for name, data, said in (
        ("a header beyond", struct.pack("<Q", 1 << 60) + b"{}", "does not begin with a safetensors header"),
        ("a far shape", struct.pack("<Q", len(header)) + header + bytes(8), "safetensors cannot read it"),
        ("a deep header", struct.pack("<Q", 100_000) + b"[" * 100_000, "safetensors cannot read it"),
        ("nothing", b"", "does not begin|safetensors cannot read it"),
    ):
        yield f"network: {name}", {"model.json": card("network", **about), "model.safetensors": data}, said
    wide = card("network", network={"hidden": [1 << 20] * 8, "gaps": []})
    yield "network: wide", {"model.json": wide, "model.safetensors": b""}, "more than 2 GiB"

    for name, data, said in (
        ("members that overlap", overlapping(), "overlap"),
        ("no program", zipped([("a/models/model.json", b"{}")]), "lacks data/weights"),
        ("nothing", b"", "is not PyTorch's pt2 archive"),
        ("a deep graph", zipped([("a/models/model.json", b"[" * 200_000), *(
            (f"a/data/{kind}/model_{kind}_config.json", b'{"config": {}}') for kind in ("weights", "constants"))]),
         "is damaged: RecursionError"),
    ):  # fmt: skip
        yield f"torch: {name}", {"model.json": card("torch"), "model.pt2": data}, said

    more = {"input": "float32", "output": "y", "column": None}
    for name, data, said in (
        ("nothing", b"", "is refused|not an ONNX model"),
        ("noise", bytes(range(256)) * 40, "not an ONNX model|is refused"),
        ("a length beyond", b"\x3a\xff\xff\xff\xff\x07" + b"\x00" * 64, "not an ONNX model"),
        (
            "empty nodes",
            b"\x3a" + b"\x82\x80\x40" + b"\x0a\x00" * ((1 << 19) + 1),
            "nodes; at most 20000|is refused|not an",
        ),
    ):
        yield f"onnx: {name}", {"model.json": card("onnx", **more), "model.onnx": data}, said


def refusals(folders: list[str]) -> list[str]:
    """Load each of the folders, and return what is said of it; runs in the process with limits."""
    resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 60, resource.RLIM_INFINITY))
    said = []
    for folder in folders:
        try:
            load(folder)
            said.append("loaded")
        except DataContractError as err:
            said.append(str(err))
    return said


def test_sixty_and_more_hostile_files_are_refused_with_a_sentence_by_a_process_that_lives_on(tmp_path: Path) -> None:
    card = lightgbm_files(boosted(), "binary", FEATURES)["model.json"]
    files = [(f"trees: {name}", {"model.json": card, "model.txt": text}, said) for name, text, said in texts()]
    files += others()
    assert len(files) >= 60
    folders = [tmp_path / str(n) for n in range(len(files))]
    for folder, (_, content, _) in zip(folders, files, strict=True):
        folder.mkdir()
        for name, data in content.items():
            (folder / name).write_bytes(data)
    with ProcessPoolExecutor(1, mp_context=fork_context()) as pool:
        told = pool.submit(refusals, [str(folder) for folder in folders]).result()

    wrong = [
        (name, sentence[:300])
        for (name, _, said), sentence, folder in zip(files, told, folders, strict=True)
        if not re.search(said, sentence) or not sentence.startswith(str(folder)) or len(sentence) > 900
    ]
    assert not wrong


def test_many_inputs_are_no_trouble(tmp_path: Path) -> None:
    features = [{"name": f"x{n}", "categories": None, "coefficient": 1.0} for n in range(20_000)]
    card = {"format": "windsock-linear/1", "task": "regression", "intercept": 0.0, "features": features}
    (tmp_path / "model.json").write_text(json.dumps(card))
    assert len(load(tmp_path).features) == 20_000
