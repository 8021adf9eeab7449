"""What only the next training needs and cannot have yet is told, and stops nothing of the champion."""

from datetime import timedelta
from pathlib import Path

import pytest

from churn_model import DAY, USAGE, Churn, delivery
from windsock import promotions
from windsock.errors import NotReady
from windsock.features.frozen import definitions_of
from windsock.ledger import Ledger
from windsock.promotions import Promotion
from windsock.version_index import VersionInfo, record_version

FIRST, LAST = DAY + timedelta(days=5), DAY + timedelta(days=9)
"""Days that are there; those before them, from the model's first day on, are missing."""
LONGER = {"name": "usage", "entity": "customer", "sql": "usage.sql", "lookback_days": 6}


@pytest.fixture
def churn(tmp_path: Path) -> Churn:
    made = Churn.make(tmp_path)
    for n in range((LAST - FIRST).days + 1):
        made.ingest(delivery(FIRST + timedelta(days=n), rows=40), FIRST + timedelta(days=n))
    return made


def test_a_longer_lookback_whose_older_days_are_missing_waits_alone(churn: Churn):
    spec, settings = churn.spec, churn.settings
    record_version(settings, VersionInfo("churn", "1", "run-1", DAY, definitions=definitions_of(spec)))
    promotions.append(settings, spec, Promotion(0, "promote", "1", "run-1", None, DAY, DAY, "test"), after=None)
    before = churn.table.name
    longer = Churn.make(churn.home, features__views=[LONGER])

    said = longer.step("features", LAST)

    assert said["rows"] == {before: 40}
    (refused,) = said["refused"]
    assert refused.startswith("the next training: ")
    assert f"{DAY + timedelta(days=3)}..{DAY + timedelta(days=4)}" in refused
    assert longer.record(before, LAST).status == "published"
    assert Ledger.of(settings, "churn", longer.table.name).get(LAST) is None
    assert longer.step("materialize", LAST)["parity"]["checked"] == 40


def test_before_the_first_champion_the_spec_s_own_definitions_are_waited_for(churn: Churn):
    longer = Churn.make(churn.home, USAGE, features__views=[LONGER])
    with pytest.raises(NotReady, match=str(DAY + timedelta(days=3))):
        longer.step("features", LAST)
