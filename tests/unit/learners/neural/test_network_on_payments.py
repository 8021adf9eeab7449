from datetime import timedelta

import numpy as np
import pytest
from neural_rows import spec_of

from windsock.ingest.sources import simulator
from windsock.learners.learner import Rows
from windsock.learners.neural.learner import NetworkLearner
from windsock.served.matrix import Feature
from windsock.served.metrics import measure
from windsock.spec.sources import SimulatorSource

DAYS, TERMINALS = 45, 600
FEATURES = [Feature("amount"), Feature("usual_amount"), Feature("terminal_risk"), Feature("night", (0, 1))]


@pytest.fixture(scope="module")
def payments():
    """Simulated payments with what was known of card and terminal; labels take seven days."""
    spec = spec_of()
    source = SimulatorSource(kind="simulator", seed=0, customers=300, terminals=TERMINALS)
    days = [spec.first_day + timedelta(days=n) for n in range(DAYS)]
    tables = [simulator.transactions(source, spec.first_day, day) for day in days]
    frame = {n: np.concatenate([t.column(n).to_numpy() for t in tables]) for n in
             ("TX_AMOUNT", "CUSTOMER_ID", "TERMINAL_ID", "TX_FRAUD", "TX_TIME_SECONDS")}  # fmt: skip
    day = np.repeat(np.arange(DAYS), [t.num_rows for t in tables])
    amount, customer, terminal = frame["TX_AMOUNT"], frame["CUSTOMER_ID"], frame["TERMINAL_ID"]
    spent, count = np.zeros((DAYS + 1, 300)), np.zeros((DAYS + 1, 300))
    frauds, used = np.zeros((DAYS + 8, TERMINALS)), np.zeros((DAYS + 8, TERMINALS))
    np.add.at(spent, (day + 1, customer), amount)
    np.add.at(count, (day + 1, customer), 1)
    np.add.at(frauds, (day + 8, terminal), frame["TX_FRAUD"])
    np.add.at(used, (day + 8, terminal), 1)
    spent, count, frauds, used = (np.cumsum(v, axis=0) for v in (spent, count, frauds, used))
    before = np.maximum(day - 28, 0)
    with np.errstate(invalid="ignore"):
        usual = spent[day, customer] / count[day, customer]  # NaN for a card never seen
        risk = (frauds[day, terminal] - frauds[before, terminal]) / (used[day, terminal] - used[before, terminal])
    night = (frame["TX_TIME_SECONDS"] % 86_400 < 6 * 3600).astype(float)
    x = np.column_stack([amount, usual, risk, night])
    return Rows(x, frame["TX_FRAUD"].astype(float), day)


def test_finds_the_simulators_frauds(payments):
    learn, later = payments.where((payments.days >= 14) & (payments.days < 33)), payments.where(payments.days >= 38)
    spec = spec_of(epochs=8, params={})
    learner = NetworkLearner(spec, spec.training.estimator(), FEATURES)
    learned = learner.train(learner.own_params() | {"batch_size": 256}, learn, 8)

    assert np.isnan(payments.x).any()
    scores = learned.predict(later.x)
    assert measure("average_precision", later.y, scores) > 4 * later.y.mean()
    assert measure("roc_auc", later.y, scores) > 0.75
    assert learned.importance()["amount"] > learned.importance()["night"]
