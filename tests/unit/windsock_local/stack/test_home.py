"""Homes: what may be one, what is removed, what is private."""

import json
import socket
from pathlib import Path

import pytest

from windsock.errors import SpecError, UpstreamUnavailable
from windsock.files import locked
from windsock.settings import REPO_ROOT, Settings
from windsock_local.stack import lifecycle, probes
from windsock_local.stack.airflow_api import AirflowApi
from windsock_local.stack.home import SECRETS, Home, PartInfo, StackInfo, read_stack, refuse_unsafe_home
from windsock_local.stack.postgres import Postgres


def settings_for(home: Path) -> Settings:
    return Settings.from_env({"WINDSOCK_HOME": str(home)})


@pytest.mark.parametrize("folder", [Path("/"), Path.home(), Path("/tmp"), REPO_ROOT])
def test_a_folder_with_other_things_in_it_is_refused_as_home(folder: Path) -> None:
    with pytest.raises(SpecError, match="cannot be Windsock's home"):
        refuse_unsafe_home(folder)


def test_a_source_checkout_is_refused_as_home(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()

    with pytest.raises(SpecError, match="--home"):
        Home(tmp_path).create()


@pytest.mark.parametrize("below", ["file", "file/home"])
def test_a_home_that_cannot_be_made_is_named_with_the_reason(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(SpecError, match=r"cannot be made Windsock's home: .*file.* --home or WINDSOCK_HOME"):
        Home(tmp_path / below).create()


def test_wipe_refuses_a_folder_that_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()

    with pytest.raises(SpecError, match="nothing was removed"):
        lifecycle.wipe(settings_for(tmp_path))
    assert (tmp_path / "store").is_dir()


def test_wipe_removes_what_windsock_made_and_nothing_else(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.passwords_file()
    mine = home.root / "thesis.txt"
    mine.write_text("mine")

    assert lifecycle.wipe(settings_for(home.root)) == [mine]
    mine.unlink()
    home.create()
    assert lifecycle.wipe(settings_for(home.root)) == []
    assert not home.root.exists()


def test_down_without_a_stack_is_no_failure(tmp_path: Path) -> None:
    assert lifecycle.stop_stack(settings_for(tmp_path / "nothing")) is False
    assert not (tmp_path / "nothing").exists()


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()

    first, second = ({name: home.secret(name) for name in SECRETS} for _ in range(2))
    passwords = [json.loads(home.passwords_file().read_text()) for _ in range(2)]

    assert first == second
    assert len(set(first.values())) == len(SECRETS)
    assert len(first["jwt_secret"]) >= 64
    assert passwords == [{"admin": first["admin_password"]}] * 2
    assert {p.stat().st_mode & 0o777 for p in home.secrets.iterdir()} == {0o600}
    assert home.open_secrets() == []


def test_a_secret_that_others_can_read_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.secret("fernet_key")
    (home.secrets / "fernet_key").chmod(0o644)

    assert [p.name for p in home.open_secrets()] == ["fernet_key"]


def test_a_recorded_stack_whose_supervisor_is_gone_is_no_stack(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    dead = PartInfo(pid=2**22 + 1, birth=1, started=0.0)
    info = StackInfo(str(home.root), "ready", "http://a", "http://m", "", 0.0, parts={"supervisor": dead})
    home.record(info)

    assert home.recorded() == info
    assert read_stack(settings_for(home.root)) is None
    with pytest.raises(UpstreamUnavailable, match="windsock up"):
        AirflowApi.of_stack(settings_for(home.root))


def test_a_damaged_record_is_no_stack(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.state_file.write_text('{"home": 1')

    assert home.recorded() is None


def test_a_second_supervisor_is_kept_out(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()

    with locked(home.lock_file), lifecycle.prepared_stack(settings_for(home.root), print) as second:
        assert second is None


def test_who_waits_for_the_stack_that_another_up_began_is_told_when_that_one_has_ended(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.supervisor_log.write_text("no room for the database\n", encoding="utf-8")

    with pytest.raises(UpstreamUnavailable, match=r"The stack did not start[\s\S]*no room for the database"):
        lifecycle.wait_until_ready(settings_for(home.root))


def test_the_usual_port_is_taken_if_free_and_an_explicit_one_never_replaced() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]

        assert not probes.is_free(taken)
        with probes.claimed_port(taken, wanted=None, option="--port") as port:
            assert port != taken
        with pytest.raises(SpecError, match=rf"Port {taken} \(--port\) is in use"):
            probes.claimed_port(8080, wanted=taken, option="--port").__enter__()
    with (
        probes.claimed_port(taken, wanted=None, option="--port") as port,
        probes.claimed_port(taken, wanted=None, option="--port") as port_of_another_stack,
    ):
        assert port == taken != port_of_another_stack


def test_a_long_home_gets_a_socket_in_a_short_private_folder(tmp_path: Path) -> None:
    near = Postgres(Home(Path("/srv/windsock")))
    far = Postgres(Home(tmp_path / ("x" * 100)))

    assert near.socket_folder == Path("/srv/windsock/run/pg")
    assert len(str(far.socket_folder)) < 80
    assert far.socket_folder == Postgres(Home(tmp_path / ("x" * 100))).socket_folder
    assert not far.socket_folder.exists(), "only a start makes folders"


def test_the_database_opens_no_port(tmp_path: Path) -> None:
    assert "listen_addresses=" in Postgres(Home(tmp_path)).command
