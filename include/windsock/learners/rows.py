"""Rows as learners see them: inputs, answers, and what judging needs beside them."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt


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
        return type(self)(
            self.x[mask],
            self.y[mask],
            self.days[mask],
            self.entities[mask] if self.entities is not None else None,
            self.blocked_by[mask] if self.blocked_by is not None else None,
        )
