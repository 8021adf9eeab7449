import json
import os
import tracemalloc

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from windsock.errors import DataContractError
from windsock.served.formats import onnx as format_onnx
from windsock.served.formats import onnx_graph
from windsock.served.formats.onnx import MODEL_FILE, card_of
from windsock.served.matrix import Feature
from windsock.served.model import MODEL_CARD, load

FEATURES = (Feature("a"), Feature("b"), Feature("kind", ("x", "y")))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 3)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int)


def floats(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def graph(nodes, *, inputs=None, outputs=None, constants=(), opset=17, **more):
    """Return a model from (rows, 3) named ``x`` to ``y`` out of these nodes."""
    made = helper.make_graph(
        list(nodes), "g", inputs or [floats("x", [None, 3])], outputs or [floats("y", None)], list(constants), **more
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=imports, ir_version=8)


def mean():
    return graph([helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)])


def saved(folder, model, **card):
    folder.mkdir(exist_ok=True)
    (folder / MODEL_FILE).write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    given = {"input": "float32", "output": "y", "column": None, **card}
    (folder / MODEL_CARD).write_bytes(card_of("binary", FEATURES, **given))
    return folder


def rows(x):
    kinds = np.array(["x", "y", None], dtype=object)
    return pa.table({"a": x[:, 0], "b": x[:, 1], "kind": pa.array(kinds[RNG.integers(0, 3, len(x))])})


def refused(folder, model, match, **card):
    with pytest.raises(DataContractError, match=match):
        load(saved(folder, model, **card))


@pytest.mark.parametrize("kind", [LogisticRegression(), RandomForestClassifier(20, random_state=0)])
def test_a_converted_model_scores_as_its_library_does(tmp_path, kind, monkeypatch):
    kind.fit(X, Y)
    model = load(
        saved(tmp_path / "m", to_onnx(kind, X[:1], options={"zipmap": False}), output="probabilities", column=1)
    )
    monkeypatch.setattr("windsock.served.model.ROWS_AT_ONCE", 77)

    np.testing.assert_allclose(model.scorer(X.astype(float)), kind.predict_proba(X)[:, 1], rtol=0, atol=1e-6)
    assert model.feature_names == ("a", "b", "kind")
    assert set(model.content) == {MODEL_FILE, MODEL_CARD}
    again = tmp_path / "again"
    again.mkdir()
    for name, content in model.content.items():
        (again / name).write_bytes(content)
    assert load(again).content == model.content


def test_columns_categories_and_missing_values_arrive_as_in_every_format(tmp_path):
    last = helper.make_node("ArrayFeatureExtractor", ["x", "2"], ["y"], domain="ai.onnx.ml")
    model = load(saved(tmp_path / "m", graph([last], constants=[numpy_helper.from_array(np.array([2]), "2")])))
    table = pa.table({"kind": ["y", "never seen", None, "x"], "b": [0.0] * 4, "a": [1] * 4})

    np.testing.assert_array_equal(model.predict(table), [1, np.nan, np.nan, 0])
    assert model.predict(table.slice(0, 0)).shape == (0,)


def test_numbers_beyond_float32_become_infinite_without_a_warning(tmp_path):
    model = load(saved(tmp_path / "m", mean()))

    with np.errstate(all="raise"):
        assert model.scorer(np.full((1, 3), 1e300)).tolist() == [np.inf]


def test_a_float64_graph_is_fed_float64(tmp_path):
    double = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, s) for n, s in (("x", [None, 3]), ("y", None))]
    made = graph(mean().graph.node, inputs=double[:1], outputs=double[1:])

    assert load(saved(tmp_path / "m", made, input="float64")).scorer(np.full((1, 3), 1e300)).tolist() == [1e300]
    refused(tmp_path / "m", made, "of float64, but model.json lists 3 features and the input 'float32'")


@pytest.mark.parametrize(
    ("card", "match"),
    [
        ({"output": "scores"}, "gives y, but model.json asks for column None of 'scores'"),
        ({"column": 1}, "cannot score two rows of 3 features"),
        ({"column": -1}, "asks for column -1"),
        ({"column": True}, "asks for column True"),
        ({"input": "int64"}, "the input 'int64'"),
    ],
)
def test_a_card_that_does_not_fit_its_graph_is_refused(tmp_path, card, match):
    refused(tmp_path / "m", mean(), match, **card)


