import gzip
import re

import numpy as np
import pyarrow as pa
import pytest

from windsock.errors import DataContractError
from windsock.served.model import load_files
from windsock.store import Store, to_json
from windsock.trainers.choose_step import compare_native_scores

TERMS = [{"name": "a", "coefficient": 1.0}]
CARD = {"format": "windsock-linear/1", "task": "regression", "intercept": 0.0, "features": TERMS}
MODEL = load_files(lambda _: to_json(CARD), "m")
ROWS = pa.table({"id": pa.array(range(2000)), "a": np.arange(2000) / 7})
BY_TEXT = ROWS.set_column(0, "id", pa.array([f"\\{n}" if n % 2 else f"k{n}" for n in range(2000)]))


def compared(folder, text, rows=ROWS, packed=None):
    (folder / "check.csv.gz").write_bytes(gzip.compress(text.encode()) if packed is None else packed)
    return compare_native_scores(Store(str(folder)), "id", MODEL, rows)


def lines(*pairs):
    return "\n".join(["id,score", *(f"{key},{score!r}" for key, score in pairs)]) + "\n"


def test_without_the_file_nothing_is_compared(tmp_path):
    assert "not compared" in compare_native_scores(Store(str(tmp_path)), "id", MODEL, ROWS)


def test_equal_scores_in_any_order_are_exact(tmp_path):
    given = [(n, n / 7 * (1 + 5e-7)) for n in range(1999, 1000, -1)]

    assert compared(tmp_path, lines(*given)) == "999 rows score within 1e-06 of the trainer's own library"


def test_keys_may_be_texts_as_the_contracts_csv_has_them(tmp_path):
    keys = [f'"\\{key}"' for key in BY_TEXT["id"].slice(0, 4).to_pylist()]

    assert "4 rows" in compared(tmp_path, lines(*zip(keys, [0.0, 1 / 7, 2 / 7, 3 / 7], strict=True)), BY_TEXT)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (lines((7, 1.0), (14, 2.00001)), "scores 1 of 2 rows differently.*id 14 gets 2 instead of 2.00001"),
        (lines((7, float("nan"))), "Write a finite score"),
        (lines((7, 1.0), (99999, 2.0)), "holds 2 rows, 1 of them with a id that is not among the training rows"),
        ("id,score\n", "holds 0 rows"),
        (lines(*((n, n / 7) for n in range(1001))), "holds 1001 rows"),
        ("key,score\n7,1.0\n", "cannot be read"),
        ("id,score\nseven,1.0\n", "cannot be read"),
        ("id,score\n" + "0" * (2 << 20), "more than 1 MiB"),
    ],
)
def test_other_scores_and_other_files_are_refused_with_a_sentence(tmp_path, text, says):
    with pytest.raises(DataContractError, match=rf"^{re.escape(str(tmp_path))}/check\.csv\.gz: [\s\S]*{says}"):
        compared(tmp_path, text)


@pytest.mark.parametrize(
    "packed",
    [b"", b"id,score\n7,1.0\n", gzip.compress(b"id,score\n7,1.0\n" * 99, mtime=0)[:40]],
    ids=["empty", "plain text", "cut off"],
)
def test_what_is_no_gzip_is_refused_with_a_sentence(tmp_path, packed):
    with pytest.raises(DataContractError, match=r"check\.csv\.gz: (cannot be read|holds)"):
        compared(tmp_path, "", packed=packed)
