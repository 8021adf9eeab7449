"""Linear and logistic regression as plain JSON: the whole model stands in ``model.json``.

Any language can write it, and a person can read it. A score is the intercept plus one
share per input (through the logistic function for a binary task):

- a number gives ``coefficient * (value - mean) / scale``; a missing one counts as
  ``missing``, which is the mean unless the card says otherwise;
- a category gives its own coefficient; a missing or unknown one gives ``other``.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from windsock.errors import DataContractError
from windsock.served.matrix import Feature
from windsock.served.model import MODEL_CARD, Floats, Scorer, check_fields

FORMAT = "windsock-linear/1"
_CARD = ("format", "task", "intercept", "features")
_NUMBER = ("name", "categories", "coefficient", "mean", "scale", "missing")
_CATEGORY = ("name", "categories", "coefficients", "other")

_Share = Callable[[Floats], Floats]
"""What each value of an input adds to the score, shape ``(rows,)``; NaN is missing."""


def read(folder: str, data: bytes, card: Mapping[str, Any], inputs: Sequence[Feature]) -> tuple[None, Scorer]:
    """Read the coefficients that a card holds; there is no other file.

    Raises:
        DataContractError: A field is absent, unknown or no finite number, or lengths differ.
    """
    place = f"{folder}/{MODEL_CARD}"
    check_fields(place, "the card", card, _CARD, FORMAT)
    shares = [_share(place, feature, raw) for feature, raw in zip(inputs, card["features"], strict=True)]
    intercept, binary = _number(place, "the card", card, "intercept"), card["task"] == "binary"

    def scores(x: Floats) -> Floats:
        found = np.full(len(x), intercept)
        # Absurd coefficients may overflow; whoever uses scores refuses those that are not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            for values, share in zip(x.T, shares, strict=True):
                found += share(values)
        # Written with tanh, the logistic function overflows for no score.
        return 0.5 * (1.0 + np.tanh(0.5 * found)) if binary else found

    return None, scores


def _share(place: str, feature: Feature, raw: Mapping[str, Any]) -> _Share:
    where = f"the input {feature.name!r}"
    if feature.categories is not None:
        return _share_of_category(place, where, raw, len(feature.categories))
    check_fields(place, where, raw, _NUMBER, FORMAT)
    coefficient = _number(place, where, raw, "coefficient")
    mean, scale = _number(place, where, raw, "mean", 0.0), _number(place, where, raw, "scale", 1.0)
    missing = mean if raw.get("missing") is None else _number(place, where, raw, "missing")
    if scale <= 0:
        raise DataContractError(
            f"{place}: {where} has the scale {scale}; it divides and must be above 0 (1 for a constant input)."
        )
    return lambda values: coefficient * ((np.where(np.isnan(values), missing, values) - mean) / scale)


def _share_of_category(place: str, where: str, raw: Mapping[str, Any], count: int) -> _Share:
    check_fields(place, where, raw, _CATEGORY, FORMAT)
    given = raw.get("coefficients")
    if not isinstance(given, list) or len(given) != count:
        found = f"{len(given)} coefficients" if isinstance(given, list) else "no list 'coefficients'"
        raise DataContractError(
            f"{place}: {where} has {count} categories but {found}. Give one per category, in the same order; 'other' "
            "is for missing and unknown values."
        )
    coefficients = [_finite(place, f"{where}, coefficients[{n}]", value) for n, value in enumerate(given)]
    table = np.array([*coefficients, _number(place, where, raw, "other", 0.0)])
    return lambda values: table[np.where(np.isnan(values), count, values).astype(np.int64)]


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
