from pathlib import Path

from windsock.settings import REPO_ROOT, Settings


def test_a_laptop_needs_no_setting():
    settings = Settings.from_env({})
    assert settings.home == REPO_ROOT / "var"
    assert settings.store == str(REPO_ROOT / "var" / "store")
    assert settings.compute == "local"


def test_a_home_with_models_of_its_own_is_looked_at_by_its_home_alone(tmp_path: Path):
    assert Settings.from_env({"WINDSOCK_HOME": str(tmp_path)}).models == (REPO_ROOT / "include" / "models",)
    (tmp_path / "models").mkdir()
    assert Settings.from_env({"WINDSOCK_HOME": str(tmp_path)}).models == (tmp_path / "models",)
    chosen = Settings.from_env({"WINDSOCK_HOME": str(tmp_path), "WINDSOCK_MODELS": "/a:/b"})
    assert chosen.models == (Path("/a"), Path("/b"))


def test_the_slack_token_may_stand_in_a_file_and_is_never_shown(tmp_path: Path):
    (tmp_path / "token").write_text("xoxb-secret\n", encoding="utf-8")
    settings = Settings.from_env({"WINDSOCK_SLACK_TOKEN_FILE": str(tmp_path / "token")})
    assert settings.slack_token == "xoxb-secret"
    assert "secret" not in repr(settings)
