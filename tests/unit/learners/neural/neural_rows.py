"""Rows and specs for tests of the network, and a training that other processes can run.

python neural_rows.py HOME OUT      trains as told by ``Wanted`` in HOME/wanted.json, writes OUT/result.npz
"""

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from windsock.learners.learner import Rows
from windsock.learners.neural.learner import NetworkLearner
from windsock.runs.run_folder import CheckpointFolder
from windsock.served.matrix import Feature
from windsock.settings import REPO_ROOT
from windsock.spec import ModelSpec, load_spec

FEATURES = [Feature("amount"), Feature("rate"), Feature("kind", ("a", "b", "c"))]


@dataclass
class Wanted:
    """One training."""

    params: dict[str, Any] = field(default_factory=dict)
    estimator: dict[str, Any] = field(default_factory=dict)
    epochs: int = 3
    rows: int = 600
    judged: int = 300
    checkpoint: str | None = None
    die_after_steps: int | None = None


def spec_of(metric: str = "average_precision", task: str = "binary", **estimator: Any) -> ModelSpec:
    spec = load_spec(REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")
    own = {"kind": "torch", "epochs": 4, "params": {"hidden": [16, 8], "batch_size": 64}, **estimator}
    training = type(spec.training).model_validate({
        "window_days": 4, "metric": metric, "categorical": ["kind"], "seed": 3, "estimator": own,
    })  # fmt: skip
    return spec.model_copy(
        update={"training": training, "label": spec.label.model_copy(update={"task": task})}, deep=True
    )


def learner(spec: ModelSpec) -> NetworkLearner:
    return NetworkLearner(spec, spec.training.estimator(), FEATURES)


def rows(count: int, seed: int = 0, task: str = "binary") -> Rows:
    """Large amounts and kind b make a positive; a tenth of the rates and some kinds are missing."""
    rng = np.random.default_rng(seed)
    amount, rate, kind = rng.exponential(60, count), rng.normal(size=count), rng.integers(0, 3, count).astype(float)
    value = amount + 40 * (kind == 1) + 20 * rng.normal(size=count)
    rate[rng.random(count) < 0.1] = np.nan
    kind[rng.random(count) < 0.05] = np.nan
    y = (value > 130).astype(float) if task == "binary" else value
    return Rows(np.stack([amount, rate, kind], axis=1), y, np.full(count, "2026-03-04"))


def train(wanted: Wanted, **options: Any) -> Any:
    spec = spec_of(**wanted.estimator)
    made = learner(spec)
    judged = rows(wanted.judged, seed=1) if wanted.judged else None
    folder = CheckpointFolder(wanted.checkpoint) if wanted.checkpoint else None
    params = {**made.own_params(), **wanted.params}
    return made.train(params, rows(wanted.rows), wanted.epochs, judged, checkpoint=folder, **options)


def result(learned: Any) -> dict[str, np.ndarray]:
    """Return everything that two equal trainings must agree on."""
    x = rows(50, seed=2).x
    after = [learned.predict(x, n + 1) for n in range(len(learned.curve))]
    return {"curve": np.array(learned.curve), "now": learned.predict(x), "after": np.array(after)}


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def die_after(steps: int) -> None:
    """Kill this process in the middle of the step that follows so many of its own."""
    from windsock.learners.neural import loop

    original, taken = loop.Training._learn, []

    def deadly(self: Any, batch: Any) -> None:
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        taken.append(1)
        original(self, batch)

    loop.Training._learn = deadly


def child(wanted: Wanted, out: Path) -> None:
    """Train in this process and leave the result in a file."""
    if wanted.die_after_steps is not None:
        die_after(wanted.die_after_steps)
    np.savez(out, **result(train(wanted)))


def main() -> None:
    from windsock.learners.neural.device import relaunch_if_several
    from windsock.learners.ranks import rank

    if (code := relaunch_if_several("neural_rows")) is not None:
        sys.exit(code)
    home, out = Path(sys.argv[1]), Path(sys.argv[2])
    wanted = Wanted(**json.loads((home / "wanted.json").read_text()))
    if wanted.params.get("fail"):
        sys.exit(wanted.params["fail"])
    learned = train(wanted)
    np.savez(out / f"result-{rank()}.npz", **result(learned))


def write(wanted: Wanted, home: Path) -> None:
    (home / "wanted.json").write_text(json.dumps(asdict(wanted)))


if __name__ == "__main__":
    main()
