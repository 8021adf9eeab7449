"""The example of docs/trainer.md, as a program of its own and as one of a spec's estimators."""

import ast
import importlib.util
import json
import shutil
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_days import put_day
from run_folders import with_mlflow
from training_world import payments
from windsock.days import day_range
from windsock.errors import DataContractError, SpecError, WindsockError
from windsock.runs.contract import request_url
from windsock.runs.run_folder import RunFolder
from windsock.served import metrics
from windsock.served.model import load
from windsock.settings import REPO_ROOT, Settings
from windsock.spec import get_spec
from windsock.steps import run_step
from windsock.store import Store
from windsock.trainer_kit.conformance import check_candidate
from windsock.trainer_kit.practice import practice_rows, practice_run
from windsock.trainer_kit.trainer_trial import ProgramRunner

EXAMPLE = REPO_ROOT / "docker" / "examples" / "trainer" / "trainer.py"
MODELS = REPO_ROOT / "tests" / "models"
MODEL = "fraud_by_own_trainer"
FIRST = date(2026, 9, 1)
CUSTOM = {"kind": "custom", "name": "mine", "command": ["x"], "data": "csv"}


@pytest.fixture(scope="module")
def trainer():
    """The example as a module, to look at its parts."""
    spec = importlib.util.spec_from_file_location("example_trainer", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(request, **environment):
    """Run the example with an empty environment but for the request."""
    running = ProgramRunner((sys.executable, "-I", "-S", str(EXAMPLE)), environment).start(Path(request))
    ended = running.wait(60)
    assert ended is not None
    return ended


def test_it_imports_nothing_but_the_standard_library():
    imported = set()
    for node in ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])

    assert imported <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_it_learns_what_can_be_learnt(tmp_path, task):
    request = practice_run(str(tmp_path), CUSTOM, task=task, rows=3000)

    assert started(request).code == 0

    assert [f for f in check_candidate(request) if f.kept is not True] == []
    rows = practice_rows(task, 3000, seed=8)
    labels = rows["label"].to_numpy().astype(float)
    scores = load(Path(request).parent / "model").predict(rows)
    if task == "binary":
        assert metrics.measure("roc_auc", labels, scores) > 0.9
        assert scores.mean() == pytest.approx(labels.mean(), rel=0.15)
    else:
        assert metrics.measure("r2", labels, scores) > 0.75


def test_probabilities_keep_their_level_though_most_rows_are_left_out(tmp_path):
    request = practice_run(str(tmp_path), {**CUSTOM, "params": {"rows": 600}}, rows=4000)

    started(request)

    rows = practice_rows("binary", 4000)
    assert load(Path(request).parent / "model").predict(rows).mean() == pytest.approx(0.1, rel=0.15)


def test_its_fold_scores_are_those_that_windsock_computes(tmp_path, trainer):
    request = Path(practice_run(str(tmp_path), CUSTOM, rows=2000))
    started(request)
    told = json.loads((request.parent / "metrics.json").read_bytes())["selection"]
    rows, raw = practice_rows("binary", 2000), json.loads(request.read_bytes())
    training = trainer.Training(request)
    training.table = trainer.read_rows(request.parent, raw["train"])
    training.labels = training.table["label"]
    days = np.array([str(t)[:10] for t in rows["event_timestamp"].to_pylist()])
    labels, customers = (rows[name].to_numpy() for name in ("label", "customer"))

    for fold, score in zip(raw["folds"], told["folds"], strict=True):
        learnt = np.isin(days, fold["learn"])
        judged = np.isin(days, fold["judge"]) & ~np.isin(customers, customers[learnt & (labels == 1)])
        training.progress |= trainer.UNFITTED
        inputs, beta = training.fit(np.flatnonzero(learnt).tolist())
        columns = trainer.columns_of(training.table, np.flatnonzero(judged).tolist(), inputs)
        scores = np.array(trainer.predict(columns, beta, True))
        assert metrics.measure("average_precision", labels[judged].astype(float), scores) == pytest.approx(
            score, rel=1e-12
        )


SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=30).filter(
    lambda rows: any(label for label, _ in rows)
)


