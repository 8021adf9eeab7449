import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from neural_rows import FEATURES, learner, result, rows, spec_of
from neural_rows import assert_equal as same

from windsock.errors import SpecError
from windsock.learners.neural import data
from windsock.learners.neural.data import Batches, make_table
from windsock.learners.neural.device import choose_device, choose_mode
from windsock.learners.neural.step import loss_of
from windsock.served.formats.network import Perceptron, Preparation, TabularNetwork, multiplied
from windsock.served.matrix import Feature
from windsock.served.metrics import measure

ON_CPU = choose_device().type == "cpu"
CLOSE = 1e-5 if ON_CPU else 2e-2
"""A GPU computes in bfloat16; a trained network scores on the CPU, in float32."""


def trained(spec=None, learn=None, judged=None, rounds=4, params=None, **options):
    made = learner(spec or spec_of())
    learn = rows(1500) if learn is None else learn
    return made.train({**made.own_params(), **(params or {})}, learn, rounds, judged, **options)


def test_learns_what_can_be_learnt():
    learn, later = rows(3000), rows(800, seed=1)
    learned = trained(learn=learn, judged=later, rounds=8)

    scores = learned.predict(later.x)
    assert measure("average_precision", later.y, scores) > 0.8 > 3 * later.y.mean()
    assert measure("log_loss", later.y, scores) == pytest.approx(learned.curve[-1], rel=CLOSE)
    assert learned.curve[-1] < learned.curve[0]
    assert learned.importance()["amount"] > learned.importance()["rate"]
    assert sum(learned.importance().values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("metric", "loss"), [("r2", "square"), ("mean_absolute_error", "absolute")])
def test_regression_gives_values_in_the_labels_own_unit(metric, loss):
    learn, later = rows(4000, task="regression"), rows(500, seed=1, task="regression")
    learned = trained(spec_of(metric, "regression"), learn, later, rounds=10)

    scores = learned.predict(later.x)
    assert measure("r2", later.y, scores) > 0.7
    errors = scores - later.y
    expected = np.mean(np.abs(errors)) if loss == "absolute" else np.mean(errors**2)
    assert learned.curve[-1] == pytest.approx(expected, rel=CLOSE)


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
    assert measure("average_precision", later.y, scores) > 0.75
    # Both say how many positives there are, as in the rows they learnt from.
    assert weighted.predict(rare.x).mean() == pytest.approx(rare.y.mean(), rel=0.35)
    assert not np.array_equal(scores, plain.predict(later.x))


def test_bfloat16_can_be_asked_for_on_a_cpu_and_changes_little():
    learn, later = rows(2000), rows(500, seed=1)
    exact, coarse, chosen = (trained(spec_of(precision=p), learn, later) for p in ("float32", "bf16", "auto"))

    difference = np.abs(exact.predict(later.x) - coarse.predict(later.x))
    assert 0 < difference.max() < 0.1
    same(result(chosen), result(exact if ON_CPU else coarse))


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
    network = untrained(features, x)

    assert torch.isfinite(network(torch.from_numpy(x))).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 3), min_size=1, max_size=6))
def test_any_row_gets_a_finite_score_that_does_not_depend_on_its_neighbours(values):
    network = untrained(FEATURES, rows(200).x)
    x = torch.tensor(values, dtype=torch.float64)
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(x[i : i + 1]) for i in range(len(x))])

    assert torch.isfinite(together).all()
    assert ((together >= 0) & (together <= 1)).all()
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-7)


def untrained(features, x):
    torch.manual_seed(0)
    preparation = Preparation.fit(features, x)
    return TabularNetwork(preparation, Perceptron(preparation.width, preparation.tables, (8,)), binary=True)


