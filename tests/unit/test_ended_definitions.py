"""Maintenance gives up the days of a definition that nobody needs any more, and of no other."""

import os
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from churn_model import DAY, USAGE, Churn, delivery
from windsock import promotions
from windsock.completeness import feature_stages
from windsock.features.frozen import definitions_of
from windsock.maintenance import step
from windsock.maintenance.day_files import NOTE
from windsock.promotions import Promotion
from windsock.version_index import VersionInfo, record_version

LAST = DAY + timedelta(days=7)
ROLLBACK = 2
OWNERS = ("retired", "abandoned", "learnt", "recent", "champion", "challenger", "spec")
"""Who a definition is of; those of the first two are needed by nobody."""


def sql_of(owner: str) -> str:
    return USAGE.replace("86399999999", str(86_400_000_000 + OWNERS.index(owner)))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Churn, dict[str, str]]:
    """A store with a definition of each owner, and their names."""
    churn = Churn.make(tmp_path_factory.mktemp("lived"), serving={"rollback_days": ROLLBACK})
    for n in range((LAST - DAY).days + 1):
        churn.ingest(delivery(DAY + timedelta(days=n), rows=40), DAY + timedelta(days=n))
    tables: dict[str, str] = {}
    for owner in OWNERS:
        churn.write_sql(sql_of(owner))
        tables[owner] = churn.table.name
        churn.step("features", DAY)
        churn.step("features", LAST)
        if owner == "learnt":
            pins = {tables[owner]: {str(DAY): churn.record(tables[owner]).content_hash}}
            churn.store.write_json({"pins": pins}, "runs", "churn", "run-0", "lineage.json")
    for version, owner in enumerate(("retired", "recent", "champion", "challenger"), 1):
        churn.write_sql(sql_of(owner))
        made = VersionInfo("churn", str(version), f"run-{version}", DAY, definitions=definitions_of(churn.spec))
        record_version(churn.settings, made)
    for version, day in (("1", DAY), ("2", LAST - timedelta(days=4)), ("3", LAST - timedelta(days=1))):
        entry = Promotion(0, "promote", version, f"run-{version}", None, day, DAY, "test")
        promotions.append(churn.settings, churn.spec, entry, after=promotions.current(churn.settings, churn.spec))
    churn.write_sql(sql_of("spec"))
    return churn, tables


@pytest.fixture
def store_of(lived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Churn, dict[str, str]]:
    monkeypatch.setattr(step, "rebuild_docs", lambda cleaning: True)
    churn = lived[0].copied(tmp_path, sql_of("spec"), serving={"rollback_days": ROLLBACK})
    age(Path(churn.settings.store).rglob("*"), days=30)
    return churn, lived[1]


def age(files: Iterable[Path], days: int) -> None:
    then = time.time() - days * 86400
    for path in files:
        if path.is_file():
            os.utime(path, (then, then))


def maintain(churn: Churn, **options: Any) -> dict[str, Any]:
    return churn.unkeyed("maintain", **options)


def rows_of(churn: Churn, table: str) -> list[str]:
    return [file for file in churn.files("churn", *table.split("/")) if file.endswith(".parquet")]


def test_what_nobody_needs_goes_with_its_files_and_all_else_stays_as_it_is(store_of):
    churn, tables = store_of
    gone, before = {tables["retired"], tables["abandoned"]}, churn.files()

    result = maintain(churn)

    assert set(result["definitions"]) == gone
    assert set(feature_stages(churn.store, "churn")) == set(tables.values()) - gone
    parts = {f"churn/{name}/" for name in gone} | {f"churn/ledger/{name}/" for name in gone}
    after = churn.files()
    del after[f"churn/{NOTE}"]
    assert after == {file: f for file, f in before.items() if not file.startswith(tuple(parts))}
    assert result["deleted"] == 2 * len(gone)
    assert result["removed"]["records"]["files"] == 2 * 2 * len(gone), "and their history"
    assert not (Path(churn.settings.store) / "churn" / "ledger" / tables["retired"]).exists()


@pytest.mark.parametrize("owner", ["retired", "abandoned"])
def test_one_day_that_was_computed_a_short_while_ago_keeps_the_whole_definition(store_of, owner: str):
    churn, tables = store_of
    folder = Path(churn.settings.store, "churn", "ledger", tables[owner])
    os.utime(folder / f"{DAY}.json")

    assert tables[owner] not in maintain(churn)["definitions"]
    assert len(rows_of(churn, tables[owner])) == 2


def test_what_was_given_up_is_computed_again_once_somebody_wants_it(store_of):
    churn, tables = store_of
    before = churn.record(tables["abandoned"]).content_hash
    maintain(churn)
    churn.write_sql(sql_of("abandoned"))
    churn.step("features")
    assert churn.record(tables["abandoned"]).content_hash == before


def test_while_a_view_does_not_run_nothing_is_given_up(store_of, caplog: pytest.LogCaptureFixture):
    churn, tables = store_of
    churn.write_sql("select nonsense from events")
    assert maintain(churn)["definitions"] == []
    assert set(feature_stages(churn.store, "churn")) == set(tables.values())
    assert "nonsense" in caplog.text


def test_a_dry_run_names_what_would_go_and_changes_nothing(store_of):
    churn, tables = store_of
    before = churn.files()
    assert set(maintain(churn, dry_run=True)["definitions"]) == {tables["retired"], tables["abandoned"]}
    assert churn.files() == before
