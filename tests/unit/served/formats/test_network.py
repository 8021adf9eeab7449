import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load as tensors_of
from safetensors.torch import save

from windsock.errors import DataContractError
from windsock.served.formats.network import (
    MODEL_FILE,
    Perceptron,
    Preparation,
    TabularNetwork,
    module_scores,
    network_files,
)
from windsock.served.matrix import Feature, to_matrix
from windsock.served.model import MODEL_CARD, load

FEATURES = (Feature("amount"), Feature("kind", ("a", "b")), Feature("rate"))


def table(count=300, seed=0):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "amount": pa.array(rng.exponential(60, count)),
            "kind": pa.array(rng.choice(["a", "b", "c"], count), mask=rng.random(count) < 0.1),
            "rate": pa.array(rng.normal(size=count), mask=rng.random(count) < 0.1),
        }
    )


def network(hidden=(6, 4), binary=True):
    torch.manual_seed(0)
    preparation = Preparation.fit(FEATURES, to_matrix(table(), FEATURES))
    made = TabularNetwork(preparation, Perceptron(preparation.width, preparation.tables, hidden), binary=binary)
    made.target.copy_(torch.tensor([3.0, 2.0]))
    made.shift.fill_(0.5)
    return made.eval()


@pytest.fixture
def files():
    return network_files(network(), "binary", FEATURES)


def saved(files, folder):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def refused(files, tmp_path, match):
    with pytest.raises(DataContractError, match=match):
        load(saved(files, tmp_path / "model"))


def with_card(files, **about):
    card = json.loads(files[MODEL_CARD])
    card["network"] |= about
    return files | {MODEL_CARD: json.dumps(card).encode()}


def with_tensors(files, **changed):
    tensors = tensors_of(files[MODEL_FILE]) | changed
    return files | {MODEL_FILE: save({name: tensor for name, tensor in tensors.items() if tensor is not None})}


@pytest.mark.parametrize(("task", "binary"), [("binary", True), ("regression", False)])
def test_a_network_comes_back_from_its_folder_and_scores_the_same(tmp_path, task, binary):
    made = network(binary=binary)
    files = network_files(made, task, FEATURES)
    model, later = load(saved(files, tmp_path / "model")), table(1000, seed=1)

    assert isinstance(model.engine, TabularNetwork)
    assert (model.task, model.features, model.content) == (task, FEATURES, files)
    np.testing.assert_array_equal(model.predict(later), module_scores(made, to_matrix(later, FEATURES)))
    assert len(np.unique(model.predict(later))) > 500
    assert network_files(network(binary=binary), task, FEATURES) == files


@pytest.mark.parametrize("count", [0, 1, 100])
def test_any_number_of_rows_can_be_scored_in_parts(files, tmp_path, count, monkeypatch):
    model = load(saved(files, tmp_path / "model"))
    whole = model.predict(table())
    monkeypatch.setattr("windsock.served.model.ROWS_AT_ONCE", 33)

    np.testing.assert_allclose(model.predict(table().slice(0, count)), whole[:count], rtol=0, atol=1e-6)


def test_a_card_of_another_network_is_refused(files, tmp_path):
    refused(
        with_card(files, hidden=[6, 5]),
        tmp_path,
        r"is torch.float32 of shape \(1?,? ?4.*has torch.float32 of shape \(1?,? ?5",
    )
    refused(with_card(files, hidden=[6]), tmp_path, "does not hold the arrays of the card's network")
    refused(with_card(files, gaps=[]), tmp_path, "but the card's network has")


@pytest.mark.parametrize(
    "about",
    [
        {"hidden": []}, {"hidden": [1 << 30]}, {"hidden": [8] * 9}, {"hidden": [True]}, {"hidden": "64"},
        {"gaps": [2]}, {"gaps": [-1]}, {"gaps": [1, 1]}, {"gaps": None}, {"hidden": [4.0]},
    ],
    ids=str,
)  # fmt: skip
def test_a_card_that_describes_no_network_is_refused(files, tmp_path, about):
    refused(with_card(files, **about), tmp_path, "describes no network that windsock-network/1 knows")


def test_a_network_of_endless_size_is_not_even_begun(files, tmp_path):
    refused(with_card(files, hidden=[1 << 20] * 8), tmp_path, "more than 2 GiB")


@pytest.mark.parametrize("damage", ["cut", "empty", "long", "header", "pickle", "json"])
def test_a_damaged_file_is_refused(files, tmp_path, damage):
    raw = files[MODEL_FILE]
    data = {
        "cut": raw[:-10], "empty": b"", "long": raw + bytes(5 << 20), "header": b"\xff" * 8 + raw[8:],
        "pickle": pickle.dumps([1, 2]), "json": raw[:8] + b"[" * 64 + raw[72:],
    }[damage]  # fmt: skip
    refused(files | {MODEL_FILE: data}, tmp_path, r"model\.safetensors: is refused.*Fetch it again")


def test_arrays_that_the_card_does_not_ask_for_are_refused(files, tmp_path):
    bias = torch.zeros(6)
    refused(with_tensors(files, extra=torch.zeros(2)), tmp_path, "extra")
    refused(with_tensors(files, **{"body.layers.0.bias": None}), tmp_path, r"body\.layers\.0\.bias")
    refused(with_tensors(files, **{"body.layers.0.bias": bias.double()}), tmp_path, "is torch.float64")
    refused(with_tensors(files, **{"body.layers.0.bias": bias + torch.nan}), tmp_path, "not finite")


def test_a_folder_without_its_numbers_says_what_it_holds(files, tmp_path):
    folder = saved({MODEL_CARD: files[MODEL_CARD]}, tmp_path / "model")
    (folder / "model.pkl").write_bytes(b"x")
    with pytest.raises(DataContractError, match=r"lacks model\.safetensors.*model\.pkl"):
        load(folder)
