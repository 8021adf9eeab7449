"""Windsock on one host by docs/deploy.md's chapter on compose, in a Docker daemon that is here or is started for it."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from built_images import docker_answers, load_into_docker
from churn_model import Churn
from model_runs import ModelRuns, wait_until
from stack_fixture import Stack, StackApi, free_ports
from windsock.files import locked
from windsock.settings import REPO_ROOT
from windsock_local.stack.processes import spawn

BESIDE = Path(os.environ.get("WINDSOCK_CONTAINERS") or REPO_ROOT.parent / "shared" / "containers")
SERVICES = {"postgres": ("postgres",), "redis": ("redis",), "s3": ("s3", "s3-volume")}
"""What other projects' images run: stand-in to the services that it is for."""
OURS = ("init", "api-server", "scheduler", "dag-processor", "triggerer")
_READY_SECONDS = 540.0
_PROJECT = "windsock-test"
_ALONE = """#!/bin/sh
exec unshare --net --pid --mount --fork --kill-child --mount-proc sh -c '
    ip link set lo up
    mkdir "$0/data"
    truncate --size=40G "$0/disk" && mkfs.ext4 -q -O ^has_journal "$0/disk" && mount -o loop "$0/disk" "$0/data"
    exec "$0/rt/usr/sbin/dockerd" "$@"
' {} "$@"
"""
"""Runs the daemon with networks, processes, mounts and, where that can be, a disk of its own: all of it ends with the
daemon, its hundred thousand files are one to remove, and its firewall rules do not reach what else runs here."""
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Composed:
    """The containers of one project, and how people reach Airflow in them."""

    command: tuple[str, ...]
    churn: Churn
    """The model, in a folder that is mounted for Airflow's containers."""
    url: str
    password: str

    def compose(self, *command: str, check: bool = True) -> str:
        """Run ``docker compose`` and return what it writes."""
        done = subprocess.run([*self.command, *command], capture_output=True, text=True, check=False)
        assert not (check and done.returncode), f"compose {command}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def up(self) -> None:
        """Start what does not run, and wait until each part is healthy."""
        self.compose("up", "--detach", "--wait", f"--wait-timeout={_READY_SECONDS:.0f}")

    def windsock(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the document says."""
        run = [*self.command, "exec", "--no-TTY", "scheduler", "windsock", *command]
        return subprocess.run(run, capture_output=True, text=True, check=False)

    def kill(self, service: str) -> None:
        """Kill all that runs in a container, as running out of memory does: by no command that Docker knows of."""
        self.compose("exec", "--no-TTY", service, "bash", "-c", "kill -KILL -1", check=False)

    def health(self, service: str) -> str:
        """Return what the daemon says of a service's health."""
        return str(json.loads(self.compose("ps", "--all", "--format=json", service))["Health"])

    @cached_property
    def api(self) -> StackApi:
        """Airflow's API by its published port, as an admin."""
        return StackApi(self.url, self.password, attempts=60)

    @property
    def runs(self) -> ModelRuns:
        """The runs of the model."""
        return ModelRuns(Stack(self.churn.home, self.churn.settings, {}, self.url, "", self.api), "churn")


def settled(composed: Composed, days: list[date], stage: str, seconds: float) -> None:
    """Wait until a stage has run for each of the days."""
    wait_until(lambda: set(map(str, days)) <= set(composed.runs.days(stage)), seconds, f"{stage} of {days}")


@contextmanager
def composed() -> Iterator[Composed]:
    """Start the project from nothing by the commands of the document, and remove it with its volumes in the end.

    One session of this user does so at a time, and first removes what one left that was killed.
    """
    folder = Path(tempfile.gettempdir(), f"windsock-compose-{os.getuid()}")
    with ExitStack() as end:
        end.enter_context(locked(folder.with_suffix(".lock")))
        _remove(folder)
        end.callback(_remove, folder)
        folder.mkdir()
        of_daemon = end.enter_context(_daemon(folder / "docker"))
        images = _stand_ins(folder / "images") if BESIDE.is_dir() else {}
        ours = load_into_docker("airflow")
        churn = Churn.make(
            folder / "site",
            label__delay_days=1,
            training__window_days=2,
            training__holdout_days=1,
            training__estimator={"trials": 1, "rounds": 20, "params": {"min_child_samples": 5}},
        )
        subprocess.run([REPO_ROOT / "docker" / "make-env.sh", folder / "made"], check=True, capture_output=True)
        airflow_port, mlflow_port = free_ports(2)
        env_file, own = folder / "made" / "compose.env", folder / "own.yaml"
        settings = {"WINDSOCK_IMAGE": ours, "AIRFLOW_PORT": airflow_port, "MLFLOW_PORT": mlflow_port}
        with env_file.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())
        own.write_text(yaml.safe_dump({"services": _changes(images, churn.home)}))
        files = ("--file", str(REPO_ROOT / "docker" / "compose.yaml"), "--file", str(own))
        command = ("docker", "compose", "--project-name", _PROJECT, "--env-file", str(env_file), *files)
        password = (folder / "made" / "secrets" / "airflow_admin").read_text().strip()
        running = Composed(command, churn, f"http://127.0.0.1:{airflow_port}", password)
        running.compose("down", "--volumes", "--timeout=5")
        end.callback(running.compose, "down", "--volumes", "--timeout=5", check=False)
        end.callback(_tell, running)
        running.up()
        end.enter_context(of_daemon)
        yield running


