"""Several processes that train one network together (torchrun) search as one."""

import multiprocessing
import socket
from pathlib import Path

import pytest

from gradient_learner import GradientLearner, a_search, some_rows, spec_with
from windsock.runs.run_folder import CheckpointFolder
from windsock.search.search import choose
from windsock.search.study import TRIALS, SharedStudy

pytestmark = pytest.mark.integration

TRIALS_WANTED = 9


def search(folder, url=None):
    refused = {"l2": {"kind": "float", "low": -0.02, "high": 0.5}}
    spec, estimator = spec_with(trials=TRIALS_WANTED, search_more=refused, budget={"parallel": 2})
    study = SharedStudy(url, "fraud/run/torch") if url else None
    checkpoints = CheckpointFolder(str(folder)) if folder else None
    return choose(
        a_search(GradientLearner(10), spec, estimator, some_rows(40), checkpoints=checkpoints, shared_study=study)
    )


def _child(rank, port, kept, told):
    import os

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from torch import distributed

    distributed.init_process_group("gloo")
    for name, (folder, url) in kept.items():
        # What a process of another rank would write or read by itself must not matter.
        own = folder if rank == 0 else Path(f"{folder}-{rank}")
        told.put((name, rank, search(own, url if rank == 0 else url and "sqlite:////nowhere/at/all.db")))
    distributed.barrier()
    distributed.destroy_process_group()


def test_all_processes_train_the_same_and_one_alone_keeps_the_trials(tmp_path):
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {
        "own": (tmp_path / "own", None),
        "shared": (tmp_path / "shared", f"sqlite:///{tmp_path / 'studies.db'}"),
    }
    told = context.Queue()
    children = [context.Process(target=_child, args=(rank, port, kept, told), daemon=True) for rank in range(2)]
    for child in children:
        child.start()
    chosen = {(name, rank): found for name, rank, found in (told.get(timeout=300) for _ in range(4))}
    for child in children:
        child.join(60)

    assert [child.exitcode for child in children] == [0, 0]
    alone = search(None)
    for name, (folder, _) in kept.items():
        assert chosen[name, 0] == chosen[name, 1] == alone
        assert (folder / TRIALS).exists() == (name == "own")
        assert not list(Path(f"{folder}-1").glob("**/*.json"))
    assert {t.state for t in alone.trials} == {"complete", "pruned", "failed"}
