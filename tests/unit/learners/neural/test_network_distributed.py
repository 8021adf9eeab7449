import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from neural_rows import Wanted, result, train, write

from windsock.errors import SpecError
from windsock.learners.neural.device import processes_wanted, relaunch_if_several
from windsock.learners.neural.loop import STATE
from windsock.runs.run_folder import CheckpointFolder

HERE = Path(__file__).parent


def run(home, processes):
    environment = os.environ | {
        "WINDSOCK_PROCESSES": str(processes), "WINDSOCK_DEVICE": "cpu", "WINDSOCK_THREADS": "1",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "neural_rows", str(home), str(home)], env=environment, cwd=HERE, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_two_processes_train_the_network_that_one_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDSOCK_DEVICE", "cpu")  # where the two train as well
    wanted = Wanted(epochs=3, checkpoint=str(tmp_path / "c"))
    write(wanted, tmp_path)
    ended = run(tmp_path, 2)
    assert ended.returncode == 0, ended.stderr

    alone = result(train(Wanted(epochs=3)))
    with np.load(tmp_path / "result-0.npz") as first, np.load(tmp_path / "result-1.npz") as second:
        for name, expected in alone.items():
            np.testing.assert_array_equal(first[name], second[name])
            np.testing.assert_allclose(first[name], expected, rtol=1e-3, atol=1e-4)
    assert CheckpointFolder(str(tmp_path / "c")).read(STATE) is not None


def test_several_processes_end_with_the_exit_code_that_says_what_to_do(tmp_path):
    write(Wanted(params={"fail": 64}), tmp_path)

    assert run(tmp_path, 2).returncode == 64


def test_one_process_is_not_started_again(monkeypatch):
    monkeypatch.setenv("WINDSOCK_PROCESSES", "1")
    assert relaunch_if_several("no.such.module") is None
    monkeypatch.setenv("WINDSOCK_PROCESSES", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert relaunch_if_several("no.such.module") is None


def test_the_number_of_processes_must_be_one(monkeypatch):
    monkeypatch.setenv("WINDSOCK_PROCESSES", "two")
    with pytest.raises(SpecError, match="WINDSOCK_PROCESSES='two'"):
        processes_wanted()
    monkeypatch.delenv("WINDSOCK_PROCESSES")
    monkeypatch.setenv("WINDSOCK_DEVICE", "cpu")
    assert processes_wanted() == 1


def test_a_device_that_is_not_here_is_named(monkeypatch):
    import torch

    from windsock.learners.neural.device import choose_device

    monkeypatch.setenv("WINDSOCK_DEVICE", "tpu")
    with pytest.raises(SpecError, match="must be cpu or cuda"):
        choose_device()
    monkeypatch.setenv("WINDSOCK_DEVICE", "cpu")
    assert choose_device() == torch.device("cpu")
    monkeypatch.setenv("WINDSOCK_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SpecError, match="sees no GPU here"):
        choose_device()
