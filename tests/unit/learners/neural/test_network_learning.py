import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from neural_rows import FEATURES, learner, result, rows, spec_of
from neural_rows import assert_equal as same
from windsock.learners.neural.adamw import AdamW
from windsock.learners.neural.batches import make_table
from windsock.learners.neural.gradient import Gradient, Weights, loss_of
from windsock.learners.neural.network import TabularNetwork
from windsock.learners.neural.randomness import Dropout

from windsock.errors import SpecError
from windsock.served.matrix import Feature
from windsock.served.metrics import average_precision, log_loss, r2


def trained(spec=None, learn=None, judged=None, rounds=4, params=None, **options):
    made = learner(spec or spec_of())
    learn = rows(1500) if learn is None else learn
    return made.train({**made.own_params(), **(params or {})}, learn, rounds, judged, **options)


def test_learns_what_can_be_learnt():
    learn, later = rows(3000), rows(800, seed=1)
    learned = trained(learn=learn, judged=later, rounds=8)

    scores = learned.predict(later.x)
    assert average_precision(later.y, scores) > 0.8 > 3 * later.y.mean()
    assert log_loss(later.y, scores) == pytest.approx(learned.curve[-1], rel=1e-6)
    assert learned.curve[-1] < learned.curve[0]
    assert learned.importance()["amount"] > learned.importance()["rate"]
    assert sum(learned.importance().values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("metric", "loss"), [("r2", "square"), ("mean_absolute_error", "absolute")])
def test_regression_gives_values_in_the_labels_own_unit(metric, loss):
    learn, later = rows(4000, task="regression"), rows(500, seed=1, task="regression")
    learned = trained(spec_of(metric, "regression"), learn, later, rounds=10)

    scores = learned.predict(later.x)
    assert r2(later.y, scores) > 0.7
    errors = scores - later.y
    expected = np.mean(np.abs(errors)) if loss == "absolute" else np.mean(errors**2)
    assert learned.curve[-1] == pytest.approx(expected, rel=1e-5)


def test_the_same_training_gives_the_same_bits_and_the_same_files():
    one, other = (trained(judged=rows(300, seed=1)) for _ in range(2))

    same(result(one), result(other))
    assert one.files() == other.files()
    assert one.importance() == other.importance()


def test_another_seed_gives_another_network():
    spec = spec_of()
    other = spec.model_copy(update={"training": spec.training.model_copy(update={"seed": 4})})

    assert not np.array_equal(trained(spec).predict(rows(9).x), trained(other).predict(rows(9).x))


def test_training_leaves_no_trace_in_the_process():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()

    trained(rounds=1)

    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_streamed_rows_give_the_same_network_as_resident_ones():
    one, other = (trained(spec_of(data=data), judged=rows(300, seed=1)) for data in ("resident", "streamed"))

    same(result(one), result(other))


def test_scores_after_an_epoch_are_those_of_a_training_that_ended_there():
    long, short = trained(judged=rows(300, seed=1), rounds=4), trained(rounds=2)
    x = rows(50, seed=2).x

    np.testing.assert_array_equal(long.predict(x, 2), short.predict(x))
    assert short.curve == []
    assert not np.array_equal(long.predict(x, 2), long.predict(x))


def test_stops_when_the_judged_rows_no_longer_gain():
    learn, noise = rows(300), rows(300, seed=1)
    rng = np.random.default_rng(0)
    judged = type(noise)(noise.x, rng.permutation(noise.y), noise.days)
    learned = trained(spec_of(patience=3), learn, judged, rounds=200, params={"learning_rate": 0.01})

    best = int(np.argmin(learned.curve))
    assert len(learned.curve) == best + 1 + 3 < 200


def test_reports_every_epoch_and_lets_the_listener_end_it():
    heard = []

    class Enough(Exception):
        pass

    def listen(epoch, loss):
        heard.append((epoch, loss))
        if epoch == 2:
            raise Enough

    whole = trained(judged=rows(300, seed=1))
    with pytest.raises(Enough):
        trained(judged=rows(300, seed=1), report=listen)

    assert heard == list(enumerate(whole.curve[:2], 1))


@pytest.mark.parametrize("weight", [10.0, "balanced"])
def test_weighted_positives_leave_scores_probabilities(weight):
    learn, later = rows(6000), rows(2000, seed=1)
    rare = learn.where((learn.y == 0) | (np.arange(6000) % 5 == 0))
    plain = trained(learn=rare, rounds=8)
    weighted = trained(learn=rare, rounds=8, params={"positive_weight": weight})

    scores = weighted.predict(later.x)
    assert average_precision(later.y, scores) > 0.75
    # Both say how many positives there are, as in the rows they learnt from.
    assert weighted.predict(rare.x).mean() == pytest.approx(rare.y.mean(), rel=0.35)
    assert not np.array_equal(scores, plain.predict(later.x))


def test_bfloat16_can_be_asked_for_on_a_cpu_and_changes_little():
    learn, later = rows(2000), rows(500, seed=1)
    exact, coarse = (trained(spec_of(precision=p), learn, later) for p in ("float32", "bf16"))

    difference = np.abs(exact.predict(later.x) - coarse.predict(later.x))
    assert 0 < difference.max() < 0.1
    np.testing.assert_array_equal(
        trained(spec_of(precision="auto"), learn, later).predict(later.x), exact.predict(later.x)
    )


