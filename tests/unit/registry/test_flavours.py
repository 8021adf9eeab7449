import json

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from windsock.registry.tracking import save_flavour
from windsock.served.formats import onnx
from windsock.served.formats.lightgbm import lightgbm_files
from windsock.served.formats.network import Perceptron, Preparation, TabularNetwork, module_scores, network_files
from windsock.served.matrix import Feature
from windsock.served.model import MODEL_CARD, load

FEATURES = (Feature("a"), Feature("b"))
X = np.random.default_rng(0).normal(size=(200, 2))


@pytest.fixture(autouse=True)
def _no_pickle(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")


def loaded(folder, files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return load(folder)


def card(form, **terms):
    features = [{"name": f.name, "categories": None, **terms} for f in FEATURES]
    return {"format": form, "task": "binary", "features": features}


def network_files_of_ours():
    torch.manual_seed(0)
    preparation = Preparation.fit(FEATURES, X)
    body = Perceptron(preparation.width, preparation.tables, (4,))
    return network_files(TabularNetwork(preparation, body, binary=True), "binary", FEATURES)


def test_mlflow_loads_a_network_without_pickle_and_scores_the_same(tmp_path):
    model = loaded(tmp_path / "model", network_files_of_ours())
    save_flavour(model, str(tmp_path / "flavour"), "0" * 32, "m-1")

    saved = mlflow.pyfunc.load_model(str(tmp_path / "flavour"))
    np.testing.assert_allclose(saved.predict(X), module_scores(model.engine, X), atol=1e-6)
    assert saved.metadata.model_id == "m-1"


def test_mlflow_loads_trees_without_pickle_and_scores_the_same(tmp_path):
    data = lightgbm.Dataset(X, (X[:, 0] > 0).astype(float), feature_name=["a", "b"])
    booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, 5)
    model = loaded(tmp_path / "model", lightgbm_files(booster, "binary", FEATURES))
    save_flavour(model, str(tmp_path / "flavour"), "0" * 32, "m-1")

    saved = mlflow.pyfunc.load_model(str(tmp_path / "flavour"))
    np.testing.assert_allclose(saved.predict(pd.DataFrame(X, columns=["a", "b"])), model.predict(_table()))


def onnx_files():
    kind = LogisticRegression().fit(X, X[:, 0] > 0)
    made = to_onnx(kind, X[:1].astype(np.float32), options={"zipmap": False})
    given = onnx.card_of("binary", FEATURES, input="float32", output="probabilities", column=1)
    return {onnx.MODEL_FILE: made.SerializeToString(), MODEL_CARD: given}


def linear_files():
    given = card("windsock-linear/1", coefficient=1.5) | {"intercept": 0.1}
    return {MODEL_CARD: json.dumps(given).encode()}


@pytest.mark.parametrize("files", [linear_files, onnx_files])
def test_a_model_of_no_flavour_goes_up_as_the_folder_it_is_with_its_inputs_by_name(tmp_path, files):
    model = loaded(tmp_path / "model", files())
    save_flavour(model, str(tmp_path / "flavour"), "0" * 32, "m-1")

    about = mlflow.models.Model.load(str(tmp_path / "flavour"))
    assert list(about.flavors) == ["windsock"]
    assert about.signature.inputs.input_names() == ["a", "b"]
    np.testing.assert_array_equal(load(tmp_path / "flavour" / "data").predict(_table()), model.predict(_table()))


def _table():
    import pyarrow as pa

    return pa.table({"a": X[:, 0], "b": X[:, 1]})
