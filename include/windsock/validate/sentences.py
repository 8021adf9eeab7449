"""What an expectation says, in words: its column, its rule, and the value that breaks it most."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pandas as pd

from windsock.errors import listed

_LARGEST_IN_FULL = 1e22
"""Whole numbers up to here are written without an exponent, as ids are that came as floats."""
_RULES = {
    "expect_column_values_to_not_be_null": "not null",
    "expect_column_values_to_be_unique": "unique",
    "expect_column_values_to_be_between": "{bounds}",
    "expect_column_values_to_be_in_set": "one of {value_set}",
    "expect_column_values_to_not_be_in_set": "none of {value_set}",
    "expect_column_values_to_be_in_type_list": "of type {type_list}",
    "expect_column_mean_to_be_between": "mean {bounds}",
    "expect_column_median_to_be_between": "median {bounds}",
    "expect_column_stdev_to_be_between": "standard deviation {bounds}",
    "expect_column_max_to_be_between": "largest value {bounds}",
    "expect_column_min_to_be_between": "smallest value {bounds}",
    "expect_column_unique_value_count_to_be_between": "number of distinct values {bounds}",
    "expect_table_row_count_to_be_between": "number of rows {bounds}",
}


def column_of(config: Mapping[str, Any]) -> str:
    """Return the column (or columns) that an expectation is about; ``table`` if none."""
    kwargs = config["kwargs"]
    if "column" in kwargs:
        return str(kwargs["column"])
    if "column_A" in kwargs:
        return f"{kwargs['column_A']}, {kwargs['column_B']}"
    return ", ".join(kwargs.get("column_list") or []) or "table"


def rule_of(config: Mapping[str, Any]) -> str:
    """Return an expectation's rule in words, without its column: ``between 0 and 100``."""
    if given := config["meta"].get("rule"):
        return str(given)
    kwargs, kind = config["kwargs"], config["type"]
    lists = {name: listed(kwargs.get(name) or []) for name in ("value_set", "type_list")}
    words = kind.removeprefix("expect_").replace("_", " ")
    if kind in _RULES:
        words = _RULES[kind].format(bounds=_bounds(kwargs), **lists)
    mostly = kwargs.get("mostly")
    return f"{words} for at least {mostly:.4g} of the rows" if mostly is not None and mostly < 1 else words


def example_of(config: Mapping[str, Any], frame: pd.DataFrame, key: str, observed: Any) -> str:
    """Return the most telling value of a column that breaks a rule as a whole, with the key of its row."""
    column, kind = config["kwargs"].get("column"), config["type"]
    if column is None or column not in frame.columns or len(frame) == 0:
        last = "last" if kind == "expect_table_row_count_to_be_between" else "last row"
        return f", e.g. the {last} is {key} {show(frame[key].iat[-1])}" if len(frame) else ""
    values = frame[column].dropna()
    if values.empty:
        return ", e.g. null"
    try:
        low = config["kwargs"].get("min_value")
        below = low is not None and observed is not None and type(low) is type(observed) and observed < low
        if "unique_value_count" in kind:
            place = values.index[0]
        else:
            place = values.idxmin() if below and "max" not in kind else values.idxmax()
        return f", e.g. {show(values.at[place])} ({key} {show(frame[key].at[place])})"
    except TypeError:
        return f", e.g. {show(values.iat[0])}"


def show(value: Any, *, exact: bool = True) -> str:
    """Write a value for a message; of what was computed, such as a mean, six digits are enough."""
    if value is None or str(value) in ("<NA>", "NaT", "nan"):
        return "null"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if not isinstance(value, float) and getattr(getattr(value, "dtype", None), "kind", "") != "f":
        return str(value)
    number = float(value)
    if number.is_integer() and abs(number) < _LARGEST_IN_FULL:
        return str(int(number))
    return str(number) if exact else f"{number:.6g}"


def _bounds(kwargs: Mapping[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is None:
        return f"{'below' if kwargs.get('strict_max') else 'at most'} {_bound(high)}"
    if high is None:
        return f"{'above' if kwargs.get('strict_min') else 'at least'} {_bound(low)}"
    return f"between {_bound(low)} and {_bound(high)}"


def _bound(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("$PARAMETER"))
    return f"{value:,.10g}" if isinstance(value, int | float) else str(value).replace("T", " ")