def test_missing_values_and_unseen_categories_count_as_missing():
    learned = trained()
    x = np.array([[50.0, 0.1, np.nan], [50.0, 0.1, 3.0], [50.0, 0.1, -1.0], [50.0, 0.1, 1e300], [50.0, 0.1, 1.0]])
    scores = learned.predict(x)

    assert len(set(scores[:4])) == 1
    assert scores[4] != scores[0]
    assert np.isfinite(learned.predict(np.full((1, 3), np.nan))).all()


def test_columns_that_say_nothing_do_no_harm():
    learn = rows(300)
    x = np.column_stack([learn.x[:, 0], np.full(300, 7.0), np.full(300, np.nan), np.full(300, np.inf), learn.x[:, 2]])
    features = [Feature("amount"), Feature("same"), Feature("gone"), Feature("endless"), Feature("none", ())]
    network = TabularNetwork(features, x, learn.y, hidden=(4,), binary=True, positive_weight=1.0, seed=0)

    assert torch.isfinite(network(torch.from_numpy(x))).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 3), min_size=1, max_size=6))
def test_any_row_gets_a_finite_score_that_does_not_depend_on_its_neighbours(values):
    network = _network()
    x = torch.tensor(values, dtype=torch.float64)
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(x[i : i + 1]) for i in range(len(x))])

    assert torch.isfinite(together).all()
    assert ((together >= 0) & (together <= 1)).all()
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-7)


def _network():
    learn = rows(200)
    return TabularNetwork(FEATURES, learn.x, learn.y, hidden=(8,), binary=True, positive_weight=1.0, seed=0)


def test_the_module_learns_means_and_spreads_itself():
    learn = rows(5000)
    network = TabularNetwork(FEATURES, learn.x, learn.y, hidden=(8,), binary=True, positive_weight=1.0, seed=0)
    prepared = network.prepare(torch.from_numpy(learn.x)).numpy()

    assert prepared.dtype == np.float32
    assert prepared.shape == (5000, 2 * 2 + 1 + 1)  # two numbers twice, one flag, one category
    np.testing.assert_allclose(prepared[:, [1, 3]].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_array_equal(prepared[:, 4], np.isnan(learn.x[:, 1]))
    missing = np.isnan(learn.x[:, 2])
    np.testing.assert_array_equal(prepared[missing, 5], 3)
    np.testing.assert_array_equal(prepared[~missing, 5], learn.x[~missing, 2])


def test_the_optimiser_takes_the_steps_of_pytorchs_own():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, generator=generator)
    ours, theirs = start.clone(), torch.nn.Parameter(start.clone())
    mine = AdamW(ours, learning_rate=0.01, weight_decay=0.1)
    reference = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1)
    for step in range(1, 30):
        theirs.grad = torch.randn(50, generator=generator)
        mine.step(theirs.grad, step)
        reference.step()

    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_dropout_drops_its_share_and_depends_on_seed_and_step_alone():
    dropout = Dropout(seed=1, rate=0.25, hidden=(40, 20), device=torch.device("cpu"))
    first, second = dropout.masks(7, 1000, slice(0, 1000), torch.float32)
    again = Dropout(1, 0.25, (40, 20), torch.device("cpu")).masks(7, 1000, slice(300, 600), torch.float32)

    assert first.shape == (1000, 40)
    assert second.shape == (1000, 20)
    assert float((first == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(first.max()) == pytest.approx(1 / 0.75)
    torch.testing.assert_close(again[0], first[300:600], rtol=0, atol=0)
    assert not torch.equal(dropout.masks(8, 1000, slice(0, 1000), torch.float32)[0], first)
    assert Dropout(1, 0.0, (40,), torch.device("cpu")).masks(0, 10, slice(0, 10), torch.float32) == []


@pytest.mark.parametrize(
    ("params", "names"),
    [({"hidden": []}, "hidden"), ({"layers": 3}, "layers"), ({"positive_weight": -1.0}, "positive_weight")],
)
def test_a_wrong_parameter_is_refused_by_name(params, names):
    with pytest.raises(SpecError, match=names):
        trained(params=params)


def test_a_training_that_diverges_says_what_to_change():
    with pytest.raises(SpecError, match=r"diverged\. Lower params\.learning_rate"):
        trained(judged=rows(100, seed=1), params={"learning_rate": 1e30})


def test_a_batch_larger_than_the_rows_is_one_step_an_epoch():
    learned = trained(learn=rows(50), judged=rows(50, seed=1), params={"batch_size": 4096}, rounds=2)

    assert np.isfinite(learned.curve).all()


@pytest.mark.parametrize("loss", ["log", "square", "absolute"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("columns", [[0, 1, 2], [0, 1], [2]], ids=str)
def test_gradients_written_by_hand_are_those_of_automatic_differentiation(loss, rate, columns):
    learn = rows(70)
    features, x = [FEATURES[c] for c in columns], learn.x[:, columns]
    network = TabularNetwork(features, x, learn.y, hidden=(9, 5), binary=loss == "log", positive_weight=3.0, seed=0)
    table = make_table(network, x, learn.y)
    dropout = Dropout(1, rate, (9, 5), torch.device("cpu"))
    masks = dropout.masks(0, 70, slice(0, 70), torch.float32)
    expected = torch.autograd.grad(
        loss_of(loss, 3.0, network.body(table[:, :-1], masks), table[:, -1]) * 0.1, list(network.parameters())
    )
    weights = Weights(network)
    gradient = Gradient(network, weights, loss=loss, positive_weight=3.0, dropout=dropout.rate, dtype=torch.float32)
    gradient.compute(table, masks, 0.1)

    for ours, theirs in zip(weights.views(weights.gradient), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
