from datetime import date
from pathlib import Path

import pytest

from small_model import small_fraud
from windsock.completeness import settled_days
from windsock.errors import NotReady
from windsock.ledger import DayRecord, Ledger

FIRST, REFUSED, LAST = date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)
TABLE = "features/customer_spending@0123abcd"


def test_a_refused_day_is_missed_by_no_later_stage_until_it_is_mended(tmp_path: Path):
    settings, spec = small_fraud(tmp_path)
    ingest, features = (Ledger.of(settings, "fraud", stage) for stage in ("ingest", TABLE))
    for day in (FIRST, REFUSED, LAST):
        ingest.publish(DayRecord(str(day), "rejected" if day == REFUSED else "published"))
    for day in (FIRST, LAST):
        features.publish(DayRecord(str(day), "published"))
    assert set(settled_days(settings, spec, TABLE, FIRST, LAST)) == {FIRST, LAST}
    with pytest.raises(NotReady, match="labels of 3 of 3"):
        settled_days(settings, spec, "labels", FIRST, LAST)

    ingest.publish(DayRecord(str(REFUSED), "published"))
    with pytest.raises(NotReady, match="still missing: 2026-03-02"):
        settled_days(settings, spec, TABLE, FIRST, LAST)
