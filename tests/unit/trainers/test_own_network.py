"""A module of the user's own, from the model's folder to a day's scores, and what can be wrong with it."""

import hashlib
import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml

from feature_days import put_day
from run_folders import with_mlflow
from training_world import payments
from windsock import tables
from windsock.days import day_range
from windsock.errors import SpecError
from windsock.learners.learner import Rows
from windsock.learners.neural.learner import NetworkLearner
from windsock.ledger import Ledger
from windsock.lint import lint_model
from windsock.promotions import Promotion, append
from windsock.reproduce import reproduce
from windsock.runs.run_folder import RunFolder
from windsock.served.matrix import Feature, to_matrix
from windsock.served.model import load
from windsock.settings import REPO_ROOT, Settings
from windsock.spec import get_spec
from windsock.spec.load import frozen_module
from windsock.steps import run_step
from windsock.store import Store

MODEL = "fraud_by_own_network"
EXAMPLE = REPO_ROOT / "tests" / "models" / MODEL
FIRST = date(2026, 9, 1)
LAST = FIRST + timedelta(days=9)
FEATURES = (Feature("a"), Feature("kind", ("x", "y")), Feature("b"))


def installed(home: Path, source: str | None = None, **estimator):
    """Copy the example below ``home``, with another network or estimator if wanted."""
    folder = home / "models" / MODEL
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    if source is not None:
        (folder / "network.py").write_text(source)
    raw = yaml.safe_load((folder / "model.yaml").read_text())
    raw["training"]["estimator"] |= estimator
    (folder / "model.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    settings = Settings.from_env({"WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(home / "models")})
    return settings, get_spec(settings, MODEL)


def test_the_example_goes_from_training_to_a_days_scores_and_can_be_made_again(tmp_path):
    settings, spec = installed(tmp_path)
    for day in day_range(FIRST, LAST):
        put_day(settings, spec, day, payments(day))
        run_step("features", model=MODEL, key=str(day), settings=settings)
    run = run_step("assemble", model=MODEL, settings=settings)["run"]
    # The run keeps the network as it was: what becomes of the file no longer matters.
    (spec.folder / "network.py").write_text("class Network: pass\n")
    run_step("fit", model=MODEL, settings=settings, options={"run": run})
    chosen = run_step("choose", model=MODEL, settings=settings, options={"run": run})
    version = run_step("register", model=MODEL, settings=with_mlflow(settings), options={"run": run})["version"]
    append(settings, spec, Promotion(0, "promote", version, run, None, LAST, LAST, "test"), after=None)
    run_step("score", model=MODEL, key=str(LAST), settings=settings)

    assert chosen["metrics"]["average_precision"] > spec.gate.floors["average_precision"]
    store = Store.of(settings)
    folder = RunFolder.named(store, MODEL, run)
    assert "model.onnx" in load(folder.url("model")).content
    assert set(folder.read_json("candidates/torch/metrics.json")["params"]) >= {"units", "blocks", "dropout"}
    scores = tables.read(store, [Ledger.of(settings, MODEL, "score").get(LAST)], "predictions")["score"].to_numpy()
    assert len(scores) == 150
    assert ((scores > 0) & (scores < 1)).all()
    assert len(np.unique(scores)) > 100
    assert reproduce(settings, MODEL, run).equal


def learner(spec, module=None):
    estimator = spec.training.estimator()
    return NetworkLearner(spec, estimator, FEATURES, module or frozen_module(spec, estimator))


def rows(count):
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.exponential(60, count), rng.integers(0, 2, count), rng.normal(size=count)])
    x[::9, 2] = np.nan
    x[::11, 1] = np.nan
    return Rows(x.astype(float), (x[:, 0] > 100).astype(float), np.full(count, "2026-09-01"))


def trained(spec, count=2000):
    made = learner(spec)
    return made.train(made.own_params(), rows(count), 2)


NORMED = """
from torch import nn

class Network(nn.Module):
    def __init__(self, inputs, categories, units=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Linear(units, 1))

    def forward(self, numbers, codes):
        return self.layers(numbers)
"""


@pytest.mark.parametrize("source", [None, NORMED], ids=["example", "batch norm"])
def test_what_is_served_scores_as_the_module_does(tmp_path, source):
    _, spec = installed(tmp_path, source, arguments={"units": 8}, search={})
    learned, x = trained(spec), rows(10_000).x
    files = learned.files()
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    model = load(folder)

    import pyarrow as pa

    kinds = pa.array(["x", "y"]).take(pa.array(x[:, 1], mask=np.isnan(x[:, 1])).cast(pa.int64()))
    table = pa.table({"a": x[:, 0], "kind": kinds, "b": pa.array(x[:, 2], mask=np.isnan(x[:, 2]))})
    np.testing.assert_allclose(model.predict(table), learned.predict(to_matrix(table, FEATURES)), rtol=1e-5, atol=1e-6)
    assert files == trained(spec).files()
    assert str(tmp_path).encode() not in files["model.onnx"]