def _remove(folder: Path) -> None:
    """Remove what a session wrote, and what the kernel keeps of containers that have ended with their daemon."""
    if folder.exists():
        shutil.rmtree(folder)
    for group in Path("/sys/fs/cgroup").glob("**/docker/" + "[0-9a-f]" * 64):
        with suppress(OSError):  # its container runs
            group.rmdir()


def _changes(images: Mapping[str, str], site: Path) -> dict[str, Any]:
    """Return a site's own file of services: its models mounted, and images that are here in place of pulled ones."""
    mounted = {"environment": {"WINDSOCK_MODELS": "/site/models"}, "volumes": [f"{site}:/site:ro"]}
    changes: dict[str, Any] = dict.fromkeys(OURS, mounted)
    for name, image in images.items():
        changes |= {service: {"image": image, "pull_policy": "never"} for service in SERVICES[name]}
    if "s3" in images:  # another server stands in, which is asked for its health at another address
        asked = ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:7070/healthz"]
        changes["s3"]["healthcheck"] = {"test": asked, "start_period": "60s"}
    return changes


@contextmanager
def _daemon(folder: Path) -> Iterator[AbstractContextManager[None]]:
    """Use the Docker daemon that answers, or start the one kept beside the project; skips where there is neither.

    Yields:
        What lets this process use the ports that the daemon publishes.
    """
    if docker_answers():
        yield nullcontext()
        return
    start = BESIDE / "start-docker"
    if not os.access(start, os.X_OK) or os.getuid() != 0:
        pytest.skip("no Docker daemon answers, and none can be started here")
    (folder / "cfg").mkdir(parents=True)
    (folder / "cfg" / "config.json").write_text("{}")  # buildah, too, looks for it where DOCKER_CONFIG says
    (first := folder / "rt" / "usr" / "bin" / "dockerd").parent.mkdir(parents=True)  # found before the one in sbin
    first.write_text(_ALONE.format(folder))
    first.chmod(0o755)
    log = folder.with_suffix(".log")
    with pytest.MonkeyPatch.context() as patch:
        process = spawn(
            [str(start), str(folder)], env=os.environ, log_file=log, cwd=folder, death_signal=signal.SIGKILL
        )
        try:
            patch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
            patch.setenv("DOCKER_CONFIG", f"{folder}/cfg")
            patch.setenv("PATH", f"{folder}/rt/usr/bin:{folder}/rt/usr/sbin:{os.environ['PATH']}")
            wait_until(lambda: docker_answers() or process.poll() is not None, 180, "a Docker daemon that answers")
            if process.poll() is not None:
                pytest.skip(f"the Docker daemon in {BESIDE} does not start here: {log.read_text()[-500:]}")
            (daemon,) = psutil.Process(process.pid).children()
            yield _network_of(daemon.pid)
        finally:
            for child in psutil.Process(process.pid).children():
                child.kill()  # the first process of its own: the kernel ends all others
            process.wait(60)


@contextmanager
def _network_of(pid: int) -> Iterator[None]:
    """Let this thread, and what it starts, use the network of another process, as ``nsenter --net`` does."""
    with open("/proc/thread-self/ns/net") as own, open(f"/proc/{pid}/ns/net") as other:
        _enter(other.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _stand_ins(folder: Path) -> dict[str, str]:
    """Build what stands in for images that cannot be pulled here, and load it into the daemon."""
    archive = Path(os.environ.get("KUBECONFIG") or "/none/none").parent / "images" / "debian-python.tar"
    if not archive.is_file() or shutil.which("buildah") is None:
        pytest.skip("the images of PostgreSQL, Redis and S3 need buildah and the Debian base of ../shared/kubernetes")
    _run("buildah", "pull", "--quiet", f"docker-archive:{archive}")
    names = {}
    for name in SERVICES:
        shutil.copytree(BESIDE / "images" / name, context := folder / name)
        if name == "s3":
            shutil.copy(Path(sys.executable).with_name("weed"), context)
        names[name] = f"windsock-test/{name}:latest"
        file = f"{folder}/{name}.tar"
        of_root = ("--isolation", "chroot", "--pull-never")
        _run("buildah", "bud", "--layers", *of_root, "--tag", names[name], str(context))
        _run("buildah", "push", names[name], f"docker-archive:{file}:{names[name]}")
        _run("docker", "load", "--input", file)
    return names


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}"


def _tell(running: Composed) -> None:
    """Write how the parts stood in the end; pytest shows it when a test has failed."""
    sys.stdout.write(running.compose("ps", "--all", check=False))
    sys.stdout.write(running.compose("logs", "--tail=30", check=False))
