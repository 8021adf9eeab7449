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


def _child(rank, port, folder, url, told):
    import os

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from torch import distributed

    distributed.init_process_group("gloo")
    # What a process of another rank would write or read by itself must not matter.
    own = folder if rank == 0 else Path(f"{folder}-{rank}")
    told.put((rank, search(own, url if rank == 0 else url and "sqlite:////nowhere/at/all.db")))
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.parametrize("kept", ["own", "shared"])
def test_all_processes_train_the_same_and_one_alone_keeps_the_trials(tmp_path, kept):
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"sqlite:///{tmp_path / 'studies.db'}" if kept == "shared" else None
    folder, told = tmp_path / "checkpoints", context.Queue()
    children = [context.Process(target=_child, args=(rank, port, folder, url, told), daemon=True) for rank in range(2)]
    for child in children:
        child.start()
    chosen = dict(told.get(timeout=300) for _ in children)
    for child in children:
        child.join(60)

    assert [child.exitcode for child in children] == [0, 0]
    assert chosen[0] == chosen[1] == search(None)
    assert {t.state for t in chosen[0].trials} == {"complete", "pruned", "failed"}
    assert (folder / TRIALS).exists() == (kept == "own")
    assert not list(Path(f"{folder}-1").glob("**/*.json"))
