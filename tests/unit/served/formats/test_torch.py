import io
import json
import os
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from windsock.errors import DataContractError
from windsock.served.formats.network import module_scores
from windsock.served.formats.torch import MODEL_FILE, Program, read
from windsock.served.matrix import Feature, to_matrix
from windsock.served.model import MODEL_CARD, load
from windsock.settings import REPO_ROOT

NAMES = ["amount", "kind", "flag", "count"]
GRAPH = "archive/models/model.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"
KEPT = REPO_ROOT / "tests" / "fixtures" / "network_v0_1"


def table(count=400, seed=0):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "amount": pa.array(rng.exponential(60, count), mask=rng.random(count) < 0.1),
            "kind": pa.array(rng.choice(["a", "b", "c"], count), mask=rng.random(count) < 0.1),
            "flag": pa.array(rng.random(count) < 0.5),
            "count": pa.array(rng.integers(0, 9, count)),
        }
    )


@pytest.fixture(scope="module")
def files():
    """A network that version 0.1 trained and kept."""
    return {name: (KEPT / name).read_bytes() for name in (MODEL_FILE, MODEL_CARD)}


def saved(files, folder):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def with_members(program, changes):
    """Return an archive with members replaced or added."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(program)) as old, zipfile.ZipFile(file, "w") as new:
        members = {name: old.read(name) for name in old.namelist()} | changes
        for name, data in members.items():
            new.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def with_graph(program, change):
    with zipfile.ZipFile(io.BytesIO(program)) as archive:
        graph = json.loads(archive.read(GRAPH))
    change(graph)
    return with_members(program, {GRAPH: json.dumps(graph).encode()})


def refused(files, tmp_path, program, match):
    folder = saved(files | {MODEL_FILE: program}, tmp_path / "model")
    with pytest.raises(DataContractError, match=match):
        load(folder)


def bomb():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    return Bomb()


def theirs(program):
    """Return the program as PyTorch itself loads and runs it."""
    return torch.export.load(io.BytesIO(program)).module()


def test_a_network_of_version_0_1_scores_bit_for_bit_as_pytorch_itself_runs_it(files, tmp_path):
    model = load(saved(files, tmp_path / "model"))
    later = table(5000, seed=1)

    assert isinstance(model.engine, Program)
    assert (model.task, model.feature_names) == ("binary", tuple(NAMES))
    expected = module_scores(theirs(files[MODEL_FILE]), to_matrix(later, model.features))
    np.testing.assert_array_equal(model.predict(later), expected)
    assert len(np.unique(expected)) > 1000
    assert model.content == files


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_any_number_of_rows_can_be_module_scores(files, tmp_path, count):
    model = load(saved(files, tmp_path / "model"))
    scores = model.predict(table(200).slice(0, count))

    assert scores.shape == (count,)
    np.testing.assert_allclose(scores, model.predict(table(200))[:count], rtol=0, atol=1e-6)


def test_many_rows_are_scored_in_parts(files, tmp_path, monkeypatch):
    model = load(saved(files, tmp_path / "model"))
    whole = model.predict(table(1000))
    monkeypatch.setattr("windsock.served.model.ROWS_AT_ONCE", 77)

    np.testing.assert_allclose(model.predict(table(1000)), whole, rtol=0, atol=1e-6)


def test_scoring_uses_as_many_threads_as_are_allowed_and_no_more(monkeypatch):
    seen, before = [], torch.get_num_threads()
    monkeypatch.setenv("WINDSOCK_THREADS", "1")
    module_scores(lambda x: seen.append(torch.get_num_threads()) or x[:, 0], np.zeros((3, 1)))

    assert seen == [1]
    assert torch.get_num_threads() == before


def test_a_float32_matrix_is_taken_too(files, tmp_path):
    model = load(saved(files, tmp_path / "model"))
    x = to_matrix(table(50), model.features)
    with torch.no_grad():
        coarse = model.engine(torch.from_numpy(x.astype(np.float32))).numpy()

    np.testing.assert_allclose(coarse, module_scores(model.engine, x), atol=1e-5)


def test_nulls_unseen_categories_and_the_order_of_columns_are_no_trouble(files, tmp_path):
    model = load(saved(files, tmp_path / "model"))
    rows = pa.table({"count": [1, 1], "kind": ["never seen", None], "amount": [5.0, 5.0], "flag": [True, True]})
    scores = model.predict(rows)

    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    with pytest.raises(DataContractError, match="no column count, which the model was trained with"):
        model.predict(rows.drop_columns(["count"]))


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv1d(1, 3, 3, padding=1), nn.LayerNorm(12), nn.Linear(12, 1)

    def forward(self, x):
        h = self.conv(torch.nan_to_num(x).float().unsqueeze(1)).flatten(1)
        return torch.sigmoid(self.out(nn.functional.gelu(self.norm(h)))).squeeze(-1).double()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.attention = nn.Embedding(5, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.out = nn.BatchNorm1d(8), nn.Linear(8, 1)

    def forward(self, x):
        code = x[:, :2].nan_to_num(0).clamp(0, 4).long()
        h, _ = self.attention(self.table(code), self.table(code), self.table(code), need_weights=False)
        return self.out(nn.functional.dropout(self.norm(h.reshape(x.shape[0], 8)), 0.5, self.training))[:, 0].double()


class Sizes(nn.Module):
    """Whole numbers that depend on the rows, constants, and results in several parts."""

    def __init__(self):
        super().__init__()
        self.register_buffer("edges", torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), persistent=False)

    def forward(self, x):
        left, right = torch.nan_to_num(x).chunk(2, dim=1)
        bins = torch.bucketize(left, self.edges).to(torch.float64) * torch.tensor(2.0)
        top = torch.cat([bins, right.repeat(1, 2), x.new_ones(x.shape[0], 1)], dim=1).view(x.shape[0] * 7)
        return torch.where(top > 0, top, top.relu() - 0.5).reshape(-1, 7).sum(1)


def exported(network, width=4):
    example = torch.zeros((2, width), dtype=torch.float64)
    program = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    program._example_inputs = None
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


@pytest.mark.parametrize("network", [Convolution, Attention, Sizes])
def test_a_program_made_by_others_scores_bit_for_bit_as_pytorch_itself_runs_it(network, tmp_path):
    torch.manual_seed(0)
    program = exported(network())
    features = [Feature(name).to_json() for name in "abcd"]
    card = json.dumps({"format": "windsock-torch/1", "task": "regression", "features": features}).encode()
    model = load(saved({MODEL_FILE: program, MODEL_CARD: card}, tmp_path / "model"))
    x = np.random.default_rng(0).normal(size=(3000, 4)) * 3
    x[::7, 1] = np.nan

    np.testing.assert_array_equal(module_scores(model.engine, x), module_scores(theirs(program), x))


def test_a_pickle_is_never_loaded(files, tmp_path):
    refused(files, tmp_path, pickle.dumps(bomb()), "pickles are never loaded")
    file = io.BytesIO()
    torch.save({"x": torch.zeros(2)}, file)
    refused(files, tmp_path, file.getvalue(), "neither graph nor numbers|compressed")
    (tmp_path / "model" / MODEL_FILE).rename(tmp_path / "model" / "model.pkl")
    with pytest.raises(DataContractError, match=r"lacks model\.pt2.*model\.pkl"):
        load(tmp_path / "model")


def test_pickled_sample_inputs_are_refused(files, tmp_path):
    hidden = with_members(files[MODEL_FILE], {"archive/data/sample_inputs/model.pt": pickle.dumps(bomb())})
    refused(files, tmp_path, hidden, "sample inputs, which PyTorch stores as a pickle")


@pytest.mark.parametrize(
    "name", ["data/weights/model.pt", "data/constants/custom_obj_0", "data/constants/opaque_obj_0",
             "data/aotinductor/model/model.so", "version", "extra/notes.txt", "models/other.json"],
)  # fmt: skip
def test_members_beside_graph_and_numbers_are_refused(files, tmp_path, name):
    program = with_members(files[MODEL_FILE], {f"archive/{name}": pickle.dumps(bomb())})
    refused(files, tmp_path, program, "neither graph nor numbers")


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_numbers_marked_as_pickled_are_refused(files, tmp_path, kind):
    name = f"archive/data/{kind}/model_{kind}_config.json"
    config = {"config": {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None}}}
    program = with_members(files[MODEL_FILE], {name: json.dumps(config).encode()})
    refused(files, tmp_path, program, "an entry that is not raw numbers")


EVIL = "__import__('os').environ.update(WINDSOCK_RAN='yes')"
HUGE = 1 << 50


def node_of(whole, target, inputs, output="as_sym_int"):
    """Replace what the program gives by what one more node gives."""
    named = [{"name": name, "arg": arg, "kind": 1} for name, arg in inputs.items()]
    result = {"as_sym_int": {"as_name": "more"}} if output == "as_sym_int" else {"as_tensor": {"name": "more"}}
    nodes(whole).append({"target": target, "inputs": named, "outputs": [result]})


def power(whole):
    node_of(whole, "_operator.pow", {"a": {"as_int": 10**9}, "b": {"as_int": 10**9}})


def product_of_products(whole):
    node_of(whole, "_operator.mul", {"a": {"as_int": 1 << 39}, "b": {"as_int": 1 << 39}})
    node_of(whole, "_operator.mul", {"a": {"as_sym_int": {"as_name": "more"}}, "b": {"as_int": 3}})


def tensor_of(whole, target, **inputs):
    node_of(whole, f"torch.ops.aten.{target}", inputs, "as_tensor")


def rows_of(whole):
    return {"as_tensor": {"name": graph(whole)["inputs"][-1]["as_tensor"]["name"]}}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda g: g.update(guards_code=[EVIL]), "guards"),
        (lambda g: nodes(g)[0].update(target="torch.load"), "'torch.load' as target.*known arithmetic"),
        (lambda g: nodes(g)[0].update(target="torch.ops.aten.from_file.default"), "from_file"),
        (lambda g: nodes(g)[0].update(target="torch.ops.aten.save.default"), "aten.save"),
        (lambda g: nodes(g)[0].update(target="torch.ops.aten.add.__init__.__globals__"), "__globals__"),
        (lambda g: nodes(g)[0].update(target="_operator.methodcaller"), "methodcaller"),
        (lambda g: nodes(g)[0]["inputs"][0].update(arg={"as_operator": "torch.load"}), "as_operator"),
        (lambda g: nodes(g)[0]["inputs"][0].update(arg={"as_graph": {}}), "as_graph"),
        (lambda g: nodes(g)[0]["inputs"][0].update(arg={"as_device": {"type": "cuda", "index": 0}}), "as_device"),
        (lambda g: g["graph_module"]["signature"]["input_specs"].append({"custom_obj": {}}), "takes a custom_obj"),
        (lambda g: graph(g)["outputs"].append(graph(g)["outputs"][0]), "gives 2"),
        (power, "computed as _operator.pow|to the power 1000000000"),
        (product_of_products, "computed as _operator.mul"),
        (lambda g: tensor_of(g, "full.default", size={"as_ints": [HUGE]}, fill_value={"as_float": 0.0}), "numbers"),
        (lambda g: tensor_of(g, "zeros.default", size={"as_ints": [1 << 20, 1 << 20]}), "1.1e\\+12 numbers"),
        (lambda g: tensor_of(g, "repeat.default", self=rows_of(g), repeats={"as_ints": [1 << 14, 1 << 14]}), "numbers"),
        (lambda g: tensor_of(g, "arange.default", end={"as_int": HUGE}), "numbers"),
        (lambda g: tensor_of(g, "arange.start_step", start={"as_int": 0}, end={"as_int": 9}, step={"as_float": 1e-30}),
         "numbers"),
        (lambda g: tensor_of(g, "arange.start_step", start={"as_int": 0}, end={"as_int": 9}, step={"as_int": 0}),
         "cannot score two rows"),
        (lambda g: tensor_of(g, "expand.default", self=rows_of(g), size={"as_ints": [HUGE, 2, 4]}), "numbers"),
        (lambda g: tensor_of(g, "relu_.default", self=rows_of(g)), "changes the rows or a weight"),
    ],
    ids=lambda v: None if callable(v) else v,
)  # fmt: skip
def test_a_graph_that_asks_for_more_than_arithmetic_is_refused(files, tmp_path, change, match):
    refused(files, tmp_path, with_graph(files[MODEL_FILE], change), match)


def graph(whole):
    return whole["graph_module"]["graph"]


def nodes(whole):
    return graph(whole)["nodes"]


def sizes(whole):
    return next(
        size for value in graph(whole)["tensor_values"].values() for size in value["sizes"] if "as_expr" in size
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda g: sizes(g)["as_expr"].update(expr_str=EVIL),
        lambda g: sizes(g)["as_expr"].update(expr_str="9**9**9**9"),
        lambda g: graph(g)["tensor_values"].update({EVIL: {}}),
        lambda g: g["graph_module"]["module_call_graph"][0]["signature"].update(in_spec=EVIL),
        lambda g: nodes(g)[0].update(metadata={"stack_trace": EVIL}, name=EVIL),
    ],
)
def test_what_pytorch_would_run_is_never_looked_at(files, tmp_path, change, monkeypatch):
    monkeypatch.setenv("WINDSOCK_RAN", "no")
    kept = load(saved(files, tmp_path / "kept"))
    model = load(saved(files | {MODEL_FILE: with_graph(files[MODEL_FILE], change)}, tmp_path / "changed"))

    np.testing.assert_array_equal(model.predict(table()), kept.predict(table()))
    assert os.environ["WINDSOCK_RAN"] == "no"


def test_pytorchs_own_loader_would_run_it(files, monkeypatch):
    """The reason for a reader of our own; if PyTorch mends it one day, this says so."""
    monkeypatch.setenv("WINDSOCK_RAN", "no")
    evil = with_graph(files[MODEL_FILE], lambda g: sizes(g)["as_expr"].update(expr_str=EVIL))
    with pytest.raises(Exception):  # noqa: B017,PT011
        torch.export.load(io.BytesIO(evil))
    assert os.environ["WINDSOCK_RAN"] == "yes"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sizes": [{"as_int": 1 << 40}], "strides": [{"as_int": 0}]}, "has the sizes"),
        ({"sizes": [{"as_int": 1 << 20}], "strides": [{"as_int": 1}]}, "reaches to number 1048575"),
        ({"sizes": [{"as_int": 2}], "strides": [{"as_int": 1 << 62}]}, "reaches to number"),
        ({"sizes": [{"as_int": 2}], "strides": [{"as_int": -1}]}, "strides"),
        ({"storage_offset": {"as_int": 1 << 30}}, "reaches to number"),
        ({"storage_offset": {"as_int": -1}}, "offset -1"),
        ({"sizes": [{"as_int": "2"}]}, "is damaged: TypeError"),
        ({"dtype": 99}, "is damaged: KeyError"),
    ],
)
def test_a_weight_outside_its_bytes_is_refused(files, tmp_path, change, match):
    with zipfile.ZipFile(io.BytesIO(files[MODEL_FILE])) as archive:
        config = json.loads(archive.read(WEIGHTS))
    next(iter(config["config"].values()))["tensor_meta"].update(change)
    refused(files, tmp_path, with_members(files[MODEL_FILE], {WEIGHTS: json.dumps(config).encode()}), match)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """The bomb of small files: four hundred names for the same four megabytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data/weights/weight_0", bytes(4 << 20))
        first = archive.infolist()[0]
        for n in range(1, 400):
            again = zipfile.ZipInfo(f"archive/data/weights/weight_{n}")
            again.header_offset, again.file_size, again.compress_size = 0, first.file_size, first.compress_size
            again.CRC = first.CRC
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
        archive._didModify = True
    with pytest.raises(DataContractError, match="members that overlap"):
        read("m", file.getvalue(), {}, ())


