"""Two pods share one search through PostgreSQL, whose address reaches them by a Secret and shows up nowhere."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import dataclass

import pytest
from cluster_stack import SHARED, SHARED_TRIALS, STUDIES_SECRET, ClusterStack
from pod_watch import PodWatch

SEARCHES = (f"search_lightgbm_{number}" for number in (1, 2))
TRIAL = re.compile(r"trial (\d+)(?: of \d+)?: ")


@dataclass(frozen=True)
class Searched:
    """A training whose search was shared."""

    run_id: str
    run: str
    seen: PodWatch
    trials: tuple[set[int], set[int]]
    """Numbers of the trials that each search pod has done."""


@pytest.fixture(scope="module")
def searched(cluster_stack: ClusterStack) -> Searched:
    runs = cluster_stack.shared
    with PodWatch(cluster_stack.cluster) as seen:
        run_id = cluster_stack.train(runs)
        runs.finish("train", run_id, seconds=300)
    run = runs.result("train", run_id, "assemble")["run"]
    first, second = ({int(n) for n in TRIAL.findall(runs.log("train", run_id, task))} for task in SEARCHES)
    return Searched(run_id, run, seen, (first, second))


def test_both_pods_did_trials_of_one_study_and_none_twice(searched: Searched) -> None:
    first, second = searched.trials
    assert first
    assert second
    assert not first & second
    assert first | second == set(range(1, SHARED_TRIALS + 1))


def test_the_study_holds_as_many_trials_as_the_budget_allows(cluster_stack: ClusterStack, searched: Searched) -> None:
    with closing(cluster_stack.database("studies")) as connection, connection.cursor() as cursor:
        cursor.execute("select study_name from studies")
        ((name,),) = cursor.fetchall()
        cursor.execute("select state from trials join trial_user_attributes using (trial_id) where key = 'record'")
        done = [state for (state,) in cursor.fetchall()]
        cursor.execute("select count(*) from trials where state in ('RUNNING', 'WAITING')")
        ((left,),) = cursor.fetchall()
    assert name.startswith(f"{SHARED}/{searched.run}/lightgbm")
    assert done == ["COMPLETE"] * SHARED_TRIALS
    assert left == 0


def test_the_fit_used_the_study_and_searched_no_more(cluster_stack: ClusterStack, searched: Searched) -> None:
    folder = cluster_stack.candidate(SHARED, searched.run, "lightgbm")
    report = json.loads((folder / "metrics.json").read_bytes())
    scores = {t["number"]: t["score"] for t in report["trials"]}
    assert sorted(scores) == list(range(SHARED_TRIALS))
    assert report["selection"]["score"] == scores[report["trial"]]
    assert not TRIAL.search(cluster_stack.shared.log("train", searched.run_id, "fit"))


def test_the_studys_address_stands_in_no_log_no_pod_and_no_database(
    cluster_stack: ClusterStack, searched: Searched
) -> None:
    password = cluster_stack.studies_password
    pods = searched.seen.names(model=SHARED)
    assert len(pods) == 3
    for name in pods:
        (container,) = searched.seen.last(name).spec.containers
        assert [source.secret_ref.name for source in container.env_from] == [STUDIES_SECRET]
    assert password not in searched.seen.text()
    logs = cluster_stack.logs()
    assert f"{SHARED}: trial" in logs
    assert password not in logs
    for database in ("airflow", "mlflow"):
        assert password not in content_of(cluster_stack, database), database
    for path in cluster_stack.stack.home.glob("store/runs/**/*"):
        assert not path.is_file() or password.encode() not in path.read_bytes(), path


def content_of(cluster_stack: ClusterStack, database: str) -> str:
    """Return every row of every table as text."""
    with closing(cluster_stack.database(database)) as connection, connection.cursor() as cursor:
        cursor.execute("select tablename from pg_tables where schemaname = 'public'")
        rows: list[str] = []
        for (table,) in cursor.fetchall():
            cursor.execute(f'select t::text from "{table}" t')
            rows += [row for (row,) in cursor.fetchall()]
    assert len(rows) > 10
    return "\n".join(rows)