@given(SCORED)
@settings(max_examples=100, deadline=None)
def test_its_average_precision_is_windsocks(trainer, rows):
    labels, scores = (list(map(float, values)) for values in zip(*rows, strict=True))

    mine = trainer.average_precision(labels, scores)

    assert mine == pytest.approx(metrics.measure("average_precision", np.array(labels), np.array(scores)), rel=1e-12)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_it_finds_what_a_textbook_solution_finds(trainer, task):
    rng = np.random.default_rng(1)
    x = np.c_[np.ones(300), rng.normal(size=(300, 3))]
    w, l2, binary = rng.uniform(0.5, 2, 300), 0.7, task == "binary"
    y = (x @ [0.3, 1, -2, 0] + rng.normal(size=300) > 0).astype(float) if binary else x @ [0.3, 1, -2, 0]
    beta = [0.0] * 4
    for _ in range(40):
        step = trainer.newton_step(x.T.tolist(), y.tolist(), w.tolist(), beta, l2, binary)
        beta = [b + s for b, s in zip(beta, step, strict=True)]

    expected = 1 / (1 + np.exp(-(x @ beta))) if binary else x @ beta
    gradient = x.T @ (w * (y - expected)) - np.array([1e-9, l2, l2, l2]) * beta
    np.testing.assert_allclose(gradient, 0, atol=1e-8)