def test_compressed_members_and_two_of_one_name_are_refused(files, tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(files[MODEL_FILE])) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    refused(files, tmp_path, file.getvalue(), "compressed members")
    again = io.BytesIO(files[MODEL_FILE])
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(again, "a") as archive:
        archive.writestr(zipfile.ZipInfo(GRAPH), b"{}")
    refused(files, tmp_path, again.getvalue(), "not those of one program")


def test_a_damaged_program_says_so(files, tmp_path):
    refused(files, tmp_path, files[MODEL_FILE][:-200], "is not PyTorch's pt2 archive")
    refused(files, tmp_path, with_members(files[MODEL_FILE], {GRAPH: b"{"}), "damaged")
    refused(files, tmp_path, with_members(files[MODEL_FILE], {GRAPH: b"{}"}), "is damaged: KeyError")
    refused(files, tmp_path, with_members(files[MODEL_FILE], {GRAPH: b"[" * 100_000}), "damaged")


def test_a_card_with_other_inputs_than_the_program_is_refused(files, tmp_path):
    card = json.loads(files[MODEL_CARD])
    del card["features"][0]
    folder = saved(files | {MODEL_CARD: json.dumps(card).encode()}, tmp_path / "model")
    with pytest.raises(DataContractError, match="rows of 3 features"):
        load(folder)
