from dataclasses import replace

import numpy as np
import pytest

from windsock.errors import DataContractError
from windsock.gate.compare import Comparison, compare, effective_clusters, planted_worse
from windsock.served.resampling import ClusteredRows
from windsock.settings import REPO_ROOT
from windsock.spec import load_spec

FRAUD = load_spec(REPO_ROOT / "include" / "models" / "fraud" / "model.yaml")


def sample(seed: int, *, clusters: int = 300, per: int = 8) -> tuple[ClusteredRows, np.ndarray]:
    """Rows of entities that share their luck, and the part of the score that is the truth."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(clusters), per)
    truth = rng.normal(size=clusters)[cluster] + rng.normal(size=clusters * per)
    label = (truth + rng.normal(size=len(truth)) > 1.5).astype(float)
    return ClusteredRows(label, np.tile(np.arange(per), clusters), cluster, cluster, "entity"), truth


def judged(
    rows: ClusteredRows,
    candidate: np.ndarray,
    reference: np.ndarray,
    *,
    margin: float = 0.0,
    metric: str = "average_precision",
    seed: int = 7,
    resamples: int = 200,
) -> Comparison:
    training = FRAUD.training.model_copy(update={"metric": metric, "seed": seed})
    gate = FRAUD.gate.model_copy(update={"confidence": 0.9, "resamples": resamples})
    spec = FRAUD.model_copy(update={"training": training, "gate": gate})
    return compare(spec, rows, candidate, reference, margin=margin)


def test_a_clearly_better_model_passes_and_a_clearly_worse_one_does_not() -> None:
    rows, truth = sample(1)
    noisy = truth + np.random.default_rng(2).normal(size=len(truth)) * 1.5

    assert judged(rows, truth, noisy).passed
    assert not judged(rows, noisy, truth).passed


def test_an_equal_model_passes_only_with_a_margin() -> None:
    rows, truth = sample(1)

    assert judged(rows, truth, truth).lower == 0
    assert not judged(rows, truth, truth).passed
    assert judged(rows, truth, truth, margin=0.01).passed


def test_for_losses_lower_is_better() -> None:
    rows, truth = sample(3)
    label = ClusteredRows(truth, rows.day, rows.entity, rows.cluster, "entity")
    near, far = truth + 0.1, truth + 0.5

    for metric in ("mean_absolute_error", "root_mean_squared_error"):
        good = judged(label, near, far, metric=metric)
        assert good.passed
        assert good.advantage == pytest.approx(0.4, abs=0.01)
        assert not judged(label, far, near, metric=metric).passed


def test_equal_inputs_give_an_equal_verdict_and_another_seed_nearly_the_same() -> None:
    rows, truth = sample(4)
    other = truth + np.random.default_rng(5).normal(size=len(truth)) * 0.5

    first, again = judged(rows, other, truth), judged(rows, other, truth)
    another = judged(rows, other, truth, seed=8, resamples=1000)

    assert np.array_equal(first.advantages, again.advantages)
    assert first.lower == pytest.approx(another.lower, abs=0.02)


def test_the_bound_holds_about_as_often_as_it_says() -> None:
    """Two models of equal quality: the bound lies above the true difference of 0 in about a tenth of samples."""
    above = 0
    for seed in range(60):
        rows, truth = sample(seed, clusters=150)
        rng = np.random.default_rng(1000 + seed)
        one, other = (truth + rng.normal(size=len(truth)) for _ in range(2))
        above += judged(rows, one, other, resamples=150).lower > 0

    assert 1 <= above <= 14  # 6 expected; outside this range with a chance below 0.3 %


def test_rows_of_one_entity_are_not_taken_as_independent() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(60), 30)
    label = (rng.random(60) < 0.3).astype(float)[cluster]
    score, other = (label + rng.normal(size=60)[cluster] for _ in range(2))
    together = ClusteredRows(label, cluster * 0, cluster, cluster, "entity")
    apart = ClusteredRows(label, cluster * 0, cluster, np.arange(len(cluster)), "row")

    spread, too_tight = (judged(r, score, other).advantages.std() for r in (together, apart))

    assert spread > 3 * too_tight


def test_a_planted_model_is_worse_and_keeps_the_same_scores() -> None:
    rows, truth = sample(6)

    worse = planted_worse(truth, share=0.5, seed=1)

    assert np.array_equal(np.sort(worse), np.sort(truth))
    assert not judged(rows, worse, truth, margin=0.05).passed


@pytest.mark.parametrize("metric", ["average_precision", "roc_auc"])
def test_rows_of_one_class_are_refused_in_a_sentence(metric: str) -> None:
    rows, truth = sample(1)
    without = replace(rows, label=np.zeros(len(truth)))

    with pytest.raises(DataContractError, match=r"all 2400 rows judged have TX_FRAUD = 0.*Lengthen training\.holdout"):
        judged(without, truth, -truth, metric=metric)


def uneven(seed: int) -> tuple[ClusteredRows, np.ndarray, np.ndarray]:
    """Rows of twelve entities of uneven sizes, and scores of two models, equally good on average of all entities."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(12), 1 + rng.multinomial(700, rng.dirichlet(np.full(12, 0.5))))
    truth = rng.normal(size=12)[cluster] + rng.normal(size=len(cluster))
    label = (truth + rng.normal(size=len(cluster)) > 2).astype(float)
    one, other = (truth + np.exp(rng.normal(size=12))[cluster] * rng.normal(size=len(cluster)) for _ in range(2))
    return ClusteredRows(label, cluster * 0, cluster, cluster, "entity"), one, other


@pytest.mark.parametrize(("confidence", "most"), [(None, 0.13), (0.9875, 0.025)])
def test_the_bound_holds_for_few_entities_of_uneven_size_that_one_model_knows_better_than_the_other(
    confidence: float | None, most: float
) -> None:
    pairs = [pair for pair in map(uneven, range(260)) if pair[0].positives >= 20]
    above = sum(compare(FRAUD, *pair, margin=0.0, confidence=confidence).lower > 0 for pair in pairs)

    assert len(pairs) > 200
    assert above <= most * len(pairs)


def test_with_many_entities_the_bound_is_the_resamples_own_quantile() -> None:
    rows, truth = sample(7)
    found = judged(rows, truth + np.random.default_rng(8).normal(size=len(truth)), truth)

    assert found.effective > 100
    assert found.lower == np.quantile(found.advantages, 1 - 0.9)


def test_one_large_entity_and_few_that_hold_the_positives_are_worth_few() -> None:
    cluster = np.repeat(np.arange(100), [901, *[1] * 99])
    rows = ClusteredRows(np.zeros(1000), cluster * 0, cluster, cluster, "entity")
    even = replace(rows, cluster=np.arange(1000) % 100, label=(np.arange(1000) % 100 < 3).astype(float))

    found = compare(FRAUD, replace(rows, label=(np.arange(1000) % 7 == 0) * 1.0), *np.eye(2, 1000), margin=0.0)
    assert found.resampled_by.startswith("resampled by entity, 100 of them, worth 1.")
    assert effective_clusters(FRAUD, rows) == pytest.approx(1.23, abs=0.01)
    assert effective_clusters(FRAUD, even) == pytest.approx(3)
    assert effective_clusters(FRAUD, replace(even, label=np.zeros(1000))) == pytest.approx(100)
