"""The contract's clauses, each broken once: a finished good candidate is spoilt and has to be told so by name."""

import hashlib
import json
import os
import pickle
import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest

from windsock.cli import main
from windsock.served.model import load
from windsock.settings import REPO_ROOT
from windsock.trainer_kit.conformance import check_candidate
from windsock.trainer_kit.practice import practice_run
from windsock.trainer_kit.trainer_trial import ProgramRunner, try_trainer

EXAMPLE = REPO_ROOT / "docker" / "examples" / "trainer" / "trainer.py"
ISOLATED = (sys.executable, "-I", "-S", str(EXAMPLE))
CUSTOM = {"kind": "custom", "name": "mine", "command": ["./train"], "data": "csv"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder whose candidate the example has finished."""
    home = tmp_path_factory.mktemp("practice")
    request = Path(practice_run(str(home), CUSTOM, rows=400))
    ended = ProgramRunner(ISOLATED, {}).start(request).wait(60)
    assert ended is not None
    assert ended.code == 0, ended.message
    return request.parents[2]


@pytest.fixture
def candidate(finished, tmp_path):
    """A copy of it that a test may spoil: the folder that holds request.json."""
    return Path(shutil.copytree(finished, tmp_path / "run")) / "candidates" / "mine"


def edit(path, **changes):
    content = json.loads(path.read_bytes())
    content = {name: value for name, value in {**content, **changes}.items() if value is not ...}
    path.write_text(json.dumps(content))


def edit_model(candidate, change):
    card = json.loads((candidate / "model" / "model.json").read_bytes())
    change(card)
    (candidate / "model" / "model.json").write_text(json.dumps(card))
    os.utime(candidate / "metrics.json")


def broken(candidate):
    return {f.clause: f.message for f in check_candidate(str(candidate / "request.json")) if f.kept is False}


def test_a_good_candidate_keeps_every_clause(candidate):
    findings = check_candidate(str(candidate / "request.json"))

    assert [f.clause for f in findings if f.kept is not True] == []
    assert len(findings) == 10


def test_a_candidate_without_selection_and_importance_is_good_too(candidate):
    edit(candidate / "metrics.json", selection=None, params=..., trainer=..., seconds=...)

    assert broken(candidate) == {}


@pytest.mark.parametrize(
    ("changes", "clause", "said"),
    [
        ({"format": "mine/1"}, "metrics", "whose format is 'windsock-candidate/1', not 'mine/1'"),
        ({"request_sha256": "0" * 64}, "request-hash", "it was made from another request"),
        ({"request_sha256": ...}, "request-hash", "its request_sha256 is None"),
        ({"selection": 0.6}, "selection", "give an object with metric, score and folds, or null"),
        ({"selection": {"metric": "auc", "score": 0.6}}, "selection", "the request asks for 'average_precision'"),
        ({"selection": {"metric": "average_precision", "score": float("nan")}}, "selection", "score is nan"),
        ({"selection": {"metric": "average_precision", "score": 1, "folds": ["a"]}}, "selection", r"folds\[0\] is 'a'"),
        ({"selection": {"metric": "average_precision", "score": 1, "folds": 2}}, "selection", "folds is 2"),
        ({"importance": {"amuont": 1.0}}, "importance", "no feature of the request. Did you mean 'amount'"),
        ({"importance": {"amount": None}}, "importance", "'amount' is None"),
    ],
)
def test_wrong_metrics_are_told_by_their_clause(candidate, changes, clause, said):
    edit(candidate / "metrics.json", **changes)

    found = broken(candidate)

    assert list(found) == [clause]
    assert re.search(said, found[clause])


def test_an_unfinished_candidate_is_told_what_is_missing(candidate):
    (candidate / "metrics.json").unlink()

    findings = {f.clause: f for f in check_candidate(str(candidate / "request.json"))}

    assert "metrics.json is not there: the trainer of mine has ended without finishing" in findings["metrics"].message
    assert findings["request-hash"].kept is None
    assert findings["scores"].kept is True


def test_changed_training_rows_are_told(candidate):
    rows = candidate / "train.csv.gz"
    rows.write_bytes(rows.read_bytes()[:-1])

    assert "it was changed. A trainer only reads it" in broken(candidate)["rows"]


def test_a_wrong_request_ends_the_check(candidate):
    edit(candidate / "request.json", format="windsock-trainer/999")

    findings = check_candidate(str(candidate / "request.json"))

    assert [(f.clause, f.kept) for f in findings] == [("request", False)]


@pytest.mark.parametrize(
    ("change", "clause", "said"),
    [
        (lambda c: c.update(format="onnx/1"), "model", "of format 'onnx/1', but this version of Windsock reads"),
        (lambda c: c.update(task="regression"), "model", "task 'regression', but the request asks for 'binary'"),
        (lambda c: c["features"][0].update(coefficient=float("nan")), "model", "coefficient is nan"),
        (lambda c: c["features"][0].update(name="amont"), "features", "asks for 'amont'.*Did you mean 'amount'"),
    ],
)
def test_a_wrong_model_card_is_told_by_its_clause(candidate, change, clause, said):
    edit_model(candidate, change)

    found = broken(candidate)

    assert list(found) == [clause]
    assert re.search(said, found[clause])


def test_scores_that_are_no_numbers_are_told(candidate):
    # Each coefficient is a number, but their sum is none: infinity less infinity.
    def change(card):
        for feature, coefficient in zip(card["features"][:2], (1e308, -1e308), strict=True):
            feature |= {"coefficient": coefficient, "mean": 0.0, "scale": 1e-300, "missing": 1.0}

    edit_model(candidate, change)

    assert "rows get no usable score (for example nan)" in broken(candidate)["scores"]


def test_a_pickle_in_the_model_folder_is_told_and_never_loaded(candidate):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    (candidate / "model" / "model.pkl").write_bytes(pickle.dumps(Bomb()))
    os.utime(candidate / "metrics.json")

    assert "also holds model.pkl" in broken(candidate)["model"]
    (candidate / "model" / "model.json").unlink()
    assert "lacks model.json (it holds: model.pkl)" in broken(candidate)["model"]


def test_a_model_file_younger_than_metrics_is_told(candidate):
    later = (candidate / "metrics.json").stat().st_mtime + 5
    os.utime(candidate / "model" / "model.json", (later, later))

    assert "model.json of the model folder is younger" in broken(candidate)["order"]


# Trying a trainer: the built-in one keeps the contract too, and each bad habit is told by its clause.


def said_of(clause, runner, tmp_path):
    """Try a trainer until it breaks a clause, which has to be this one."""
    request = Path(practice_run(str(tmp_path / "store"), CUSTOM, rows=200))
    broken = next(f for f in try_trainer(runner, request, seconds=60) if f.kept is False)
    assert broken.clause == clause
    return broken.message


def habit(tmp_path, line):
    """Return the command of a trainer that calls the example, then does something of its own."""
    program = tmp_path / "habit.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import os, runpy, signal, sys, time
            from pathlib import Path
            request = Path(os.environ["WINDSOCK_REQUEST"])
            folder = request.parent
            again = (folder / "metrics.json").exists()
            code = 0
            try:
                runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
            except SystemExit as end:
                code = end.code or 0
            {line}
            sys.exit(code)
            """
        )
    )
    return (sys.executable, "-I", "-S", str(program))


