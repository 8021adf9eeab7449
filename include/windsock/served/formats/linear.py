"""Linear and logistic regression as plain JSON: the whole model stands in ``model.json``.

Any language can write it, and a person can read it. A score is the intercept plus one
share per input (through the logistic function for a binary task):

- a number gives ``coefficient * (value - mean) / scale``; a missing one counts as
  ``missing``, which is the mean unless the card says otherwise;
- a category gives its own coefficient; a missing or unknown one gives ``other``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from windsock.errors import DataContractError
from windsock.served.matrix import Feature, to_matrix
from windsock.served.model import MODEL_CARD, Task, check_fields
from windsock.store import to_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "windsock-linear/1"
_CARD = ("format", "task", "intercept", "features")
_NUMBER = ("name", "categories", "coefficient", "mean", "scale", "missing")
_CATEGORY = ("name", "categories", "coefficients", "other")


@dataclass(frozen=True)
class NumberTerm:
    """What a number adds to the score."""

    coefficient: float
    mean: float = 0.0
    scale: float = 1.0
    missing: float | None = None
    """Value, in the input's own unit, that a missing one counts as; None: the mean."""

    def share(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return what each value adds, shape ``(rows,)``; NaN is missing."""
        filled = np.where(np.isnan(values), self.mean if self.missing is None else self.missing, values)
        return self.coefficient * ((filled - self.mean) / self.scale)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        given = {"coefficient": self.coefficient, "mean": self.mean, "scale": self.scale}
        return given if self.missing is None else {**given, "missing": self.missing}


@dataclass(frozen=True)
class CategoryTerm:
    """What a category adds to the score."""

    coefficients: tuple[float, ...]
    """One per category of the input, in the same order."""
    other: float = 0.0

    def share(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return what each value's position in the list of categories adds, shape ``(rows,)``; NaN is none of them."""
        table = np.array([*self.coefficients, self.other])
        return table[np.where(np.isnan(values), len(self.coefficients), values).astype(np.int64)]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"coefficients": list(self.coefficients), "other": self.other}


@dataclass(frozen=True)
class LinearModel:
    """A linear (regression) or logistic (binary) model; made by :func:`read` or by hand."""

    task: Task
    features: tuple[Feature, ...]
    intercept: float
    terms: tuple[NumberTerm | CategoryTerm, ...]
    """One per input, in the same order."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Inputs in model order."""
        return tuple(f.name for f in self.features)

    def predict(self, frame: pa.Table) -> npt.NDArray[np.float64]:
        """Score rows; see :meth:`windsock.served.model.Model.predict`."""
        scores = np.full(frame.num_rows, self.intercept)
        # Absurd coefficients may overflow; whoever uses scores refuses those that are not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            for values, term in zip(to_matrix(frame, self.features).T, self.terms, strict=True):
                scores += term.share(values)
        if self.task == "regression":
            return scores
        # Written with tanh, the logistic function overflows for no score.
        return 0.5 * (1.0 + np.tanh(0.5 * scores))

    def files(self) -> dict[str, bytes]:
        """Return the model folder: file name to bytes."""
        features = [
            {**feature.to_json(), **term.to_json()} for feature, term in zip(self.features, self.terms, strict=True)
        ]
        return {
            MODEL_CARD: to_json(
                {"format": FORMAT, "task": self.task, "intercept": self.intercept, "features": features}
            )
        }


def read(folder: str, fs: Any, root: str, card: Mapping[str, Any], task: Task, inputs: Sequence[Feature]) -> Any:
    """Read the coefficients that a card holds; ``fs`` and ``root`` are not needed, as there is no other file.

    Raises:
        DataContractError: A field is absent, unknown or no finite number, or lengths differ.
    """
    del fs, root
    place = f"{folder}/{MODEL_CARD}"
    check_fields(place, "the card", card, _CARD, FORMAT)
    terms = tuple(_term(place, f, raw) for f, raw in zip(inputs, card["features"], strict=True))
    return LinearModel(task, tuple(inputs), _number(place, "the card", card, "intercept"), terms)


def _term(place: str, feature: Feature, raw: Mapping[str, Any]) -> NumberTerm | CategoryTerm:
    where = f"the input {feature.name!r}"
    if feature.categories is None:
        check_fields(place, where, raw, _NUMBER, FORMAT)
        scale = _number(place, where, raw, "scale", 1.0)
        if scale <= 0:
            raise DataContractError(
                f"{place}: {where} has the scale {scale}; it divides and must be above 0 (1 for a constant input)."
            )
        return NumberTerm(
            _number(place, where, raw, "coefficient"),
            _number(place, where, raw, "mean", 0.0),
            scale,
            None if raw.get("missing") is None else _number(place, where, raw, "missing"),
        )
    check_fields(place, where, raw, _CATEGORY, FORMAT)
    given = raw.get("coefficients")
    if not isinstance(given, list) or len(given) != len(feature.categories):
        count = f"{len(given)} coefficients" if isinstance(given, list) else "no list 'coefficients'"
        raise DataContractError(
            f"{place}: {where} has {len(feature.categories)} categories but {count}. Give one per category, "
            "in the same order; 'other' is for missing and unknown values."
        )
    coefficients = tuple(_finite(place, f"{where}, coefficients[{n}]", value) for n, value in enumerate(given))
    return CategoryTerm(coefficients, _number(place, where, raw, "other", 0.0))


def _number(place: str, where: str, raw: Mapping[str, Any], name: str, default: float | None = None) -> float:
    if name not in raw and default is not None:
        return default
    if name not in raw:
        raise DataContractError(f"{place}: {where} has no {name!r}. Write it as a number.")
    return _finite(place, f"{where}, {name}", raw[name])


def _finite(place: str, where: str, value: Any) -> float:
    # JSON's whole numbers have no limit, so a comparison is safe where a conversion is not.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise DataContractError(
            f"{place}: {where} is {value!r}, not a finite number. Training has gone wrong: look at its learning rate, "
            "constant inputs and infinite values, and train again."
        )
    return float(value)