def test_the_module_learns_means_and_spreads_itself():
    learn = rows(5000)
    prepared = Preparation.fit(FEATURES, learn.x)(torch.from_numpy(learn.x)).numpy()

    assert prepared.dtype == np.float32
    assert prepared.shape == (5000, 2 * 2 + 1 + 1)  # two numbers twice, one flag, one category
    np.testing.assert_allclose(prepared[:, [1, 3]].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_array_equal(prepared[:, 4], np.isnan(learn.x[:, 1]))
    missing = np.isnan(learn.x[:, 2])
    np.testing.assert_array_equal(prepared[missing, 5], 3)
    np.testing.assert_array_equal(prepared[~missing, 5], learn.x[~missing, 2])


def kept_units(monkeypatch, seed=3, steps=3):
    """Train and return which hidden units each step keeps."""
    seen, forward = [], Perceptron.forward

    def noting(self, numbers, codes, kept=(), dropout=0.0):
        if kept:
            seen.append(([mask.cpu().numpy() for mask in kept], dropout))
        return forward(self, numbers, codes, kept, dropout)

    spec = spec_of(execution="eager")
    other = spec.model_copy(update={"training": spec.training.model_copy(update={"seed": seed})})
    with monkeypatch.context() as patch:
        patch.setattr(Perceptron, "forward", noting)
        trained(other, rows(steps * 500), rounds=1, params={"hidden": [40, 20], "dropout": 0.25, "batch_size": 500})
    assert len(seen) == steps
    return seen


def test_dropout_drops_its_share_and_depends_on_seed_and_step_alone(monkeypatch):
    first, second, third = (masks for masks, _ in kept_units(monkeypatch))
    again = kept_units(monkeypatch)

    assert [mask.shape for mask in first] == [(500, 40), (500, 20)]
    assert np.mean([mask.mean() for masks in (first, second, third) for mask in masks]) == pytest.approx(0.75, abs=0.01)
    assert {dropout for _, dropout in again} == {0.25}
    np.testing.assert_array_equal(again[1][0][0], second[0])
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(kept_units(monkeypatch, seed=4)[0][0][0], first[0])


@pytest.mark.parametrize("rows_at_once", [1, 8, 100])
def test_the_order_of_rows_depends_on_seed_and_epoch_alone(monkeypatch, rows_at_once):
    monkeypatch.setitem(data._PICKED_AT_ONCE, "cpu", rows_at_once)
    table, cpu = torch.arange(20.0).view(10, 2), torch.device("cpu")

    def order(seed, epoch, first=0, resident=True):
        batches = Batches(table, cpu, resident=resident, batch_size=4, seed=seed)
        return [batch.rows[:, 0].tolist() for batch in batches.epoch(epoch, first)]

    whole = order(1, 2)
    assert sorted(value for batch in whole for value in batch) == table[:, 0].tolist()
    assert [len(rows) for rows in whole] == [3, 4, 3]
    assert order(1, 2, first=1, resident=False) == whole[1:]
    assert order(1, 3) != whole != order(2, 2)


def test_a_lookup_by_product_has_the_rows_and_the_gradient_of_a_lookup():
    table, codes = torch.nn.Embedding(5, 3), torch.tensor([4, 0, 0, 2, 4, 4])
    weights = torch.rand(6, 3)

    found, expected = multiplied(table, codes), table(codes)

    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad((rows * weights).sum(), table.weight)[0] for rows in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("columns", [[0, 1, 2], [0, 1], [2]], ids=str)
def test_the_networks_shortcuts_leave_its_gradient_what_it_is(dropout, columns):
    preparation = Preparation.fit([FEATURES[c] for c in columns], rows(70).x[:, columns])
    body = Perceptron(preparation.width, preparation.tables, (9, 5))
    inputs = preparation.split(preparation(torch.from_numpy(rows(70).x[:, columns])))
    kept = [torch.rand(70, units) >= dropout for units in (9, 5)] if dropout else []

    h = torch.cat([inputs[0], *(table(inputs[1][:, i]) for i, table in enumerate(body.tables))], dim=1)
    for i, layer in enumerate(body.layers[:-1]):
        h = torch.relu(layer(h))
        h = h * kept[i] / (1 - dropout) if dropout else h
    expected = torch.autograd.grad(body.layers[-1](h).square().sum(), list(body.parameters()))

    found = torch.autograd.grad(body(*inputs, kept, dropout).square().sum(), list(body.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_training_takes_the_steps_of_a_plain_loop():
    learn, steps = rows(256), 6
    spec = spec_of(precision="float32", epochs=steps)
    made = learner(spec)
    params = made.own_params() | {"dropout": 0.0, "batch_size": 256, "positive_weight": 3.0, "weight_decay": 0.1}
    found = made.train(params, learn, steps, learn)

    plan = made._plan(made._checked(params), learn, steps, torch.device("cpu"), steps)
    network = made._network(params, made._checked(params), learn, plan)
    prepared = network.preparation.split(make_table(network.preparation, learn.x, learn.y))
    optimiser = torch.optim.AdamW(network.body.parameters(), lr=params["learning_rate"], weight_decay=0.1)
    average = [p.detach().clone() for p in network.body.parameters()]
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        output = network.body(*prepared).flatten()
        (loss_of("log", 3.0, output, torch.from_numpy(learn.y).float()) / len(learn.y) / plan.mean_weight).backward()
        optimiser.step()
        memory = min(0.9, (1 + step) / (10 + step))
        for mean, parameter in zip(average, network.body.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 1 - memory)
    with torch.no_grad():
        for mean, parameter in zip(average, network.body.parameters(), strict=True):
            parameter.copy_(mean)
        expected = network(torch.from_numpy(learn.x)).numpy()

    np.testing.assert_allclose(found.predict(learn.x), expected, rtol=1e-3, atol=1e-4)


def test_steps_are_captured_on_a_gpu_alone():
    assert choose_mode("compiled", torch.device("cpu"), 10**6) == "eager"
    assert choose_mode("auto", torch.device("cuda"), 10) == "captured"
    assert choose_mode("eager", torch.device("cuda"), 10**6) == "eager"


@pytest.mark.skipif(ON_CPU, reason="needs a GPU")
@pytest.mark.parametrize("mode", ["captured", "compiled"])
def test_captured_steps_train_the_network_that_eager_ones_do(mode):
    learn, later = rows(3000), rows(500, seed=1)
    eager, other, again = (trained(spec_of(execution=m), learn, later) for m in ("eager", mode, mode))

    same(result(other), result(again))
    np.testing.assert_allclose(other.curve, eager.curve, rtol=0.02)


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
