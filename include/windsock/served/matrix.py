"""From table columns to the numbers that a model sees, the same in training and scoring.

Numbers and flags pass as they are, NULL as NaN ("missing", which trees handle). A
categorical column becomes the position of its value in a list that is fixed in training
and travels with the model; a value that training never saw counts as missing, and so does
a number that is none (NaN, infinite). Dates and times are categories by their text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from windsock.errors import DataContractError, SpecError

_MOST_CATEGORIES = 2000


@dataclass(frozen=True)
class Feature:
    """One input of a model."""

    name: str
    categories: tuple[int | float | str | bool, ...] | None = None
    """Known values of a categorical input, sorted; None for a number."""

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Rebuild a feature from its JSON form."""
        categories = raw.get("categories")
        return cls(raw["name"], tuple(categories) if categories is not None else None)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"name": self.name, "categories": list(self.categories) if self.categories is not None else None}


def learn_features(frame: pa.Table, names: Sequence[str], categorical: Iterable[str]) -> list[Feature]:
    """Fix the inputs of a model, in this order, and the values of its categorical ones in the rows trained on.

    Raises:
        SpecError: A column is of a type that no model takes, or has too many categories.
    """
    wanted = set(categorical)
    unknown = sorted(wanted - set(names))
    if unknown:
        raise SpecError.unknown("feature for training.categorical", unknown[0], names)
    features = []
    for name in names:
        column = frame.column(name)
        if name in wanted:
            values = sorted(v for v in pc.unique(_nameable(column)).to_pylist() if v is not None)
            if len(values) > _MOST_CATEGORIES:
                raise SpecError(
                    f"training.categorical: {name!r} has {len(values)} different values in the training window; "
                    f"at most {_MOST_CATEGORIES} can be learnt. Group its values, or use counts and rates per value."
                )
            features.append(Feature(name, tuple(values)))
        elif pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            features.append(Feature(name))
        else:
            raise SpecError(
                f"feature {name!r} is of type {column.type}, which is no number. List it in training.categorical, "
                "or turn it into a number in features.row or in the view's SQL."
            )
    return features


def _nameable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a categorical column in values that a model card can list: finite numbers, flags, text."""
    kind = column.type
    if pa.types.is_floating(kind):
        return column.filter(pc.is_finite(column))
    return column.cast(pa.string()) if pa.types.is_temporal(kind) else column


def to_matrix(frame: pa.Table, features: Sequence[Feature]) -> npt.NDArray[np.float64]:
    """Turn rows into model inputs, shape ``(rows, features)``; NaN is missing, other columns are not looked at.

    Raises:
        DataContractError: A column is missing.
    """
    present = set(frame.column_names)
    missing = [f.name for f in features if f.name not in present]
    if missing:
        raise DataContractError(
            f"The rows have no column {', '.join(missing)}, which the model was trained with. "
            f"They have: {', '.join(frame.column_names)}. Train a new version on the present features."
        )
    matrix = np.empty((frame.num_rows, len(features)), dtype=np.float64)
    for column, feature in enumerate(features):
        matrix[:, column] = _numbers(frame.column(feature.name), feature)
    return matrix


def _numbers(column: pa.ChunkedArray, feature: Feature) -> npt.NDArray[np.float64]:

    if feature.categories is not None:
        # Without any known value every row is missing; Arrow cannot look up in a list without a type.
        if not feature.categories:
            return np.full(len(column), np.nan)
        known = pa.array(feature.categories)
        column = pc.index_in(column.cast(known.type, safe=False), value_set=known)
    return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64, copy=False)  # type: ignore[no-any-return]
