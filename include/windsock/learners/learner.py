"""What search and trainer ask of a kind of model; ``booster`` and ``neural`` are two answers."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from windsock.learners.rows import Rows
from windsock.runs.checkpoints import CheckpointFolder

Params = dict[str, Any]
Report = Callable[[int, float], None]
"""Called with round (from 1) and loss on the judged rows; may raise to stop the training.

Of several processes only rank 0 calls it, and what it raises is raised on all of them. A
training that goes on from a checkpoint reports its earlier rounds again.
"""


class Learned(Protocol):
    """One trained model."""

    @property
    def curve(self) -> list[float]:
        """Loss on the judged rows after each round; empty if there were none."""

    def predict(self, x: npt.NDArray[np.float64], rounds: int | None = None) -> npt.NDArray[np.float64]:
        """Score rows as the model stood after some rounds.

        Args:
            x: Shape ``(rows, features)``.
            rounds: Up to the length of the curve; None: as it is now.

        Returns:
            Probability of 1 or the expected value, shape ``(rows,)``.
        """

    def files(self) -> Mapping[str, bytes]:
        """Return the model folder: file name to bytes."""

    def importance(self) -> dict[str, float] | None:
        """Return each feature's share, summing to 1; None if this kind has none."""


class Learner(Protocol):
    """A kind of model with fixed inputs."""

    @property
    def most_rounds(self) -> int:
        """Rounds (trees, epochs) at most."""

    def own_params(self) -> Params:
        """Return the spec's own parameters over the defaults.

        Raises:
            SpecError: A parameter stands in the wrong place.
        """

    def train(
        self,
        params: Params,
        rows: Rows,
        rounds: int,
        judged: Rows | None = None,
        *,
        checkpoint: CheckpointFolder | None = None,
        report: Report | None = None,
    ) -> Learned:
        """Train one model; with judged rows, stop early on their loss.

        Args:
            params: All parameters.
            rows: What to learn from.
            rounds: At most so many.
            judged: What the curve is measured on.
            checkpoint: Where progress is kept; a training that finds its own there goes on from it.
            report: Told of every round on judged rows.

        Raises:
            SpecError: A parameter is refused.
        """
