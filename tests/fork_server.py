"""The one fork server of a test process, whose children start with every heavy library in memory.

Python keeps one fork server per process, and what it imported when it started is what its children have. Were each file
to name its own libraries, the children of all later files would import theirs anew, seconds each.
"""

import multiprocessing
from multiprocessing.context import ForkServerContext

_IMPORTED = (
    "kill",
    "gradient_learner",
    "windsock.ingest.step",
    "windsock.ingest.sources.simulator",
    "windsock.completeness",
    "windsock.validate.engine",
    "windsock.validate.docs",
    "windsock.features.step",
    "windsock.features.view_sql",
    "windsock.featurestore.step",
    "windsock.featurestore.retrieval",
    "windsock.scoring.step",
    "windsock.registry.versions",
    "windsock.promotion.step",
    "mlflow",
    "windsock.search.search",
    "great_expectations.expectations",
    "feast",
    "lightgbm",
    "optuna",
    "psycopg2",
    "duckdb",
    "pyarrow.parquet",
    "pyarrow.dataset",
)


def fork_context() -> ForkServerContext:
    """Return the context whose processes and pools come from the fork server."""
    context = multiprocessing.get_context("forkserver")
    # Only imports: a fork server that had used a library's threads would fork broken children.
    context.set_forkserver_preload(list(_IMPORTED))
    return context