@pytest.mark.parametrize(
    ("line", "clause", "said"),
    [
        ("sys.exit(3)", "runs", "ended with exit code 3"),
        ("(folder / 'notes.txt').write_text('x')", "writes", "notes.txt was written; only"),
        ("(folder.parents[1] / 'train.parquet').write_bytes(b'')", "writes", "train.parquet was changed"),
        ("sys.exit(code or again * 9)", "again", "on a finished candidate the trainer ended with exit code 9"),
        ("os.utime(folder / 'metrics.json') if again else None", "again", "it wrote metrics.json again"),
        ("sys.exit(1 if code else 0)", "refuses-request", "exit code 1 .*; 64 is expected, so that nobody retries"),
        (
            "code == 65 and (folder / 'metrics.json').write_text('{}')",
            "refuses-rows",
            "wrote metrics.json all the same",
        ),
    ],
)
def test_each_bad_habit_is_told_by_its_clause(tmp_path, line, clause, said):
    assert re.search(said, said_of(clause, ProgramRunner(habit(tmp_path, line), {}), tmp_path))


def test_a_trainer_that_cannot_be_stopped_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("windsock.trainer_kit.trainer_trial.GRACE_SECONDS", 0.5)
    # The first run takes its time, so that the signal comes when the program is well on its way.
    slow = "time.sleep({'mine': 5 * (not again), 'mine-stopped': 60}.get(folder.name, 0))"
    command = habit(tmp_path, f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {slow}")

    assert "did not end within 0.5 s of SIGTERM" in said_of("stopped", ProgramRunner(command, {}), tmp_path)


def test_a_trainer_that_never_ends_is_told_at_the_limit(tmp_path):
    request = Path(practice_run(str(tmp_path), CUSTOM, rows=200))

    findings = list(try_trainer(ProgramRunner(("sleep", "60"), {"PATH": os.environ["PATH"]}), request, seconds=0.3))

    assert [(f.clause, f.kept) for f in findings] == [("runs", False)]
    assert "was not done after 0 s" in findings[0].message


TREES = {"kind": "lightgbm", "name": "trees", "rounds": 10, "params": {"min_child_samples": 5}}


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_built_in_trainers_candidates_keep_the_contract(tmp_path, task):
    from windsock.trainers.trainer import train

    request = practice_run(str(tmp_path), TREES, rows=400, task=task)
    train(request)

    assert [f for f in check_candidate(request) if f.kept is not True] == []


@pytest.mark.kill
def test_the_built_in_trainer_keeps_the_contract_through_kills(tmp_path):
    request = Path(practice_run(str(tmp_path), TREES, rows=400))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO_ROOT / "include"), "OMP_NUM_THREADS": "1"}
    command = (sys.executable, "-m", "windsock.trainers.trainer")

    assert [f for f in try_trainer(ProgramRunner(command, environment), request) if f.kept is False] == []


