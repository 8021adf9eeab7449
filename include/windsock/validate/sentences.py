"""What a broken expectation means, in one sentence: column, rule, count, example."""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import pandas as pd

_RULES: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "expect_column_values_to_not_be_null": lambda k: "not null",
    "expect_column_values_to_be_unique": lambda k: "unique",
    "expect_column_values_to_be_between": lambda k: _bounds(k),
    "expect_column_values_to_be_in_set": lambda k: f"one of {_listed(k.get('value_set', []))}",
    "expect_column_values_to_not_be_in_set": lambda k: f"none of {_listed(k.get('value_set', []))}",
    "expect_column_values_to_be_in_type_list": lambda k: f"of type {_listed(k.get('type_list', []))}",
    "expect_column_mean_to_be_between": lambda k: f"mean {_bounds(k)}",
    "expect_column_median_to_be_between": lambda k: f"median {_bounds(k)}",
    "expect_column_stdev_to_be_between": lambda k: f"standard deviation {_bounds(k)}",
    "expect_column_max_to_be_between": lambda k: f"largest value {_bounds(k)}",
    "expect_column_min_to_be_between": lambda k: f"smallest value {_bounds(k)}",
    "expect_column_unique_value_count_to_be_between": lambda k: f"number of distinct values {_bounds(k)}",
    "expect_table_row_count_to_be_between": lambda k: f"number of rows {_bounds(k)}",
}


def column_of(config: dict[str, Any]) -> str:
    """Return the column (or columns) that an expectation is about; ``table`` if none."""
    kwargs = config["kwargs"]
    if "column" in kwargs:
        return str(kwargs["column"])
    if "column_A" in kwargs:
        return f"{kwargs['column_A']}, {kwargs['column_B']}"
    return ", ".join(kwargs.get("column_list") or []) or "table"


def rule_of(config: dict[str, Any]) -> str:
    """Return an expectation's rule in words, without its column: ``between 0 and 100``."""
    given = (config.get("meta") or {}).get("rule")
    if given:
        return str(given)
    kwargs = config["kwargs"]
    write = _RULES.get(config["type"])
    words = write(kwargs) if write else config["type"].removeprefix("expect_").replace("_", " ")
    mostly = kwargs.get("mostly")
    return f"{words} for at least {mostly:.4g} of the rows" if mostly is not None and mostly < 1 else words


def rows_sentence(config: dict[str, Any], frame: pd.DataFrame, key: str, rows: list[int]) -> str:
    """Say which rows of a frame, given by their positions, break a rule, with the first of them as example."""
    column = column_of(config)
    first = rows[0]
    parts = [c for c in column.split(", ") if c in frame.columns]
    values = ", ".join(show(frame[c].iat[first]) for c in parts)
    where = "" if column == key else f" ({key} {show(frame[key].iat[first])})"
    return (
        f"{column}: {len(rows):,} of {len(frame):,} rows break the rule '{rule_of(config)}', "
        f"e.g. {values}{where}.{_why(config)}"
    )


def whole_sentence(config: dict[str, Any], frame: pd.DataFrame, key: str, observed: Any) -> str:
    """Say that a column or the table as a whole breaks a rule, with its most telling value."""
    column = column_of(config)
    if config["type"] == "expect_table_row_count_to_be_between":
        last = f", e.g. the last is {key} {show(frame[key].iat[-1])}" if len(frame) else ""
        return f"table: {len(frame):,} rows break the rule '{rule_of(config)}'{last}.{_why(config)}"
    return (
        f"{column}: {show(observed)} over {len(frame):,} rows breaks the rule '{rule_of(config)}'"
        f"{_example(config, frame, key, observed)}.{_why(config)}"
    )


def failed_sentence(config: dict[str, Any], rows: int, message: str) -> str:
    """Say that an expectation could not be evaluated."""
    line = " ".join(str(message).split())[:200]
    return (
        f"{column_of(config)}: the rule '{rule_of(config)}' could not be checked on {rows:,} rows, e.g. {line}. "
        "A check that could not run counts as failed; correct the suite or the data."
    )


def show(value: Any) -> str:
    """Write a value for a message."""
    if value is None or str(value) in ("<NA>", "NaT", "nan"):
        return "null"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, float) or hasattr(value, "dtype"):
        number = float(value)
        if not math.isfinite(number):
            return str(number)
        return f"{int(number)}" if number.is_integer() and abs(number) < 1e15 else f"{number:.6g}"
    return str(value)


def _example(config: dict[str, Any], frame: pd.DataFrame, key: str, observed: Any) -> str:
    column = config["kwargs"].get("column")
    if column is None or column not in frame.columns or len(frame) == 0:
        return f", e.g. the last row is {key} {show(frame[key].iat[-1])}" if len(frame) else ""
    values = frame[column].dropna()
    if values.empty:
        return ", e.g. null"
    try:
        low = config["kwargs"].get("min_value")
        below = low is not None and observed is not None and type(low) is type(observed) and observed < low
        if "unique_value_count" in config["type"]:
            place = values.index[0]
        else:
            place = values.idxmin() if below and "max" not in config["type"] else values.idxmax()
        return f", e.g. {show(values.at[place])} ({key} {show(frame[key].at[place])})"
    except TypeError:
        return f", e.g. {show(values.iat[0])}"


def _why(config: dict[str, Any]) -> str:
    notes = (config.get("meta") or {}).get("why")
    return f" {notes}" if notes else ""


def _bounds(kwargs: dict[str, Any]) -> str:
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


def _listed(values: list[Any]) -> str:
    return ", ".join(str(v) for v in values)
