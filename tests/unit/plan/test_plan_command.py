"""``windsock plan`` as a command: what it compares with, how it prints, and that it only reads."""

import json
import shutil
from pathlib import Path

import pytest

from edited_model import Edited, copied, make_checkout
from windsock.cli import main
from windsock.days import ONE_DAY, utc_now
from windsock.ledger import DayRecord, Ledger
from windsock.plan.report import MARKER
from windsock.store_memory import REMEMBERED


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    return make_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def edited(checkout: Edited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edited:
    """A checkout of its own, with a longer window in one view and another floor."""
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    monkeypatch.setenv("WINDSOCK_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("WINDSOCK_STORE", raising=False)
    edited = copied(checkout, tmp_path)
    edited.rewrite("usage.sql", "86399999999", "172799999999")
    edited.set("gate.floors.average_precision", 0.1)
    return edited


def test_it_writes_nothing_whatever_it_is_asked(edited: Edited, capsys: pytest.CaptureFixture[str]):
    before = edited.snapshot()
    for options in ([], ["churn", "--json"], ["--against", "main"], ["--format", "markdown"]):
        assert main(["plan", *options]) == 2
    assert edited.snapshot() == before


def test_json_holds_every_change_and_the_exit_code(edited: Edited, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)

    [model] = told["models"]
    assert (told["exit_code"], model["exit_code"], model["champion"]) == (2, 2, "2")
    assert {change["part"] for change in model["changes"]} == {"view usage", "gate.floors.average_precision"}
    assert len(model["days"][0]["missing"]) == 15
    assert model["days"][0]["missing"][0] == "2026-03-06"


def test_markdown_begins_with_a_marker_and_fences_what_it_quotes(edited: Edited, capsys: pytest.CaptureFixture[str]):
    edited.rewrite("usage.sql", "from events", "from events -- ```` \n")
    assert main(["plan", "--format", "markdown"]) == 2
    lines = capsys.readouterr().out.splitlines()

    assert lines[0] == MARKER
    fences = [line for line in lines if line.startswith("`")]
    assert fences == ["`````diff", "`````"]
    assert "~ view usage" in "\n".join(lines)


def test_a_model_that_did_not_change_is_a_line_of_the_comment(edited: Edited, capsys: pytest.CaptureFixture[str]):
    edited.git("commit", "--quiet", "--all", "--message", "Merged")
    assert main(["plan", "--format", "markdown"]) == 0
    assert "Nothing changes: churn." in capsys.readouterr().out


def test_an_earlier_commit_is_compared_with_by_its_name(edited: Edited, capsys: pytest.CaptureFixture[str]):
    edited.git("commit", "--quiet", "--all", "--message", "Merged")
    assert main(["plan"]) == 0
    assert main(["plan", "--against", "HEAD~1"]) == 2
    assert "against HEAD~1 (" in capsys.readouterr().out


def test_a_revision_that_there_is_not_is_a_sentence(edited: Edited, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "--against", "origin/mian"]) == 64
    told = capsys.readouterr().err
    assert "--against origin/mian: " in told
    assert "fetch it first" in told


def test_a_revision_is_no_option_of_git(edited: Edited, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "--against", "--output=/tmp/x"]) == 64
    assert "--against --output=/tmp/x: " in capsys.readouterr().err


