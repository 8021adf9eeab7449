import json
import pickle
from datetime import date, datetime

import lightgbm
import numpy as np
import pyarrow as pa
import pytest

from windsock.errors import DataContractError, SpecError
from windsock.served.formats.lightgbm import MODEL_TEXT, lightgbm_files
from windsock.served.matrix import Feature, learn_features, to_matrix
from windsock.served.model import load, load_files

ROWS = pa.table(
    {
        "amount": [1.0, 2.0, None, 4.0] * 50,
        "kind": ["b", "a", None, "c"] * 50,
        "flag": [True, False, True, None] * 50,
        "count": pa.array([1, 2, 3, 4] * 50, pa.int64()),
    }
)
NAMES = ["amount", "kind", "flag", "count"]


def trained(threads=1):
    features = learn_features(ROWS, NAMES, ["kind"])
    x = to_matrix(ROWS, features)
    y = np.arange(200) % 3 == 0
    params = {
        "objective": "binary", "verbosity": -1, "num_threads": threads, "deterministic": True, "force_row_wise": True,
        "min_data_in_leaf": 2, "seed": 1,
    }  # fmt: skip
    data = lightgbm.Dataset(x, y.astype(float), feature_name=NAMES, categorical_feature=["kind"])
    files = lightgbm_files(lightgbm.train(params, data, 5), "binary", features)
    return load_files(files.__getitem__, "m")


def saved(model, folder):
    folder.mkdir()
    for name, content in model.content.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_saved_model_predicts_exactly_the_same(tmp_path):
    model = trained()
    again = load(saved(model, tmp_path / "model"))

    assert again.feature_names == tuple(NAMES)
    assert again.task == "binary"
    np.testing.assert_array_equal(again.predict(ROWS), model.predict(ROWS))
    assert again.content == model.content


def test_the_text_does_not_depend_on_the_number_of_threads():
    assert trained(threads=1).content[MODEL_TEXT] == trained(threads=2).content[MODEL_TEXT]


def test_the_order_of_columns_and_further_columns_do_not_matter():
    model = trained()
    shuffled = ROWS.select(NAMES[::-1]).append_column("TX_FRAUD", [[1] * 200])

    np.testing.assert_array_equal(model.predict(shuffled), model.predict(ROWS))


def test_no_rows_give_no_predictions():
    assert trained().predict(ROWS.slice(0, 0)).shape == (0,)


def test_nulls_and_unseen_categories_are_missing():
    features = [Feature("kind", ("a", "b")), Feature("amount")]
    rows = pa.table({"kind": ["b", "zzz", None], "amount": pa.array([1, None, 3], pa.int64())})

    expected = [[1.0, 1.0], [np.nan, np.nan], [np.nan, 3.0]]
    np.testing.assert_array_equal(to_matrix(rows, features), expected)


def test_a_missing_column_is_named():
    with pytest.raises(DataContractError, match="no column count, which the model was trained with"):
        trained().predict(ROWS.drop_columns(["count"]))


def test_dates_times_and_numbers_that_are_none_can_be_categories():
    rows = pa.table(
        {
            "day": [date(2026, 3, 2), None, date(2026, 3, 1), date(2026, 3, 2)],
            "hour": pa.array([datetime(2026, 3, 1, h) for h in (5, 4, 5, 6)], pa.timestamp("us")),
            "number": [float("nan"), float("-inf"), 2.0, None],
        }
    )
    names = rows.column_names
    features = learn_features(rows, names, names)

    again = [Feature.from_json(json.loads(json.dumps(f.to_json(), allow_nan=False))) for f in features]

    assert again == features
    assert features[0].categories == ("2026-03-01", "2026-03-02")
    expected = [[1, 1, np.nan], [np.nan, 0, np.nan], [0, 1, 0], [1, 2, np.nan]]
    np.testing.assert_array_equal(to_matrix(rows, again), expected)


def test_text_that_is_no_category_is_refused_by_name():
    with pytest.raises(SpecError, match=r"'kind' is of type string.*training\.categorical"):
        learn_features(ROWS, NAMES, [])


def test_a_misspelt_category_gets_the_nearest_name():
    with pytest.raises(SpecError, match="Did you mean 'kind'"):
        learn_features(ROWS, NAMES, ["kinds"])


def test_a_pickle_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    folder = saved(trained(), tmp_path / "model")
    (folder / "model.txt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataContractError, match="pickles are never loaded"):
        load(folder)
    (folder / "model.txt").rename(folder / "model.pkl")
    with pytest.raises(DataContractError, match=r"lacks model\.txt.*model\.pkl"):
        load(folder)


def test_a_damaged_model_says_so(tmp_path):
    folder = saved(trained(), tmp_path / "model")
    (folder / "model.json").write_text("{}")
    with pytest.raises(DataContractError, match="does not describe a model's inputs"):
        load(folder)
