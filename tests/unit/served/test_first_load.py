import json
import math
import re
import signal
import time

import lightgbm
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from windsock.errors import DataContractError
from windsock.served.first_load import _how_it_ended, load_untrusted, rows_like
from windsock.served.formats.lightgbm import lightgbm_files
from windsock.served.formats.onnx import card_of
from windsock.served.matrix import Feature
from windsock.served.model import load

FEATURES = (Feature("a"), Feature("kind", ("x", "y", "")))
LINEAR = {
    "format": "windsock-linear/1",
    "task": "binary",
    "intercept": 0.5,
    "features": [
        {"name": "a", "categories": None, "coefficient": 2.0},
        {"name": "kind", "categories": ["x", "y", ""], "coefficients": [0.1, 0.2, 0.3]},
    ],
}


def saved(folder, files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def trees():
    x = np.random.default_rng(0).normal(size=(300, 2))
    booster = lightgbm.train({"verbosity": -1, "num_threads": 1, "num_leaves": 8}, lightgbm.Dataset(x, x[:, 0]), 20)
    return lightgbm_files(booster, "regression", (Feature("a"), Feature("b")))


def onnx_files(nodes, constants=()):
    inputs, outputs = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in (("x", [None, 2]), ("y", None))
    )
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    card = card_of("regression", FEATURES, input="float32", output="y")
    return {"model.onnx": model.SerializeToString(), "model.json": card}


def product(side, times):
    """Constants whose product has side² numbers, multiplied with itself some times."""
    first, second = (numpy_helper.from_array(np.zeros(s, "f"), n) for n, s in (("u", (side, 1)), ("v", (1, side))))
    nodes = [helper.make_node("MatMul", ["u", "v"], ["w0"])]
    nodes += [helper.make_node("MatMul", [f"w{n}", "w0"], [f"w{n + 1}"]) for n in range(times)]
    nodes += [
        helper.make_node("ReduceSum", [f"w{times}"], ["s"], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Add", ["s", "m"], ["y"]),
    ]
    return onnx_files(nodes, [first, second])


def wild_trees():
    """A child far outside of its tree."""
    text = trees()["model.txt"].decode()
    return trees() | {"model.txt": re.sub("left_child=.*", "left_child=99999999", text).encode()}


@pytest.mark.parametrize("made", [trees, lambda: {"model.json": json.dumps(LINEAR).encode()}], ids=["trees", "linear"])
def test_an_honest_model_scores_as_if_loaded_directly(tmp_path, made):
    folder = saved(tmp_path / "m", made())
    model = load_untrusted(str(folder))
    rows = rows_like(model.features, 100)

    np.testing.assert_array_equal(model.predict(rows), load(folder).predict(rows))
    assert model.content == load(folder).content


@pytest.mark.parametrize(
    ("made", "says"),
    [
        pytest.param(wild_trees, "is damaged, or no model text of LightGBM's", id="wild trees"),
        pytest.param(lambda: product(3000, 100), "it took more than 3 s of CPU", id="busy"),
        pytest.param(lambda: product(200_000, 0), "bad_alloc|Failed to allocate", id="memory"),
    ],
)
def test_a_model_that_harms_its_process_is_refused_with_a_sentence_that_names_it(tmp_path, made, says):
    folder = str(saved(tmp_path / "m", made()))
    with pytest.raises(DataContractError, match=rf"^{folder}[\s\S]*{says}"):
        load_untrusted(folder, cpu_s=3)


def test_how_a_child_ended_is_said_in_words():
    assert _how_it_ended(-signal.SIGSEGV, 3) == "its library crashed (SIGSEGV)"
    assert _how_it_ended(-signal.SIGKILL, 3).startswith("the system killed it")


def test_the_childs_own_refusal_arrives_word_for_word(tmp_path):
    folder = saved(tmp_path / "m", {"model.json": b"{}", "model.pkl": b"\x80\x04"})
    with pytest.raises(DataContractError) as alone:
        load(folder)
    with pytest.raises(DataContractError) as by_child:
        load_untrusted(str(folder))
    assert str(by_child.value) == str(alone.value)
    with pytest.raises(DataContractError, match=r"nowhere: is no model: it lacks model\.json"):
        load_untrusted(str(tmp_path / "nowhere"))


def test_a_folder_of_too_much_is_not_even_read(tmp_path):
    folder = saved(tmp_path / "m", {"model.json": json.dumps(LINEAR).encode(), **{f"{n}.bin": b"" for n in range(9)}})
    with pytest.raises(DataContractError, match="holds 10 files"):
        load_untrusted(str(folder))
    with pytest.raises(DataContractError, match="holds 10 files of 0 MiB; a model may have 8 of 0 MiB"):
        load_untrusted(str(folder), file_bytes=1)


def test_the_child_sees_no_credential_and_finds_windsock_wherever_it_runs(tmp_path, monkeypatch):
    seen = {}

    def run(command, *, env, cwd, **more):
        seen.update(env=env, cwd=cwd, command=command)
        raise KeyboardInterrupt

    monkeypatch.setattr("windsock.served.first_load.subprocess.run", run)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(KeyboardInterrupt):
        load_untrusted(str(saved(tmp_path / "m", trees())))
    assert "secret" not in str(seen)
    assert (tmp_path / "m").exists()


def card_files(**changes):
    return {"model.json": json.dumps({**LINEAR, **changes}).encode()}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"model.json": b"[" * 900 + b"]" * 900}, "nested more than 8 levels deep"),
        ({"model.json": b"[" * 100_000}, "does not describe a model's inputs"),
        ({"model.json": b'{"a": ' * 900 + b"1" + b"}" * 900}, "nested more than 8 levels deep|recursion"),
        ({"model.json": b'{"format": "windsock-linear/1", "format": "windsock-torch/1"}'}, "a field is given twice"),
        ({"model.json": b"\xff\xfe"}, "does not describe a model's inputs"),
        ({"model.json": b"[]"}, "does not describe a model's inputs"),
        (card_files(features=[{"name": 1, "coefficient": 1.0}]), "an input is named 1"),
        (card_files(features=[{"name": "a", "categories": 3, "coefficients": []}]), "does not describe"),
        (card_files(features=LINEAR["features"][:1] * 2), "the input 'a' is listed twice"),
    ],
)
def test_a_card_that_is_no_card_is_refused_with_a_sentence(tmp_path, files, says):
    with pytest.raises(DataContractError, match=rf"model\.json: [\s\S]*({says})"):
        load(saved(tmp_path / "m", files))


def test_a_card_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("windsock.served.model._MOST_CARD_BYTES", 10)
    with pytest.raises(DataContractError, match="at most 0 are read"):
        load(saved(tmp_path / "m", card_files()))


def test_the_time_for_a_card_grows_with_its_inputs_and_no_faster(tmp_path):
    def seconds(count):
        features = [{"name": f"x{n}", "categories": None, "coefficient": 1.0} for n in range(count)]
        folder = saved(tmp_path / f"m{count}", card_files(features=features))
        started = time.process_time()
        model = load(folder)
        assert math.isfinite(model.predict(rows_like(model.features, 2)).sum())
        return time.process_time() - started

    # Ten times as many; a check that compares each with each takes a hundred times as long.
    assert seconds(20_000) < 40 * seconds(2_000)
