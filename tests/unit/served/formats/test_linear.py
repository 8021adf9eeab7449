import copy
import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windsock.errors import DataContractError
from windsock.served.model import load, load_files

CARD = {
    "format": "windsock-linear/1",
    "task": "binary",
    "intercept": -1.0,
    "features": [
        {"name": "amount", "categories": None, "coefficient": 2.0, "mean": 10.0, "scale": 4.0, "missing": 12.0},
        {"name": "visits", "categories": None, "coefficient": -0.5},
        {"name": "kind", "categories": ["a", ""], "coefficients": [0.25, 0.75], "other": -3.0},
    ],
}
ROWS = pa.table(
    {
        "kind": ["a", "", "zzz", None],
        "visits": pa.array([1, 2, None, 0], pa.int64()),
        "amount": [14.0, 10.0, None, 6.0],
    }
)
SUMS = [-1 + 2 - 0.5 + 0.25, -1 + 0 - 1 + 0.75, -1 + 1 + 0 - 3, -1 - 2 + 0 - 3]


def saved(folder, card):
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def changed(path, value):
    card = copy.deepcopy(CARD)
    *way, last = path
    place = card
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return card


def test_scores_are_what_the_documented_sum_gives(tmp_path):
    binary = load(saved(tmp_path / "b", CARD))
    regression = load(saved(tmp_path / "r", {**CARD, "task": "regression"}))

    np.testing.assert_allclose(regression.predict(ROWS), SUMS, rtol=1e-14)
    np.testing.assert_allclose(binary.predict(ROWS), [1 / (1 + math.exp(-s)) for s in SUMS], rtol=1e-14)
    assert binary.feature_names == ("amount", "visits", "kind")
    assert binary.task == "binary"


def test_without_a_word_on_missing_values_they_count_as_the_mean(tmp_path):
    model = load(saved(tmp_path / "m", {**changed(("features", 0, "missing"), ...), "task": "regression"}))
    mean, nothing = (ROWS.slice(2, 1).set_column(2, "amount", pa.array([v], pa.float64())) for v in (10.0, None))

    assert model.predict(mean) == model.predict(nothing)


def test_flags_and_numbers_are_categories_too(tmp_path):
    features = [
        {"name": "night", "categories": [0, 1], "coefficients": [1.0, 2.0]},
        {"name": "abroad", "categories": [False, True], "coefficients": [10.0, 20.0]},
    ]
    card = {"format": "windsock-linear/1", "task": "regression", "intercept": 0, "features": features}
    rows = pa.table({"night": [1, 0, None], "abroad": [True, None, False]})

    assert load(saved(tmp_path / "m", card)).predict(rows).tolist() == [22.0, 1.0, 10.0]


def test_no_rows_give_no_predictions(tmp_path):
    assert load(saved(tmp_path / "m", CARD)).predict(ROWS.slice(0, 0)).shape == (0,)


def test_extreme_scores_stay_probabilities(tmp_path):
    model = load(saved(tmp_path / "m", changed(("intercept",), 1e300)))

    with np.errstate(all="raise", under="ignore"):
        assert model.predict(ROWS).tolist() == [1.0] * 4


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(DataContractError, match="no column kind, which the model was trained with"):
        load(saved(tmp_path / "m", CARD)).predict(ROWS.drop_columns(["kind"]))


FINITE = st.floats(-1e6, 1e6)
NUMBERS = st.fixed_dictionaries(
    {"coefficient": FINITE}, optional={"mean": FINITE, "scale": st.floats(1e-3, 1e6), "missing": FINITE}
)


@given(st.lists(NUMBERS, min_size=1, max_size=4), st.lists(FINITE, max_size=4), FINITE, FINITE)
@settings(max_examples=50, deadline=None)
def test_a_saved_model_predicts_exactly_the_same(numbers, coefficients, other, intercept):
    features = [{"name": f"x{n}", **term} for n, term in enumerate(numbers)]
    features.append(
        {"name": "kind", "categories": list(range(len(coefficients))), "coefficients": coefficients, "other": other}
    )
    card = {"format": "windsock-linear/1", "task": "binary", "intercept": intercept, "features": features}
    model = load_files(lambda _: json.dumps(card).encode(), "m")
    rows = pa.table({name: pa.array([0.0, None, 2.0]) for name in model.feature_names})

    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem().pipe({f"/linear/{name}": content for name, content in model.content.items()})
    again = load("memory://linear")

    assert json.loads(again.content["model.json"]) == card
    assert again.content == model.content
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        (("intercept",), ..., "the card has no 'intercept'"),
        (("intercept",), math.nan, "the card, intercept is nan, not a finite number"),
        (("intercept",), True, "intercept is True, not a finite number"),
        (("intercepts",), 1.0, "field 'intercepts'.*Did you mean 'intercept'"),
        (("features",), [], "lists no input"),
        (("features", 0, "coefficient"), ..., "'amount' has no 'coefficient'"),
        (("features", 0, "coefficient"), math.inf, "'amount', coefficient is inf"),
        (("features", 0, "coefficient"), 10**400, "not a finite number"),
        (("features", 0, "scale"), 0, "the scale 0.0; it divides"),
        (("features", 0, "coeficient"), 1.0, "field 'coeficient'.*Did you mean 'coefficient'"),
        (("features", 1, "name"), "amount", "'amount' is listed twice"),
        (("features", 2, "coefficients"), [1.0], "2 categories but 1 coefficients"),
        (("features", 2, "coefficients"), ..., "2 categories but no list 'coefficients'"),
        (("features", 2, "coefficients"), [1.0, "2"], r"coefficients\[1\] is '2'"),
        (("features", 2, "categories"), ["a", "a"], "lists a category twice"),
        (("features", 2, "categories"), ["a", 1], "are numbers, texts. Give values of one kind"),
        (("features", 2, "categories"), [None, "a"], "are NoneType, texts"),
        (("features", 2, "other"), None, "'kind', other is None"),
    ],
)
def test_a_card_that_does_not_fit_is_refused_with_its_place(tmp_path, path, value, names):
    with pytest.raises(DataContractError, match=rf"model\.json: [\s\S]*{names}"):
        load(saved(tmp_path / "m", changed(path, value)))