def test_a_networks_own_state_is_part_of_a_checkpoint(tmp_path):
    from windsock.runs.run_folder import CheckpointFolder

    _, spec = installed(tmp_path, NORMED, arguments={"units": 8}, search={})
    made, data = learner(spec), rows(500)
    whole = made.train(made.own_params(), data, 4, data)
    folder = CheckpointFolder(str(tmp_path / "c"))

    class Enough(Exception):
        pass

    def stop(epoch, loss):
        if epoch == 3:
            raise Enough

    estimator = made._estimator.model_copy(update={"checkpoint_steps": 3})
    interrupted = NetworkLearner(spec, estimator, FEATURES, frozen_module(spec, estimator))
    with pytest.raises(Enough):
        interrupted.train(made.own_params(), data, 4, data, checkpoint=folder, report=stop)
    again = interrupted.train(made.own_params(), data, 4, data, checkpoint=folder)

    assert again.curve == whole.curve
    np.testing.assert_array_equal(again.predict(data.x), whole.predict(data.x))
    np.testing.assert_array_equal(again.predict(data.x, 1), whole.predict(data.x, 1))


@pytest.mark.parametrize(
    ("source", "module", "fault"),
    [
        (NORMED, "netwrok.py", r"torch\.module names the file 'netwrok\.py'.*Did you mean 'network\.py'"),
        (NORMED, "network.py:Net", r"has no class 'Net' \(it has: Network\)"),
        ("def Network(:", "network.py", r"network\.py, line 1: is no Python"),
        ("x = '\udcff'", "network.py", "cannot be read"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_by_lint_and_by_assemble(tmp_path, source, module, fault):
    _, spec = installed(tmp_path, module=module)
    (spec.folder / "network.py").write_bytes(source.encode(errors="surrogateescape"))

    with pytest.raises(SpecError, match=fault):
        frozen_module(spec, spec.training.estimator())
    finding = lint_model(MODEL, spec.folder / "model.yaml")
    assert [f for f in finding.faults if f.startswith("training.estimators: torch.module")]


def test_lint_finds_no_fault_with_the_example():
    assert lint_model(MODEL, EXAMPLE / "model.yaml").faults == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise RuntimeError('no such layer')", "RuntimeError: no such layer"),
        ("return self.layer(numbers).repeat(1, 2)", r"gives shape \(2, 2\) for 2 rows"),
        ("return numbers.sum(1)", "depends on no weight"),
        ("return self.layer(numbers) * (1 if numbers.sum() > 0 else 2)", "cannot be exported to ONNX"),
    ],
)
def test_what_is_wrong_with_the_network_is_a_sentence(tmp_path, body, fault):
    source = (
        "import torch\nclass Network(torch.nn.Module):\n    def __init__(self, inputs, categories):\n"
        "        super().__init__()\n        self.layer = torch.nn.Linear(inputs, 1)\n"
        f"    def forward(self, numbers, codes):\n        {body}\n"
    )
    _, spec = installed(tmp_path, source, arguments={}, search={})
    with pytest.raises(SpecError, match=fault):
        trained(spec, 200).files()


def test_a_request_without_the_network_or_with_another_one_is_refused(tmp_path):
    _, spec = installed(tmp_path)
    estimator = spec.training.estimator()
    module = frozen_module(spec, estimator)

    with pytest.raises(SpecError, match=r"the request lacks network\.py"):
        NetworkLearner(spec, estimator, FEATURES)
    with pytest.raises(SpecError, match="is not the one it names"):
        NetworkLearner(spec, estimator, FEATURES, {**module, "source": module["source"] + "#"})
    assert module["sha256"] == hashlib.sha256((EXAMPLE / "network.py").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("estimator", "fault"),
    [
        ({"module": "../network.py"}, "must lie in the model's folder"),
        ({"params": {"hidden": [4]}}, "give it in arguments instead"),
        ({"arguments": {"inputs": 3}}, "Windsock gives this value itself"),
        ({"search": {"depth": {"kind": "int", "low": 1, "high": 2}}}, "no parameter of this network"),
        ({"module": None, "search": {}}, "arguments are for a module of your own"),
    ],
)
def test_a_spec_that_mixes_up_the_networks_is_refused(tmp_path, estimator, fault):
    with pytest.raises(SpecError, match=fault):
        installed(tmp_path, **estimator)
