import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from neural_rows import Wanted, assert_equal, child, result, rows, train, write

from windsock.learners.neural import loop
from windsock.learners.neural.loop import STATE, Checkpoints, Progress, fingerprint
from windsock.runs.run_folder import CheckpointFolder

HERE = Path(__file__).parent
WANTED = Wanted(epochs=4, estimator={"checkpoint_steps": 3})
STEPS = 4 * 10  # 600 rows in batches of 64


@pytest.fixture(scope="module")
def uninterrupted():
    return result(train(WANTED))


def run_child(monkeypatch, wanted, out):
    """Train in a process of its own, as a pod does, and return how it ended."""
    context = multiprocessing.get_context("forkserver")
    # Its server takes no search path from here, but the environment.
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    context.set_forkserver_preload(["neural_rows", "windsock.learners.neural.trained", "pytest"])
    process = context.Process(target=child, args=(wanted, out))
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.kill
@pytest.mark.parametrize("kills", [[1, 11], [17]], ids=str)
def test_a_training_killed_at_any_step_ends_as_if_it_never_was(tmp_path, uninterrupted, kills, monkeypatch):
    wanted = replace(WANTED, checkpoint=str(tmp_path / "checkpoints"))
    for steps in kills:
        assert run_child(monkeypatch, replace(wanted, die_after_steps=steps), tmp_path / "never.npz") == -signal.SIGKILL
    assert run_child(monkeypatch, wanted, tmp_path / "result.npz") == 0

    assert not (tmp_path / "never.npz").exists()
    with np.load(tmp_path / "result.npz") as found:
        assert_equal(uninterrupted, found)


@pytest.mark.kill
def test_streamed_rows_resume_as_well(tmp_path, uninterrupted, monkeypatch):
    wanted = replace(WANTED, checkpoint=str(tmp_path / "c"), estimator={"checkpoint_steps": 4, "data": "streamed"})
    assert run_child(monkeypatch, replace(wanted, die_after_steps=14), tmp_path / "never.npz") == -signal.SIGKILL

    assert_equal(uninterrupted, result(train(wanted)))


def test_sigterm_keeps_the_last_step_and_ends_the_process(tmp_path, uninterrupted):
    wanted = replace(WANTED, checkpoint=str(tmp_path / "c"), estimator={"checkpoint_steps": 10_000})
    write(wanted, tmp_path)
    slow = (
        "import sys, time, neural_rows as n\n"
        "from windsock.learners.neural import loop\n"
        "learn = loop.Training._learn\n"
        "def slow(self, batch):\n"
        "    learn(self, batch)\n"
        "    print(self.progress.step, flush=True)\n"
        "    time.sleep(0.02)\n"
        "loop.Training._learn = slow\n"
        "n.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, str(tmp_path), str(tmp_path)], cwd=HERE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(HERE)},
    )  # fmt: skip
    try:
        while (process.stdout.readline().strip() or "0") != "13":
            assert process.poll() is None, "it ended before step 13"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    finally:
        process.kill()
        process.stdout.close()
    with np.load(tmp_path / "c" / STATE) as state:
        assert 13 <= json.loads(state["about"].tobytes())["step"] < STEPS

    assert_equal(uninterrupted, result(train(wanted)))


def test_a_finished_training_is_not_done_again(tmp_path, uninterrupted, monkeypatch):
    wanted = replace(WANTED, checkpoint=str(tmp_path / "c"))
    train(wanted)
    heard = []
    monkeypatch.setattr("windsock.learners.neural.loop.Training._learn", lambda *_: pytest.fail("a step was taken"))
    again = train(wanted, report=lambda epoch, loss: heard.append((epoch, loss)))

    assert_equal(uninterrupted, result(again))
    assert heard == list(enumerate(uninterrupted["curve"], 1))  # whoever listens now hears of all epochs


@pytest.mark.parametrize(
    "change",
    [{"rows": 601}, {"judged": 301}, {"epochs": 3}, {"params": {"learning_rate": 0.001}}, {"params": {"hidden": [8]}}],
    ids=str,
)
def test_the_checkpoint_of_another_training_is_left_aside(tmp_path, change):
    wanted = replace(WANTED, checkpoint=str(tmp_path / "c"))
    train(wanted)
    other = replace(WANTED, **change)

    assert_equal(result(train(other)), result(train(replace(other, checkpoint=wanted.checkpoint))))


@pytest.mark.parametrize("damage", ["cut", "flip", "pickle", "empty", "epoch gone", "epoch cut"])
def test_a_damaged_checkpoint_is_told_of_and_left_aside(tmp_path, uninterrupted, damage, caplog):
    wanted = replace(WANTED, checkpoint=str(tmp_path / "c"))
    train(wanted)
    state, epoch = tmp_path / "c" / STATE, tmp_path / "c" / "epoch-0002.npz"
    data = state.read_bytes()
    if damage == "epoch gone":
        epoch.unlink()
    elif damage == "epoch cut":
        epoch.write_bytes(epoch.read_bytes()[:100])
    elif damage == "pickle":
        np.savez(state, about=np.array([{"mark": 1}], dtype=object))
    else:
        middle = len(data) // 3
        flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        state.write_bytes({"cut": data[: len(data) // 2], "flip": flipped, "empty": b""}[damage])

    with caplog.at_level(logging.WARNING):
        again = train(wanted)
    assert "damaged" in caplog.text
    assert_equal(uninterrupted, result(again))


def test_what_is_kept_comes_back_bit_by_bit(tmp_path):
    state = {n: np.random.default_rng(0).normal(size=7).astype(np.float32) for n in ("weights", "average")}
    kept = [{"weights": state["weights"], "buffers.seen": np.array(3)}, {"weights": state["average"]}]
    progress = Progress(12, state, [0.1 + 0.2, 1e-300], kept)
    folder = CheckpointFolder(str(tmp_path / "c"))
    Checkpoints(folder, "mark").save(progress)
    found = Checkpoints(folder, "mark").load()

    assert (found.step, found.curve) == (12, [0.1 + 0.2, 1e-300])
    for one, other in zip([state, *kept], [found.state, *found.kept], strict=True):
        assert_equal(one, other)
    assert Checkpoints(folder, "other").load() is None
    assert not list(Path(tmp_path / "c").glob(".*"))


def test_a_mark_changes_with_every_part_of_a_training():
    plain = rows(10)
    other = rows(10)
    other.x[3, 0] += 1e-9
    marks = {
        fingerprint({"a": 1}, plain, None), fingerprint({"a": 2}, plain, None), fingerprint({"a": 1}, other, None),
        fingerprint({"a": 1}, plain, plain), fingerprint({"a": 1}, None, plain),
    }  # fmt: skip

    assert len(marks) == 5
    assert fingerprint({"a": 1}, plain, None) == fingerprint({"a": 1}, rows(10), None)


def test_a_checkpoint_is_written_every_so_many_steps(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, progress: seen.append(progress.step))
    monkeypatch.setattr(loop, "_WRITING", float("inf"))  # however long a device takes to hand its state over
    train(replace(WANTED, checkpoint=str(tmp_path), estimator={"checkpoint_steps": 15}))

    assert seen == [15, 30, STEPS]
