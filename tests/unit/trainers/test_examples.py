"""The examples of docker/examples for other people's libraries: from the training rows to the score of a day."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest

from run_folders import with_mlflow
from training_world import AS_OF, TRAINING, make_world, world_spec
from windsock import tables
from windsock.ledger import Ledger
from windsock.promotions import Promotion, append, current
from windsock.served.model import Model, load, scored
from windsock.settings import REPO_ROOT
from windsock.steps import run_step
from windsock.store import Store
from windsock.trainer_kit.conformance import check_candidate
from windsock.trainer_kit.practice import practice_rows, practice_run
from windsock.trainer_kit.trainer_trial import ProgramRunner, try_trainer

EXAMPLES = REPO_ROOT / "docker" / "examples"
LIBRARIES = ("sklearn", "xgboost", "catboost")
NUMBERS = 3
"""The first features of the practice rows are numbers; a category is a whole number, so never on a threshold."""
CONTRACT = "# From here on: the trainer contract"
KINDS = [
    ("sklearn", {"model": "linear"}),
    ("sklearn", {"model": "forest", "n_estimators": 30}),
    ("sklearn", {"model": "boosting", "n_estimators": 40}),
    ("xgboost", {"n_estimators": 60}),
    ("catboost", {"iterations": 80, "depth": 5}),
]


def program_of(library):
    return EXAMPLES / library / "trainer.py"


def trainer_of(library, monkeypatch):
    """The example as a module, which keeps the models that it fits."""
    spec = importlib.util.spec_from_file_location(f"{library}_trainer", program_of(library))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fitted, fit = [], module.fit
    monkeypatch.setattr(module, "fit", lambda *given: fitted.append(fit(*given)) or fitted[-1])
    return module, fitted


def custom(params):
    return {"kind": "custom", "name": "mine", "command": ["x"], "params": params}


def with_rows_on_thresholds(x, graph, rng):
    """Put one value of each row onto a value that some tree splits at, or just beside it."""
    x = x.copy()
    trees = [node for node in onnx.load_from_string(graph).graph.node if node.op_type.startswith("TreeEnsemble")]
    for tree in trees:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in tree.attribute}
        places, values = (np.array(given[name]) for name in ("nodes_featureids", "nodes_values"))
        splits = np.flatnonzero([mode != b"LEAF" for mode in given["nodes_modes"]])
        chosen = splits[rng.integers(0, len(splits), len(x))]
        rows = np.flatnonzero(places[chosen] < NUMBERS)
        exact = values[chosen[rows]].astype(np.float32)
        with np.errstate(over="ignore"):  # CatBoost also splits at the largest number
            beside = np.nextafter(exact, np.float32(np.inf) * rng.choice([-1, 1], len(rows)).astype(np.float32))
        x[rows, places[chosen[rows]]] = np.where(rng.random(len(rows)) < 0.5, exact, beside)
    return x


@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.parametrize(("library", "params"), KINDS)
def test_windsock_scores_ten_thousand_rows_as_the_library_does(tmp_path, library, params, task, monkeypatch):
    trainer, fitted = trainer_of(library, monkeypatch)
    request = Path(practice_run(str(tmp_path), custom(params), task=task, rows=2000))
    trainer.run(request)
    raw, model = json.loads(request.read_bytes()), load(request.parent / "model")
    rows = pa.concat_tables([practice_rows(task, 2000), practice_rows(task, 8000, seed=8)])
    features = [feature.to_json() for feature in model.features]
    x = trainer.to_matrix(rows, features)

    native = trainer.predict(raw, fitted[-1], x)
    np.testing.assert_allclose(model.predict(rows), native, rtol=1e-6 if task == "regression" else 0, atol=1e-6)
    assert len(np.unique(native)) > 30
    # Where trees part on a value, scores differ by far more than rounding.
    odd = with_rows_on_thresholds(x.astype(np.float32), model.content["model.onnx"], np.random.default_rng(1)).astype(
        float
    )
    native = trainer.predict(raw, fitted[-1], odd)
    np.testing.assert_allclose(scored(model.scorer, odd), native, rtol=1e-6 if task == "regression" else 0, atol=1e-6)
    assert [f for f in check_candidate(str(request)) if f.kept is not True] == []


def test_it_keeps_every_clause_of_the_contract(tmp_path):
    """The part that keeps it is the same in every example (below), so one of them is put through everything."""
    request = Path(practice_run(str(tmp_path), custom({}), rows=600))
    runner = ProgramRunner((sys.executable, "-I", str(program_of("sklearn"))), {"OMP_WAIT_POLICY": "passive"})

    findings = list(try_trainer(runner, request))

    assert [f for f in findings if f.kept is False] == []
    assert "600 rows score within 1e-06 of the trainer's own library" in {f.message for f in findings}


@pytest.mark.parametrize(
    ("library", "params", "says"),
    [
        ("sklearn", {"model": "hist"}, "HistGradientBoostingClassifier does not become ONNX"),
        ("sklearn", {"model": "knn"}, "params.model is 'knn'; it may be linear, forest"),
        ("sklearn", {"trees": 3}, "scikit-learn refuses params"),
        ("xgboost", {"enable_categorical": True}, "do not become ONNX"),
        ("catboost", {"cat_features": [4]}, "CatBoost's own categories do not become ONNX"),
        ("catboost", {"depth": 99}, "CatBoost refuses params"),
    ],
)
def test_what_does_not_convert_is_refused_with_a_sentence(tmp_path, library, params, says, monkeypatch):
    trainer, _ = trainer_of(library, monkeypatch)
    request = Path(practice_run(str(tmp_path), custom(params), rows=400))

    with pytest.raises(trainer.Refused) as refused:
        trainer.run(request)

    code, why = refused.value.args
    assert code == 64
    assert says in why
    assert not (request.parent / "metrics.json").exists()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Thirteen days of payments with features."""
    home = tmp_path_factory.mktemp("examples")
    make_world(home)
    return home


