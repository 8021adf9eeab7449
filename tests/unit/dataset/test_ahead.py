"""``windsock apply``, from a branch on the store of production: only what is new is added, and a kill loses nothing."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from churn_model import DAY, USAGE, Churn, delivery, files_below
from fork_server import fork_context
from kill import DieAt, arm, snapshot
from windsock.cli import main
from windsock.dataset import ahead
from windsock.spec import get_spec

EDITED = USAGE.replace("86399999999", "172799999999")


@pytest.fixture
def production(churn_days: Churn, tmp_path: Path) -> Churn:
    return churn_days.copied(tmp_path / "production")


@pytest.fixture
def branch(production: Churn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Churn:
    """Another checkout with an edited view, and a home of its own, on production's store."""
    home = tmp_path / "branch"
    shutil.copytree(production.home / "models", home / "models")
    made = Churn.make(home, EDITED)
    for name, value in (("HOME", home), ("MODELS", home / "models"), ("STORE", production.settings.store)):
        monkeypatch.setenv(f"WINDSOCK_{name}", str(value))
    return Churn(home, replace(made.settings, store=production.settings.store))


def test_a_branch_adds_its_new_definition_and_touches_nothing_that_stands(production: Churn, branch: Churn, capsys):
    before, new = files_below(production.home), branch.table.name

    assert main(["apply", "churn"]) == 0

    assert f"churn: {new}: 12 days computed, {DAY}.." in capsys.readouterr().out
    after = files_below(production.home)
    assert {file: after[file] for file in before} == before
    added = [file for file in after if file not in before]
    assert added
    assert all(new.removeprefix("features/") in file or "/checked/" in file for file in added), added
    # After the merge there is nothing left to do.
    production.write_sql(EDITED)
    assert production.unkeyed("prepare")["days"] == []


def test_applied_again_it_computes_nothing_and_writes_nothing(production: Churn, branch: Churn, capsys):
    assert main(["apply", "churn"]) == 0
    before = production.files()
    capsys.readouterr()
    assert main(["apply", "churn"]) == 0
    assert "churn: the next training lacks no features" in capsys.readouterr().out
    assert production.files() == before


def compute_ahead(churn: Churn) -> None:
    spec = get_spec(churn.settings, "churn")
    for day, each in ahead.lacking_pairs(churn.settings, spec):
        ahead.compute(churn.settings, spec, day, each)


def _die(churn: Churn, place: DieAt) -> None:
    arm(place)
    compute_ahead(churn)


@pytest.mark.kill
@pytest.mark.parametrize(
    "place",
    [
        DieAt("windsock.ledger:Ledger.publish", call=3),
        DieAt("windsock.ledger:Ledger.publish", call=3, after=True),
        DieAt("windsock.tables:write_day", call=3, after=True),
        DieAt("windsock.store:Store.write_json", call=6, after=True),
    ],
    ids=lambda place: f"{place.place.rpartition(':')[2]}-{'after' if place.after else 'before'}",
)
def test_killed_in_the_middle_and_run_again_it_leaves_what_one_run_leaves(
    production: Churn, branch: Churn, churn_days: Churn, tmp_path: Path, place: DieAt
):
    calm = churn_days.copied(tmp_path / "calm", EDITED)
    compute_ahead(calm)
    child = fork_context().Process(target=_die, args=(branch, place))
    child.start()
    child.join()
    assert child.exitcode == -9
    done, all_days = (len(c.files("churn", "ledger", c.table.name)) for c in (branch, calm))
    assert 0 < done < all_days

    compute_ahead(branch)

    assert snapshot(branch.settings, "churn", ["features"]) == snapshot(calm.settings, "churn", ["features"])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Churn:
    churn = Churn.make(tmp_path)
    monkeypatch.setenv("WINDSOCK_HOME", str(churn.home))
    monkeypatch.setenv("WINDSOCK_MODELS", str(churn.home / "models"))
    return churn


def test_a_model_with_too_little_history_is_told_and_is_no_fault(installed: Churn, capsys):
    assert main(["apply", "churn"]) == 0
    assert "churn: no features to compute ahead yet: churn: there is nothing to train on yet" in capsys.readouterr().out
    installed.ingest(delivery(rows=40))
    assert main(["apply", "churn"]) == 0
    said = capsys.readouterr().out
    assert "Training is possible as of" in said
    assert "lacks no features" not in said


def test_a_broken_view_ends_with_64_and_stops_no_other_model(branch: Churn, capsys):
    other = branch.home / "models" / "aside"
    shutil.copytree(branch.home / "models" / "churn", other)
    file = other / "model.yaml"
    file.write_text(file.read_text().replace("name: churn", "name: aside", 1))
    (other / "usage.sql").write_text("select nonsense from events")
    days = [Path(branch.settings.store, name, "ledger", "ingest") for name in ("churn", "aside")]
    shutil.copytree(*days)

    assert main(["apply"]) == 64

    said = capsys.readouterr()
    assert "nonsense" in said.err
    assert "aside: its features are not computed" in said.err
    assert f"churn: {branch.table.name}: 12 days computed" in said.out
    assert main(["apply", "aside"]) == 64
