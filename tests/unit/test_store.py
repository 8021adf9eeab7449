"""A store that cannot be used is a sentence that names it and what to look at, whatever library noticed."""

from pathlib import Path

import pytest

from windsock.cli import main
from windsock.errors import SpecError, UpstreamUnavailable, WindsockError
from windsock.runs.contract import TrainerRequest
from windsock.settings import Settings
from windsock.store import MARKER, Store


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_MAX_ATTEMPTS": "1"}
    for name, value in {**credentials, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)


CASES = [
    ("file", SpecError, "NotADirectoryError.* Set WINDSOCK_STORE to a folder"),
    ("nosuch://bucket/store", SpecError, "nosuch://bucket/store: cannot be opened: .* Give a folder, or a URL"),
    ("s3://bucket/store", UpstreamUnavailable, "s3://bucket/store: The object store at .* gives no answer"),
]


@pytest.mark.parametrize(("root", "kind", "said"), CASES, ids=[case[0] for case in CASES])
def test_a_store_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, root: str, kind: type[WindsockError], said: str
) -> None:
    (tmp_path / "file").write_text("no store")
    url = root if "://" in root else str(tmp_path / root)
    store = Store.of(Settings.from_env({"WINDSOCK_HOME": str(tmp_path), "WINDSOCK_STORE": url}))

    with pytest.raises(kind, match=said):
        store.exists("anything")


def test_a_marker_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text("{")

    with pytest.raises(UpstreamUnavailable, match="cannot be read: JSONDecodeError"):
        Store.of(Settings.from_env({"WINDSOCK_HOME": str(tmp_path), "WINDSOCK_STORE": str(tmp_path)})).exists(
            "anything"
        )


def test_the_command_line_ends_with_the_code_of_the_reason_and_shows_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDSOCK_HOME", str(tmp_path))
    for url, code in (("nosuch://someone:hush@host/a", 64), ("s3://bucket/another", 75)):
        monkeypatch.setenv("WINDSOCK_STORE", url)
        assert main(["models"]) == code
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert "hush" not in shown


def test_a_request_in_a_store_that_nobody_answers_for_is_not_called_a_wrong_request() -> None:
    with pytest.raises(UpstreamUnavailable, match=r"cannot be read: .* Check the address, the credentials"):
        TrainerRequest.read("s3://bucket/runs/fraud/r/candidates/mine/request.json")
