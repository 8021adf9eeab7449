"""Many entity rows on two long views: the right rows and the memory, directly and through Feast.

Thorough runs ask for a million rows of 1.3 million, and may take 3 GB; so does ``make bench``.
"""

import importlib.util
import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples import thorough
from small_model import features_of_views, small_fraud
from windsock.features.feature_tables import feature_tables
from windsock.ledger import DayRecord, Output
from windsock.settings import Settings
from windsock.store import Store

DAYS, ROWS_A_DAY = (136 if thorough() else 45), 9_700
ASKED = 1_000_000 if thorough() else 330_000
DAY_US = 86_400_000_000

CODE = r"""
import importlib.util, json, re, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from datetime import date
from windsock.settings import Settings
from windsock.spec import get_spec
from windsock.store import Store
from windsock.sql import open_duckdb
from windsock.featurestore import definitions, retrieval
from windsock.featurestore.repo import import_feast

settings = Settings.from_env()
spec = get_spec(settings, "fraud")
store = Store.of(settings)
ledgers = {table.name: table.ledger(store) for table in retrieval.feature_tables(spec)}
records = {name: ledger.all() for name, ledger in ledgers.items()}
rng, m = np.random.default_rng(1), int(sys.argv[2])
start = (spec.first_day - date(1970, 1, 1)).days * 86_400_000_000
frame = pa.table({
    "TRANSACTION_ID": np.arange(m)[::-1],
    "event_timestamp": pa.array(start + rng.integers(0, int(sys.argv[3]) * 86_400_000_000, m), pa.timestamp("us")),
    "CUSTOMER_ID": rng.integers(0, 5_100, m), "TERMINAL_ID": rng.integers(0, 10_200, m),
})
if sys.argv[1] == "direct":
    result = retrieval.point_in_time(store, spec, frame, records)
else:
    import_feast()  # seconds once per process, not part of the join
    definitions.apply(settings)
    pins = {name: ledger.pins(records[name]) for name, ledger in ledgers.items()}
    result = retrieval.training_frame(settings, spec, frame, pins)
# Not getrusage: its peak begins at what the parent held when it started this process.
peak_mb = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
same = result.select(frame.column_names).equals(frame)
for table in retrieval.feature_tables(spec):
    history = table.open(store, records[table.name].values())
    with open_duckdb(ordered=False) as connection:
        connection.register("e", frame)
        connection.register("h", history.to_table())
        plain = connection.sql(
            f"select e.TRANSACTION_ID, {', '.join('h.' + f for f in table.features)} from e asof left join h "
            f"on e.{table.entity} = h.{table.entity} and e.event_timestamp >= h.event_timestamp order by 1 desc"
        ).to_arrow_table()
    for feature in table.features:
        same = same and result[feature].combine_chunks().equals(plain[feature].combine_chunks())
torch = ("torch" in sys.modules, importlib.util.find_spec("torch") is not None)
print(json.dumps({"peak_mb": peak_mb, "rows": result.num_rows, "same": same, "torch": torch}))
"""


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> Settings:
    """Write the days of both fraud views straight to Parquet, as ``tables.write_day`` lays them out."""
    settings, spec = small_fraud(tmp_path_factory.mktemp("many"), features=features_of_views(ttl_days=None))
    store, rng = Store.of(settings), np.random.default_rng(0)
    for number in range(DAYS):
        day = spec.first_day + timedelta(days=number)
        start = (day - date(1970, 1, 1)).days * DAY_US
        for table, entities in zip(feature_tables(spec), (5_000, 10_000), strict=True):
            times = np.sort(rng.choice(DAY_US // 1000, ROWS_A_DAY, replace=False)) * 1000 + start
            columns = [rng.integers(0, entities, ROWS_A_DAY), pa.array(times, pa.timestamp("us"))]
            for _, kind in table.columns[2:]:
                columns.append(rng.integers(0, 50, ROWS_A_DAY) if kind == "BIGINT" else rng.random(ROWS_A_DAY))
            file = f"fraud/{table.name}/ds={day}/part.parquet"
            path = Path(store.path(file))
            path.parent.mkdir(parents=True)
            pq.write_table(pa.table(columns, schema=table.schema), path)
            output = Output(ROWS_A_DAY, f"{number}", (file,))
            table.ledger(store).publish(DayRecord(day.isoformat(), "published", {table.name: output}))
    return settings


@pytest.mark.parametrize("way", ["direct", "feast"])
def test_many_rows_are_joined_as_a_plain_join_does_in_little_memory(history: Settings, way: str):
    env = {**os.environ, "WINDSOCK_HOME": str(history.home), "WINDSOCK_MODELS": str(history.models[0])}
    done = subprocess.run(
        [sys.executable, "-c", CODE, way, str(ASKED), str(DAYS + 4)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout.splitlines()[-1])

    assert measured["rows"] == ASKED
    assert measured["torch"] == [False, importlib.util.find_spec("torch") is not None], "Feast has imported torch"
    assert measured["same"], "differs from a plain DuckDB ASOF join"
    assert measured["peak_mb"] < (3_000 if thorough() else 800)
