"""What all DAGs have in common: for which models they are made, names, defaults.

DAG files import this package and ``windsock.spec`` only; nothing here may import pandas,
MLflow or their like, because every task parses its DAG file again.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from airflow.sdk import get_parsing_context

from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec, load_specs
from windsock_airflow.callbacks import on_task_failure

MANY_RUNS = 1000
"""For DAGs whose runs may have to wait for earlier days: waiting must not keep those out."""


def specs_for(stage: str) -> Iterator[ModelSpec]:
    """Yield the models a DAG file of this stage makes DAGs for.

    A task's process asks for one DAG and gets its model alone. Broken specs are left out
    here; ``dags/specs.py`` reports them.
    """
    settings = Settings.from_env()
    asked = get_parsing_context().dag_id
    if asked is None:
        yield from load_specs(settings)[0].values()
    elif asked.endswith(f"_{stage}"):
        yield get_spec(settings, asked.removesuffix(f"_{stage}"))


def identity(spec: ModelSpec, stage: str, doc: str | None) -> dict[str, Any]:
    """Return the DAG arguments that only depend on model and stage.

    Args:
        spec: The model.
        stage: Name of the DAG file.
        doc: Its docstring; on call, people read it in the UI.
    """
    return {
        "dag_id": f"{spec.name}_{stage}",
        "description": (doc or "").strip().partition("\n")[0],
        "doc_md": f"{doc}\n\nModel `{spec.name}` ({spec.owner}): {spec.description}",
        "tags": [f"stage:{stage}", f"model:{spec.name}"],
        "catchup": False,
        "default_args": {
            "owner": spec.owner,
            # For services that are away for a moment; what a retry cannot mend is never retried.
            "retries": 2,
            "retry_delay": timedelta(seconds=20),
            "retry_exponential_backoff": 2,
            "max_retry_delay": timedelta(minutes=10),
            "execution_timeout": timedelta(hours=1),
            "on_failure_callback": [on_task_failure],
        },
    }