def test_constant_and_empty_columns_do_no_harm(tmp_path, trainer):
    rows = {"a": [None] * 6, "b": [2.0] * 6, "kind": [None] * 6, "label": [0, 1, 0, 1, 0, 1]}
    request = {"features": ["a", "b", "kind"], "categorical": ["kind"]}
    inputs = trainer.learn_inputs(rows, list(range(6)), request)
    columns = trainer.columns_of(rows, list(range(6)), inputs)

    step = trainer.newton_step(columns, rows["label"], [1.0] * 6, [0.0] * len(columns), 1.0, True)

    assert [len(c) for c in columns] == [6, 6, 6]
    assert np.isfinite(step).all()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda r: r["estimator"].update(params={"l3": 1}), 64, "params may hold l2"),
        (lambda r: r["estimator"].update(params={"l2": 0}), 64, "params may hold l2"),
        (lambda r: r["estimator"].update(params={"rows": "all"}), 64, "params may hold l2"),
        (lambda r: r["train"].update(format="parquet"), 64, "give its estimator 'data: csv'"),
        (lambda r: r["train"].update(sha256="0"), 65, "not the file that the request names"),
        (lambda r: r.update(label="visits"), 65, "without one of the classes"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_sentence(tmp_path, change, code, said):
    request = Path(practice_run(str(tmp_path), CUSTOM, rows=100))
    raw = json.loads(request.read_bytes())
    change(raw)
    request.write_text(json.dumps(raw))

    ended = started(request)

    assert ended.code == code
    assert said in ended.message
    assert not (request.parent / "metrics.json").exists()


def test_without_a_request_it_says_so(tmp_path):
    ended = started(tmp_path / "a" / "b" / "c" / "request.json")

    assert ended.code == 64
    assert "there is no such file here" in ended.message


def test_an_infinite_number_is_refused_by_its_cause(trainer):
    with pytest.raises(trainer.Refused, match="divides by zero"):
        trainer.number("-inf")
    assert trainer.number("nan") is None


# As one of a spec's estimators.


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Ten days of payments for the model folder of the tests, ready to be trained on."""
    home = tmp_path_factory.mktemp("own")
    settings = Settings.from_env({"WINDSOCK_HOME": str(home), "WINDSOCK_MODELS": str(MODELS)})
    spec = get_spec(settings, MODEL)
    for day in day_range(FIRST, FIRST + timedelta(days=9)):
        put_day(settings, spec, day, payments(day))
        run_step("features", model=MODEL, key=str(day), settings=settings)
    return settings, spec


def test_windsock_trains_compares_and_judges_it_like_any_other(days):
    settings, spec = days
    run = run_step("assemble", model=MODEL, settings=settings)["run"]
    folder = RunFolder.named(Store.of(settings), MODEL, run)
    told = {
        name: run_step("fit", model=MODEL, settings=settings, options={"run": run, "estimator": name})
        for name in ("lightgbm", "linear")
    }
    findings = check_candidate(request_url(folder, "linear"))
    chosen = run_step("choose", model=MODEL, settings=settings, options={"run": run})

    assert [f for f in findings if f.kept is not True] == []
    best = max(told, key=lambda name: told[name]["selection"]["score"])
    assert chosen["estimator"] == best
    assert all(f"{name} {told[name]['selection']['score']:.4g}" in chosen["chosen"]["why"] for name in told)
    assert chosen["metrics"]["average_precision"] > spec.gate.floors["average_precision"]
    metrics_file = folder.read_json("metrics.json")
    assert metrics_file["candidates"]["linear"]["selection"] == told["linear"]["selection"]


@pytest.fixture(scope="module")
def alone(days, tmp_path_factory):
    """A run of the same model with the custom estimator alone: settings, what was chosen."""
    home = tmp_path_factory.mktemp("alone")
    models = home / "models" / MODEL
    models.mkdir(parents=True)
    text = (MODELS / MODEL / "model.yaml").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if "kind: lightgbm" not in line]
    (models / "model.yaml").write_text("\n".join(kept))
    shutil.copy(EXAMPLE, models)
    settings = Settings.from_env({"WINDSOCK_HOME": str(days[0].home), "WINDSOCK_MODELS": str(home / "models")})
    run = run_step("assemble", model=MODEL, settings=settings, origin="alone")["run"]
    run_step("fit", model=MODEL, settings=settings, options={"run": run})
    return settings, run_step("choose", model=MODEL, settings=settings, options={"run": run})


def test_a_custom_estimator_can_be_the_only_one(alone):
    settings, chosen = alone

    folder = RunFolder.named(Store.of(settings), MODEL, chosen["run"])
    model = load(folder.url("model"))
    assert chosen["chosen"]["kind"] == "custom"
    assert list(model.content) == ["model.json"]
    assert model.feature_names == ("TX_AMOUNT", "TX_HOUR", "TX_DURING_NIGHT", "TX_SIZE")
    assert folder.read_table("holdout_scores.parquet").num_rows > 0


def test_it_is_registered_like_any_other(alone):
    settings, chosen = alone

    registered = run_step("register", model=MODEL, settings=with_mlflow(settings), options={"run": chosen["run"]})

    assert registered["version"] == "1"


@pytest.fixture(scope="module")
def run(days):
    """An assembled run that no trainer has finished."""
    return run_step("assemble", model=MODEL, settings=days[0], origin="unfinished")["run"]


def with_program(settings, folder, text):
    """Return settings whose model is trained by another program."""
    models = folder / "models" / MODEL
    models.mkdir(parents=True)
    spec = (MODELS / MODEL / "model.yaml").read_text(encoding="utf-8")
    (models / "model.yaml").write_text(spec)
    (models / "trainer.py").write_text(text)  # the request names it
    return Settings.from_env({"WINDSOCK_HOME": str(settings.home), "WINDSOCK_MODELS": str(folder / "models")})


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("sys.exit('disk full')", WindsockError, "exit code 1: disk full"),
        ("print('l2 is negative'); sys.exit(64)", SpecError, "exit code 64: l2 is negative"),
        ("print('no rows'); sys.exit(65)", DataContractError, "exit code 65: no rows"),
        ("pass", DataContractError, "ended without finishing"),
    ],
)
def test_the_step_fails_as_the_trainer_did(days, run, tmp_path, line, error, said):
    settings = with_program(days[0], tmp_path, f"import sys\n{line}\n")

    with pytest.raises(error, match=said):
        run_step("fit", model=MODEL, settings=settings, options={"run": run, "estimator": "linear"})


def test_it_is_given_nothing_of_windsocks_own_environment(days, run, tmp_path, monkeypatch):
    monkeypatch.setenv("WINDSOCK_STUDIES", "postgresql://user:secret@db/studies")
    seen = tmp_path / "seen.json"
    text = f"import json, os\njson.dump(dict(os.environ), open({str(seen)!r}, 'w'))\n"
    settings = with_program(days[0], tmp_path, text)

    with pytest.raises(DataContractError):
        run_step("fit", model=MODEL, settings=settings, options={"run": run, "estimator": "linear"})

    given = json.loads(seen.read_text())
    assert given["WINDSOCK_REQUEST"].endswith("candidates/linear/request.json")
    assert [name for name in given if name.startswith("WINDSOCK_")] == ["WINDSOCK_REQUEST"]