# The command.


def test_the_command_tries_a_trainer_and_ends_with_0(capsys):
    assert main(["check-trainer", "--data", "csv", "--rows", "300", "--", *ISOLATED]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines][:2] == ["runs", "rows"]
    assert len(lines) == 17
    assert not any(line.startswith("BROKEN") for line in lines)


def test_the_command_ends_with_65_if_a_clause_is_broken(candidate, capsys):
    edit(candidate / "metrics.json", format="mine/1")

    assert main(["check-trainer", "--candidate", str(candidate)]) == 65
    found = r"BROKEN  metrics  .*metrics\.json: must be a JSON object whose format is '.*', not 'mine/1'"
    assert re.search(found, capsys.readouterr().out)


def test_the_documentation_lists_exactly_the_clauses_that_are_checked(capsys):
    main(["check-trainer", "--data", "csv", "--rows", "100", "--", *ISOLATED])
    checked = {line.split()[1] for line in capsys.readouterr().out.splitlines()}
    text = (REPO_ROOT / "docs" / "trainer.md").read_text(encoding="utf-8")
    table = text.partition("| clause |")[2].partition("###")[0]

    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == checked


def test_the_documented_linear_model_loads(tmp_path):
    text = (REPO_ROOT / "docs" / "trainer.md").read_text(encoding="utf-8")
    card = next(b for b in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if "windsock-linear/1" in b)
    (tmp_path / "model.json").write_text(card)

    assert load(tmp_path).feature_names == ("TX_AMOUNT", "TX_DURING_NIGHT")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either a command after '--' to try, or --candidate"),
        (["--params", "{", "--", "true"], "--params is no JSON"),
        (["--params", "[1]", "--", "true"], "--params is no JSON object"),
        (["--folder", __file__, "--", "true"], "is a file"),
        (["--", "no-such-program"], "the trainer cannot be started"),
    ],
)
def test_the_command_ends_with_64_if_it_is_used_wrongly(arguments, said, capsys):
    assert main(["check-trainer", *arguments]) == 64
    assert said in capsys.readouterr().err


def test_the_hash_is_that_of_the_bytes_as_they_lie_there(candidate):
    content = json.loads((candidate / "metrics.json").read_bytes())

    assert content["request_sha256"] == hashlib.sha256((candidate / "request.json").read_bytes()).hexdigest()