def test_an_unknown_field_of_the_card_gets_the_nearest_name(tmp_path):
    folder = saved(tmp_path / "m", mean())
    card = json.loads((folder / MODEL_CARD).read_bytes())
    (folder / MODEL_CARD).write_text(json.dumps(card | {"outputs": "y"}))
    with pytest.raises(DataContractError, match=r"'outputs'.*Did you mean 'output'"):
        load(folder)


def test_several_scores_per_row_and_other_inputs_are_refused(tmp_path):
    refused(tmp_path / "m", graph([helper.make_node("Abs", ["x"], ["y"])]), "One score per row is wanted")
    refused(tmp_path / "m", graph(mean().graph.node, inputs=[floats("x", [1, 3])]), "any number of rows is wanted")
    refused(tmp_path / "m", graph(mean().graph.node, inputs=[floats("x", [None, 4])]), "takes 4 columns")
    refused(
        tmp_path / "m", graph(mean().graph.node, inputs=[floats("x", [None, 3]), floats("z", [None, 3])]), "2 inputs"
    )


def branch():
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "inner", [], [floats("z", None)])
    return helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)


def hidden_branch():
    """A harmless operator that carries a graph all the same."""
    node = helper.make_node("ReduceMean", ["x"], ["y"])
    node.attribute.extend(branch().attribute)
    return node


def function_model():
    model = mean()
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], body, [helper.make_opsetid("", 17)]))
    return model


def outside(location):
    model = graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], constants=[numpy_helper.from_array(np.zeros(3, "f"), "w")]
    )
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    return model


def sparse():
    model = mean()
    tensor = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, "f"), "s"), numpy_helper.from_array(np.array([0])), [1 << 40]
    )
    model.graph.sparse_initializer.append(tensor)
    return model


def claims(*sides, content=12):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=sides, raw_data=b"\0" * content)
    return graph([helper.make_node("Add", ["x", "w"], ["y"])], constants=[tensor])


def twice():
    return mean().SerializeToString() + graph([branch()]).SerializeToString()


def one_node(operator, **attributes):
    return graph([helper.make_node(operator, ["x"], ["y"], **attributes)])


def sized(operator, *inputs):
    return graph(
        [helper.make_node(operator, inputs, ["y"])], constants=[numpy_helper.from_array(np.array([1 << 40]), "s")]
    )


HOSTILE = {
    "branch": (lambda: graph([branch()]), "operator If"),
    "hidden branch": (lambda: graph([hidden_branch()]), "a graph inside the graph"),
    "loop": (lambda: one_node("Loop"), "operator Loop"),
    "function": (function_model, "it has functions"),
    "foreign domain": (lambda: one_node("Gelu", domain="com.microsoft"), "com.microsoft:Gelu"),
    "relative file": (lambda: outside("../../etc/passwd"), "data in another file"),
    "absolute file": (lambda: outside("/etc/passwd"), "data in another file"),
    "file of memory": (lambda: outside("*/_ORT_MEM_ADDR_/*"), "data in another file"),
    "sparse": (sparse, "sparse tensors"),
    "fill": (lambda: sized("ConstantOfShape", "s"), "operator ConstantOfShape"),
    "expand": (lambda: sized("Expand", "x", "s"), "operator Expand"),
    "random": (lambda: graph([helper.make_node("RandomUniform", [], ["y"], shape=[1 << 40])]), "RandomUniform"),
    "border": (lambda: one_node("AveragePool", kernel_shape=[1], pads=[1 << 40, 0]), "has pads above"),
    "constant too large": (lambda: claims(1 << 40), "1099511627776 numbers, of which the file holds at most 3"),
    "constant below zero": (lambda: claims(-1, -1), "of which the file holds at most 3"),
    "two graphs": (twice, "2 entries for a graph"),
    "map": (lambda: graph(mean().graph.node, outputs=[helper.make_value_info(
        "y", helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])))]),
        "convert with zipmap=False"),
    "many nodes": (lambda: graph([helper.make_node("Abs", ["x"], ["y"])] * 20_001), "20001 nodes"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_graph_that_could_do_more_than_score_never_reaches_onnxruntime(tmp_path, name, monkeypatch):
    monkeypatch.setattr(format_onnx, "_session", lambda *_: pytest.fail("it was loaded"))
    make, match = HOSTILE[name]
    tracemalloc.start()
    refused(tmp_path / "m", make(), match)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 64 << 20


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 10)
    refused(tmp_path / "m", mean(), "at most 0 are loaded")