@pytest.mark.parametrize("library", LIBRARIES)
def test_from_training_to_the_score_of_a_day(world, tmp_path, library, monkeypatch):
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    estimator = {"kind": "custom", "name": library, "command": ["python", "-I", "trainer.py"]}
    settings, spec = world_spec(tmp_path, training={**TRAINING, "estimator": estimator})
    shutil.copy(program_of(library), spec.folder)
    run = run_step("assemble", model="fraud", settings=settings)["run"]
    run_step("fit", model="fraud", settings=settings, options={"run": run})
    chosen = run_step("choose", model="fraud", settings=settings, options={"run": run})
    version = run_step("register", model="fraud", settings=with_mlflow(settings), options={"run": run})["version"]
    entry = Promotion(0, "promote", version, run, None, AS_OF, AS_OF, "test")
    append(settings, spec, entry, after=current(settings, spec))
    seen, predict = [], Model.predict
    monkeypatch.setattr(Model, "predict", lambda model, rows: seen.append((model, rows)) or predict(model, rows))

    run_step("score", model="fraud", key=str(AS_OF), settings=settings)

    record = Ledger.of(settings, "fraud", "score").get(AS_OF)
    scores = tables.read(Store.of(settings), [record], "predictions")["score"].to_numpy()
    (model, rows) = seen[-1]
    trainer, fitted = trainer_of(library, monkeypatch)
    request = Path(settings.store, "runs", "fraud", run, "candidates", library, "request.json")
    for name in ("metrics.json", "check.csv.gz"):
        (request.parent / name).unlink()
    trainer.run(request)  # once more, here: equal rows and seed give equal trees
    x = trainer.to_matrix(rows, [feature.to_json() for feature in model.features])
    native = trainer.predict(json.loads(request.read_bytes()), fitted[-1], x)
    np.testing.assert_allclose(scores, native, rtol=0, atol=1e-6)
    assert len(np.unique(scores)) > 20
    assert chosen["metrics"]["average_precision"] > 0.3


def test_the_contract_is_the_same_in_every_example():
    texts = {library: program_of(library).read_text(encoding="utf-8") for library in LIBRARIES}

    assert len({text[text.index(CONTRACT) :] for text in texts.values()}) == 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_its_image_holds_the_versions_that_are_tested(library):
    lock = (REPO_ROOT / "requirements.txt").read_text(encoding="utf-8")
    image = (EXAMPLES / library / "Dockerfile").read_text(encoding="utf-8")
    pins = re.findall(r"([\w-]+)==([\w.]+)", image)

    assert {name for name, _ in pins} >= {"pyarrow", "numpy", "scikit-learn"}
    for name, version in pins:
        assert re.search(rf"^{name}=={re.escape(version)}\b", lock, re.MULTILINE), f"{name}=={version}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_converters_are_in_no_image_of_windsocks(library):
    # PyTorch writes a user's own network as ONNX by onnx and onnxscript, where it is trained and nowhere else.
    # The other image has what requirements.in names before its part for developers (tests/unit/deploy/test_images.py).
    airflow = (REPO_ROOT / "requirements.in").read_text(encoding="utf-8").partition("# Development")[0]
    trainer = (REPO_ROOT / "docker" / "trainer.in").read_text(encoding="utf-8")
    for text, converters in ((airflow, "onnx|onnxscript|skl2onnx|onnxmltools"), (trainer, "skl2onnx|onnxmltools")):
        assert not re.search(rf"^({converters}|{library})\b", text, re.MULTILINE)
