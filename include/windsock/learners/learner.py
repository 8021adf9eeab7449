"""What search and trainer ask of a kind of model; ``booster`` and ``neural`` are two answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from windsock.runs.run_folder import CheckpointFolder

Params = dict[str, Any]
Report = Callable[[int, float], None]
"""Called with round (from 1) and loss on the judged rows; may raise to stop the training.

Of several processes only rank 0 calls it, and what it raises is raised on all of them. A
training that goes on from a checkpoint reports its earlier rounds again.
"""


@dataclass(frozen=True)
class Rows:
    """Model inputs and answers, row by row in order of time."""

    x: npt.NDArray[np.float64]
    """Shape ``(rows, features)``; NaN is missing, a categorical input is its value's position."""
    y: npt.NDArray[np.float64]
    days: npt.NDArray[Any]
    """``YYYY-MM-DD``, shape ``(rows,)``."""
    entities: npt.NDArray[Any] | None = None
    """What alerts are counted by."""
    blocked_by: npt.NDArray[Any] | None = None
    """Entities that are left out once they are known to be positive."""

    def where(self, mask: npt.NDArray[np.bool_]) -> Self:
        """Return the rows of a mask."""
        parts: dict[str, Any] = {name: None if part is None else part[mask] for name, part in vars(self).items()}
        return type(self)(**parts)


class Learned(Protocol):
    """One trained model."""

    @property
    def curve(self) -> list[float]:
        """Loss on the judged rows after each round; empty if there were none."""

    def predict(self, x: npt.NDArray[np.float64], rounds: int | None = None) -> npt.NDArray[np.float64]:
        """Score rows, shape ``(rows, features)``, as the model stood after some rounds; None: as it is now."""

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
        """Train one model with at most so many rounds; with judged rows, measure the curve on them and stop early.

        A training keeps its progress in ``checkpoint``, and goes on from what it finds of its own there. ``report`` is
        called after every round on judged rows.

        Raises:
            SpecError: A parameter is refused.
        """
