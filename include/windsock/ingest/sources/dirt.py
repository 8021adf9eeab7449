"""Dirt: break one day's delivery in the ways that real deliveries break.

Shares are such that ``null_keys``, ``duplicate_rows``, ``outside_day`` and
``negative_amounts`` cost some rows of an otherwise good day, while ``missing_column`` and
``amount_as_text`` cost the day.
"""

import numpy as np
import pyarrow as pa

_NULL_SHARES = {"TRANSACTION_ID": 0.003, "CUSTOMER_ID": 0.01, "TERMINAL_ID": 0.004}
_DUPLICATE_SHARE = 0.03
_YESTERDAY_SHARE, _TOMORROW_SHARE = 0.02, 0.01
_NEGATIVE_SHARE = 0.01


def spoil(rows: pa.Table, kind: str, rng: np.random.Generator) -> pa.Table:
    """Return the clean day, broken in one of the kinds of ``windsock.spec.data.Dirt``."""
    match kind:
        case "missing_column":
            return rows.drop_columns(["TX_AMOUNT"])
        case "amount_as_text":
            return _replace(rows, "TX_AMOUNT", [f"{amount:.2f} EUR" for amount in rows["TX_AMOUNT"].to_pylist()])
        case "null_keys":
            for column, share in _NULL_SHARES.items():
                mask = np.zeros(rows.num_rows, bool)
                mask[_some(rows, share, rng)] = True
                rows = _replace(rows, column, pa.array(rows[column].to_numpy(), rows[column].type, mask=mask))
            return rows
        case "duplicate_rows":
            return pa.concat_tables([rows, rows.take(np.sort(_some(rows, _DUPLICATE_SHARE, rng)))])
        case "outside_day":
            times = rows["TX_DATETIME"].to_numpy().copy()
            chosen = _some(rows, _YESTERDAY_SHARE + _TOMORROW_SHARE, rng)
            yesterday = round(len(chosen) * _YESTERDAY_SHARE / (_YESTERDAY_SHARE + _TOMORROW_SHARE))
            times[chosen[:yesterday]] -= np.timedelta64(1, "D")
            times[chosen[yesterday:]] += np.timedelta64(1, "D")
            return _replace(rows, "TX_DATETIME", times)
        case "negative_amounts":
            amounts = rows["TX_AMOUNT"].to_numpy().copy()
            chosen = _some(rows, _NEGATIVE_SHARE, rng)
            amounts[chosen] = -np.maximum(amounts[chosen], 0.01)
            return _replace(rows, "TX_AMOUNT", amounts)
        case "half_day":
            return rows.slice(0, int(rows.num_rows * 0.45))
        case "amount_in_cents":
            return _replace(rows, "TX_AMOUNT", np.round(rows["TX_AMOUNT"].to_numpy() * 100))
        case "zero_rows":
            return rows.slice(0, 0)
        case "extra_columns":  # a batch number, and a column that gives the label away
            days = rng.integers(1, 7, rows.num_rows).astype("timedelta64[D]")
            charged_back = rows["TX_DATETIME"].to_numpy() + days
            honest = rows["TX_FRAUD"].to_numpy() == 0
            rows = rows.append_column("CHARGEBACK_DATE", pa.array(charged_back, pa.timestamp("us"), mask=honest))
            return rows.append_column("BATCH_NO", pa.array(np.full(rows.num_rows, 17)))
    raise ValueError(f"no such kind of dirt: {kind}")


def _some(rows: pa.Table, share: float, rng: np.random.Generator) -> np.ndarray:
    """Choose a share of the rows, at least one of a day that has any."""
    n = min(rows.num_rows, max(1, round(rows.num_rows * share)))
    chosen: np.ndarray = rng.choice(rows.num_rows, n, replace=False)
    return chosen


def _replace(rows: pa.Table, column: str, values: object) -> pa.Table:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return rows.set_column(rows.schema.get_field_index(column), column, array)