def test_damaged_files_are_refused_with_a_sentence_or_score(tmp_path):
    trees = to_onnx(RandomForestClassifier(3, max_depth=3, random_state=0).fit(X, Y), X[:1], options={"zipmap": False})
    whole = trees.SerializeToString()
    rng = np.random.default_rng(1)
    outcomes = []
    for n in range(300):
        damaged = bytearray(whole)
        if n % 3 == 0:
            damaged = damaged[: rng.integers(0, len(whole))]
        else:
            for place in rng.integers(0, len(whole), n % 3):
                damaged[place] = rng.integers(0, 256)
        try:
            onnx_graph.checked(bytes(damaged), "m")
            outcomes.append("passed on")
        except DataContractError:
            outcomes.append("refused")
    assert outcomes.count("refused") >= 100
    refused(tmp_path / "m", b"", "is refused: it has 0 entries for a graph")
    refused(tmp_path / "m", b"\x80\x04\x95", "is not an ONNX model")


def ensemble(after, *, trees=None, modes=None, **more):
    """Return one tree ensemble; ``after`` names the two nodes that follow each, None for a leaf."""
    count = len(after)
    modes = modes or ["LEAF" if pair is None else "BRANCH_LEQ" for pair in after]
    true, false = ([0 if pair is None else pair[side] for pair in after] for side in (0, 1))
    return graph([
        helper.make_node(
            "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, nodes_modes=modes,
            nodes_nodeids=list(range(count)), nodes_truenodeids=true, nodes_falsenodeids=false,
            nodes_treeids=trees or [0] * count, nodes_featureids=[0] * count, nodes_values=[0.0] * count,
            target_ids=[0], target_nodeids=[count - 1], target_treeids=[0], target_weights=[1.0], **more,
        )
    ])  # fmt: skip


def chain(levels):
    return ensemble([pair for n in range(levels) for pair in ((2 * n + 2, 2 * n + 1), None)] + [None])


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: ensemble([(1, 2), (0, 2), None]), "a node that several lead to"),
        (lambda: ensemble([(1, 2), (3, 1), None, None]), "a node that several lead to"),
        (lambda: ensemble([(1, 1), None]), "a node that several lead to"),
        (lambda: ensemble([(1, 2), None, None, (4, 5), (3, 6), None, None]), "nodes that no root leads to"),
        (lambda: ensemble([(1, 9), None]), "leads to none of its tree"),
        (lambda: ensemble([(1, -1), None]), "leads to none of its tree"),
        (lambda: ensemble([(1, 2), None, None], trees=[0, 0, 1]), "leads to none of its tree"),
        (lambda: ensemble([(1, 2), None, None], trees=[0, 0]), "lists of unequal length"),
        (lambda: ensemble([(1, 2), None, None], trees=[1 << 40] * 3), "number above"),
        (lambda: chain(2000), "more than 1000 levels"),
        (
            lambda: graph([helper.make_node("TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml")]),
            "TreeEnsemble, which is",
        ),
    ],
)
def test_trees_in_a_circle_and_other_than_trees_never_reach_onnxruntime(tmp_path, made, match, monkeypatch):
    monkeypatch.setattr(format_onnx, "_session", lambda *_: pytest.fail("it was loaded"))
    refused(tmp_path / "m", made(), match)


def test_a_tree_in_any_order_of_its_nodes_is_served(tmp_path):
    made = ensemble([(2, 3), None, (4, 1), None, None])

    assert load(saved(tmp_path / "m", made)).scorer(np.array([[-1.0, 0, 0], [1.0, 0, 0]])).tolist() == [1.0, 0.0]
    assert load(saved(tmp_path / "deep", chain(900))).scorer(np.zeros((1, 3))).tolist() == [1.0]


def test_what_the_lists_name_is_what_onnx_knows():
    for domain, names in onnx_graph._OPERATORS.items():
        for name in names:
            assert onnx.defs.has(name, "" if domain == "ai.onnx" else domain), name


def test_long_lists_are_passed_over_quickly_and_still_seen(tmp_path):
    node = ensemble([None], nodes_hitrates=[1.0] * 300_000).graph.node[0]
    next(a for a in node.attribute if a.name == "nodes_hitrates").graphs.append(
        branch().attribute[0].g
    )  # at the end of the list
    refused(tmp_path / "m", graph([node]), "graphs inside the graph")


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts threads as Linux shows them")
def test_one_thread_is_used_if_one_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDSOCK_THREADS", "1")
    import onnxruntime  # noqa: F401

    before = len(os.listdir("/proc/self/task"))
    load(saved(tmp_path / "m", mean())).scorer(np.zeros((50_000, 3)))
    assert len(os.listdir("/proc/self/task")) == before
