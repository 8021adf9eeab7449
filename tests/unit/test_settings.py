import re
from pathlib import Path

import pytest

from windsock.errors import SpecError
from windsock.settings import REPO_ROOT, Settings

BETWEEN_OWN_PROCESSES = {
    "WINDSOCK_EXECUTOR_READY_FILE",
    "WINDSOCK_GX_OUTPUT",
    "WINDSOCK_REQUEST",  # docs/trainer.md
    "WINDSOCK_SCHEDULER_BELL",
    "WINDSOCK_STACK_HOME",
    "WINDSOCK_TRAINER_ROLE",
    "WINDSOCK_WAIT_FOR_EXECUTION_API",
}
"""Variables that a part of Windsock sets for another part."""


def test_the_documentation_of_settings_names_every_variable_that_is_read():
    code = [path.read_text(encoding="utf-8") for path in (REPO_ROOT / "include").rglob("*.py")]
    read = {name for text in code for name in re.findall(r'"(WINDSOCK_[A-Z_]*[A-Z])"', text)}
    documented = set(re.findall(r"`(WINDSOCK_[A-Z_]*[A-Z])\b", (REPO_ROOT / "docs/settings.md").read_text("utf-8")))
    assert read - documented == BETWEEN_OWN_PROCESSES


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


def test_the_backend_is_one_of_two_and_a_typo_names_the_nearest(tmp_path: Path):
    settings = Settings.from_env({"WINDSOCK_COMPUTE": "kubernetes", "WINDSOCK_COMPUTE_FILE": str(tmp_path / "s.yaml")})
    assert (settings.compute, settings.compute_file) == ("kubernetes", tmp_path / "s.yaml")
    with pytest.raises(SpecError, match="Did you mean 'kubernetes'"):
        Settings.from_env({"WINDSOCK_COMPUTE": "kubernets"})


def test_the_address_of_shared_searches_is_never_shown():
    settings = Settings.from_env({"WINDSOCK_STUDIES": "postgresql://u:secret@db/studies"})
    assert settings.studies.endswith("/studies")
    assert "secret" not in repr(settings)