def test_without_git_the_champion_is_compared_with(
    edited: Edited, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", "")
    assert main(["plan"]) == 2
    told = capsys.readouterr().out

    assert "against the definitions of champion 2" in told
    assert "there is no git on this machine" in told
    assert "~ view usage" in told
    assert "gate.floors" not in told
    assert main(["plan", "--against", "main"]) == 64


def test_the_champion_can_be_asked_for(edited: Edited, capsys: pytest.CaptureFixture[str]):
    edited.git("commit", "--quiet", "--all", "--message", "Merged")
    assert main(["plan", "--against", "champion"]) == 2
    told = capsys.readouterr().out
    assert "against the definitions of champion 2" in told
    assert "~ view usage" in told


def test_outside_a_checkout_the_champion_is_compared_with(edited: Edited, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(edited.home / ".git")
    assert main(["plan"]) == 2
    assert "against the definitions of champion 2" in capsys.readouterr().out


def test_a_model_that_git_does_not_know_is_compared_with_its_champion(
    edited: Edited, capsys: pytest.CaptureFixture[str]
):
    edited.git("rm", "-r", "--quiet", "--cached", "models")
    edited.git("commit", "--quiet", "--message", "Not here")
    assert main(["plan"]) == 2
    assert "against the definitions of champion 2" in capsys.readouterr().out
    assert main(["plan", "--against", "HEAD"]) == 2
    assert "+ model churn" in capsys.readouterr().out


def test_a_spec_that_did_not_load_then_is_not_compared_with(edited: Edited, capsys: pytest.CaptureFixture[str]):
    edited.set("gate", None)
    edited.git("commit", "--quiet", "--all", "--message", "Broken")
    edited.set("gate", {"floors": {"average_precision": 0.1}})
    assert main(["plan"]) == 2
    told = capsys.readouterr().out
    assert "does not load: " in told
    assert "gate: is missing" in told
    assert "windsock-plan-" not in told


def test_a_spec_that_does_not_load_now_is_refused_with_every_fault(edited: Edited, capsys: pytest.CaptureFixture[str]):
    edited.set("training.window_dyas", 5)
    edited.set("owner", None)
    assert main(["plan"]) == 64
    told = capsys.readouterr().out
    assert "✗ training.window_dyas: there is no such field. Did you mean 'window_days'?" in told
    assert "✗ owner: is missing" in told


def test_without_a_store_specs_alone_are_compared(edited: Edited, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(edited.home / "store")
    for said in ("here is no store, but this installation has one", "there is no store at "):
        assert main(["plan"]) == 2
        told = " ".join(capsys.readouterr().out.split())
        assert "~ view usage" in told
        assert said in told
        assert "without days, values and champion" in told
        assert not (edited.home / "store").exists()
        (edited.home / REMEMBERED).unlink(missing_ok=True)  # as in a checkout that never saw the store


def test_a_store_that_cannot_be_read_is_told(edited: Edited, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(edited.home / "store")
    (edited.home / "store").write_text("no folder")
    assert main(["plan"]) == 64
    assert "store cannot be read: NotADirectoryError" in capsys.readouterr().err


def test_a_store_of_no_known_kind_is_a_wrong_request(
    edited: Edited, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WINDSOCK_STORE", "nowhere://bucket/windsock")
    assert main(["plan"]) == 64
    assert "nowhere://bucket/windsock: cannot be opened" in capsys.readouterr().err


def test_an_unknown_model_names_the_nearest(edited: Edited, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "chrun"]) == 64
    assert "Did you mean 'churn'?" in capsys.readouterr().err


def test_what_is_dated_after_today_is_listed(edited: Edited, capsys: pytest.CaptureFixture[str]):
    later = utc_now().date() + 2 * ONE_DAY
    Ledger.of(edited.settings, "churn", "ingest").publish(DayRecord(str(later), "empty"))
    assert main(["plan"]) == 2
    told = capsys.readouterr().out
    assert f"ingest of {later} is dated after today" in told
    assert "15 days missing: 2026-03-06..2026-03-20" in told


def test_a_view_that_looked_ahead_is_refused(edited: Edited, capsys: pytest.CaptureFixture[str]):
    edited.git("checkout", "--quiet", ".")
    assert main(["plan"]) == 0
    table = json.loads(_json(capsys))["models"][0]["goes_on"][0].split("with ")[1].split(",")[0]
    note = {"definition": "x", "carried_over": False, "faults": ["usage.sql: view 'usage': it looks ahead"]}
    path = edited.home / "store" / "churn" / "checked" / f"{table}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(note))

    assert main(["plan"]) == 64
    assert "✗ usage.sql: view 'usage': it looks ahead" in capsys.readouterr().out


def _json(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["plan", "--json"]) == 0
    return capsys.readouterr().out
