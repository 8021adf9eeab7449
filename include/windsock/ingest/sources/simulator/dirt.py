"""Dirt: break one day's delivery in the ways that real deliveries break.

Shares are such that ``null_keys``, ``duplicate_rows``, ``outside_day`` and
``negative_amounts`` cost some rows of an otherwise good day, while ``missing_column`` and
``amount_as_text`` cost the day.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pyarrow as pa

_NULL_SHARES = MappingProxyType({"TRANSACTION_ID": 0.003, "CUSTOMER_ID": 0.01, "TERMINAL_ID": 0.004})
_DUPLICATE_SHARE = 0.03
_YESTERDAY_SHARE, _TOMORROW_SHARE = 0.02, 0.01
_NEGATIVE_SHARE = 0.01


def spoil(rows: pa.Table, kind: str, rng: np.random.Generator) -> pa.Table:
    """Return the clean day, broken in one of the kinds of ``windsock.spec.data.Dirt``."""
    return _KINDS[kind](rows, rng)


def _missing_column(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    return rows.drop_columns(["TX_AMOUNT"])


def _amount_as_text(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    return _replace(rows, "TX_AMOUNT", [f"{amount:.2f} EUR" for amount in rows["TX_AMOUNT"].to_pylist()])


def _null_keys(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    for column, share in _NULL_SHARES.items():
        values = rows[column].combine_chunks()
        mask = np.zeros(rows.num_rows, bool)
        mask[_some(rows, share, rng)] = True
        rows = _replace(rows, column, pa.array(values.to_numpy(), values.type, mask=mask))
    return rows


def _duplicate_rows(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    return pa.concat_tables([rows, rows.take(np.sort(_some(rows, _DUPLICATE_SHARE, rng)))])


def _outside_day(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    moved = rows["TX_DATETIME"].to_numpy().copy()
    chosen = _some(rows, _YESTERDAY_SHARE + _TOMORROW_SHARE, rng)
    yesterday = round(len(chosen) * _YESTERDAY_SHARE / (_YESTERDAY_SHARE + _TOMORROW_SHARE))
    one_day = np.timedelta64(1, "D")
    moved[chosen[:yesterday]] -= one_day
    moved[chosen[yesterday:]] += one_day
    return _replace(rows, "TX_DATETIME", moved)


def _negative_amounts(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    amounts = rows["TX_AMOUNT"].to_numpy().copy()
    chosen = _some(rows, _NEGATIVE_SHARE, rng)
    amounts[chosen] = -np.maximum(amounts[chosen], 0.01)
    return _replace(rows, "TX_AMOUNT", amounts)


def _half_day(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    return rows.slice(0, int(rows.num_rows * 0.45))


def _amount_in_cents(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    return _replace(rows, "TX_AMOUNT", np.round(rows["TX_AMOUNT"].to_numpy() * 100))


def _zero_rows(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    return rows.slice(0, 0)


def _extra_columns(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Add a batch number, and a column that gives the label away."""
    days = rng.integers(1, 7, rows.num_rows).astype("timedelta64[D]")
    charged_back = rows["TX_DATETIME"].to_numpy() + days
    honest = rows["TX_FRAUD"].to_numpy() == 0
    rows = rows.append_column("CHARGEBACK_DATE", pa.array(charged_back, pa.timestamp("us"), mask=honest))
    return rows.append_column("BATCH_NO", pa.array(np.full(rows.num_rows, 17)))


def _some(rows: pa.Table, share: float, rng: np.random.Generator) -> np.ndarray:
    """Choose a share of the rows, at least one of a day that has any."""
    n = min(rows.num_rows, max(1, round(rows.num_rows * share)))
    chosen: np.ndarray = rng.choice(rows.num_rows, n, replace=False)
    return chosen


def _replace(rows: pa.Table, column: str, values: object) -> pa.Table:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return rows.set_column(rows.schema.get_field_index(column), column, array)


_KINDS: Mapping[str, Callable[[pa.Table, np.random.Generator], pa.Table]] = MappingProxyType(
    {
        "missing_column": _missing_column,
        "amount_as_text": _amount_as_text,
        "null_keys": _null_keys,
        "duplicate_rows": _duplicate_rows,
        "outside_day": _outside_day,
        "negative_amounts": _negative_amounts,
        "half_day": _half_day,
        "amount_in_cents": _amount_in_cents,
        "zero_rows": _zero_rows,
        "extra_columns": _extra_columns,
    }
)
