"""Trainer pods that are killed in the middle: the next one goes on from the last checkpoint to the very same model.

A trainer is frozen (SIGSTOP) as soon as its checkpoint shows that it is in the middle, so
that what is done to it then hits it there, however fast or slow the machine is.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from cluster import GPU, Cluster, wait_for
from cluster_stack import ClusterStack
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState
from pod_watch import PodWatch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may freeze and kill the processes of pods")

SECONDS = 120
FINE = 0.005
"""Seconds between two looks for a checkpoint."""


def torch_steps(folder: Path, training: str) -> int:
    """Return how many steps the checkpoint of one training (``final``, a trial's fold) has; 0: there is none."""
    with contextlib.suppress(FileNotFoundError):
        data = (folder / "checkpoints" / training / "training.npz").read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return int(json.loads(file["about"].tobytes())["step"])
    return 0


def trials_done(folder: Path) -> int:
    """Return how many trials the checkpoint of a search has."""
    with contextlib.suppress(FileNotFoundError):
        journal = json.loads((folder / "checkpoints" / "trials.json").read_bytes())
        ended = (entry for entry in journal if entry["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES)
        return sum(entry["state"] in (TrialState.COMPLETE, TrialState.PRUNED) for entry in ended)
    return 0


# --- what happens to a pod


def deleted(cluster: Cluster, pod: str, process: psutil.Process) -> None:
    """Delete the pod at once, as when its node is lost; the process does not hear of it before it is dead."""
    cluster.delete_pod(pod, grace_seconds=0)


def killed(cluster: Cluster, pod: str, process: psutil.Process) -> None:
    """Kill the process, as the kernel does."""
    process.kill()


def drained(cluster: Cluster, pod: str, process: psutil.Process) -> None:
    """Delete the pod as a drained node does: with a signal to end, and time to obey it."""
    cluster.delete_pod(pod)
    wait_for(lambda: is_pending(process, signal.SIGTERM), SECONDS, "the signal to end")
    process.send_signal(signal.SIGCONT)


def is_pending(process: psutil.Process, number: signal.Signals) -> bool:
    """Whether a signal waits for a frozen process."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd:"))
    return bool(mask >> (number - 1) & 1)


@dataclass
class Harm:
    """Something that happens to an estimator's pod once its progress has come so far."""

    progress: Callable[[Path], int]
    after: int
    happens: Callable[[Cluster, str, psutil.Process], None]
    pod: str = ""
    found: int = 0
    """Progress in the checkpoint that the next pod finds."""
    log: str = ""
    """Of the pod, up to then."""


@dataclass
class Victim:
    """An estimator's trainer, whichever pod it is in."""

    estimator: str
    resumes: str
    """What a pod says that goes on where the one before it was harmed."""
    harms: list[Harm]
    done: list[Harm] = field(default_factory=list)
    process: psutil.Process | None = None
    pod: str = ""
    begun: bool = False
    """Whether the pod has come to work of its own: before, the progress is that of the one before it."""

    def log_after(self, number: int, rest: str) -> str:
        """Return the log of the pod that came after a harm; ``rest``: that of the last one."""
        return self.done[number + 1].log if number + 1 < len(self.done) else rest

    def look_for_process(self, cluster: Cluster, seen: PodWatch, folder: Path) -> None:
        """Find the trainer's process in the newest pod."""
        used = {harm.pod for harm in self.done}
        for name in seen.names("fit"):
            request = f"{folder}/request.json"
            of_pod = {e.name: e.value for e in seen.states(name)[0].spec.containers[0].env}
            if name not in used and of_pod.get("WINDSOCK_REQUEST") == request:
                processes = cluster.processes_of(name)
                self.process, self.pod = (processes[0], name) if processes else (None, "")

    def suffer(self, cluster: Cluster, folder: Path) -> None:
        """Let the next harm happen if it is due."""
        harm = self.harms[0]
        assert self.process is not None
        assert not (folder / "metrics.json").exists(), f"{self.estimator} ended before {harm.happens.__name__}"
        if not self.begun:
            log = cluster.log(self.pod)
            self.begun = self.resumes in log if self.done else bool(log)
        if not self.begun or harm.progress(folder) < harm.after:
            return
        self.process.send_signal(signal.SIGSTOP)
        assert not (folder / "metrics.json").exists()
        harm.log = cluster.log(self.pod)  # a pod that is deleted at once takes it along
        harm.pod, harm.found = self.pod, harm.progress(folder)
        harm.happens(cluster, self.pod, self.process)
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.wait(SECONDS)
        if harm.happens is drained:  # it had time to write another one, and no pod comes before it is gone
            harm.found = harm.progress(folder)
        self.done.append(self.harms.pop(0))
        self.process, self.begun = None, False


Harmed = tuple[str, str, dict[str, Victim], PodWatch]
"""Airflow's run id, the run folder's name, what happened to each trainer, and the pods."""


@pytest.fixture(scope="module")
def harmed(cluster_stack: ClusterStack) -> Harmed:
    """A training in which every pod but the last of each estimator is killed."""
    if not cluster_stack.cluster.gpus():
        pytest.skip(f"no node advertises {GPU}")
    cluster, runs = cluster_stack.cluster, cluster_stack.fraud

    def in_fold(folder: Path) -> int:
        return torch_steps(folder, "trial-0-fold-1")

    def in_final(folder: Path) -> int:
        return torch_steps(folder, "final")

    victims = {
        "lightgbm": Victim(
            "lightgbm", "The search goes on after", [Harm(trials_done, 3, killed), Harm(trials_done, 6, deleted)]
        ),
        "torch": Victim(
            "torch",
            "going on after step",
            [Harm(in_fold, 100, deleted), Harm(in_final, 50, killed), Harm(in_final, 150, drained)],
        ),
    }
    with PodWatch(cluster) as seen:
        run_id = cluster_stack.train(runs)
        ended = {"success", "failed"}
        wait_for(lambda: state_of(cluster_stack, run_id, "assemble") in ended, SECONDS, "the training set")
        run = str(runs.result("train", run_id, "assemble")["run"])
        deadline = time.monotonic() + 3 * SECONDS
        while left := [v for v in victims.values() if v.harms]:
            assert time.monotonic() < deadline, f"not harmed: {left}; pods: {seen.names('fit')}"
            for victim in left:
                folder = cluster_stack.candidate("fraud", run, victim.estimator)
                if victim.process is None:
                    victim.look_for_process(cluster, seen, folder)
                else:
                    victim.suffer(cluster, folder)
            time.sleep(FINE)
        runs.finish("train", run_id, seconds=300)
    return run_id, run, victims, seen


def state_of(cluster_stack: ClusterStack, run_id: str, task: str) -> str | None:
    tasks = cluster_stack.stack.api.task_instances("fraud_train", run_id)
    return next((t["state"] for t in tasks if t["task_id"] == task), None)


def test_a_search_goes_on_after_the_trials_that_were_done(cluster_stack: ClusterStack, harmed: Harmed) -> None:
    run_id, _, victims, _ = harmed
    log = cluster_stack.fraud.log("train", run_id, "fit_lightgbm")
    for number, harm in enumerate(victims["lightgbm"].done):
        assert harm.after <= harm.found < 10
        resumed = f"The search goes on after {harm.found} trials that are done already"
        assert resumed in victims["lightgbm"].log_after(number, log)


def test_a_network_goes_on_after_the_steps_of_its_last_checkpoint(cluster_stack: ClusterStack, harmed: Harmed) -> None:
    run_id, _, victims, _ = harmed
    log = cluster_stack.fraud.log("train", run_id, "fit_torch")
    for number, harm in enumerate(victims["torch"].done):
        assert harm.found >= harm.after
        assert f"going on after step {harm.found} " in victims["torch"].log_after(number, log)
    *_, drain = victims["torch"].done
    assert f"SIGTERM after step {drain.found}; kept" in log


def test_each_loss_costs_one_pod_and_no_try(cluster_stack: ClusterStack, harmed: Harmed) -> None:
    run_id, _, victims, seen = harmed
    tries = {t["task_id"]: t["try_number"] for t in cluster_stack.stack.api.task_instances("fraud_train", run_id)}
    for estimator, victim in victims.items():
        pods = [n for n in seen.names("fit") if n.startswith(f"fraud-fit-{estimator}-") and is_of(seen, n, harmed[1])]
        assert pods[:-1] == [harm.pod for harm in victim.done]
        assert tries[f"fit_{estimator}"] == 1
        assert "was lost" in cluster_stack.fraud.log("train", run_id, f"fit_{estimator}")
    wait_for(lambda: not cluster_stack.cluster.pods(), SECONDS, "the last pods to go")


@pytest.mark.parametrize(("estimator", "file"), [("lightgbm", "model.txt"), ("torch", "model.safetensors")])
def test_the_model_is_that_of_a_training_that_nothing_happened_to(
    cluster_stack: ClusterStack, harmed: Harmed, estimator: str, file: str
) -> None:
    there, here = (cluster_stack.candidate("fraud", run, estimator) for run in (harmed[1], cluster_stack.local_run))
    for name in ("model.json", file):
        assert (there / "model" / name).read_bytes() == (here / "model" / name).read_bytes()
    reports = [json.loads((folder / "metrics.json").read_bytes()) for folder in (there, here)]
    for part in ("selection", "params", "rounds", "trial", "trials", "importance"):
        assert reports[0][part] == reports[1][part], part


def is_of(seen: PodWatch, pod: str, run: str) -> bool:
    return any(f"/{run}/" in str(e.value) for e in seen.states(pod)[0].spec.containers[0].env)
