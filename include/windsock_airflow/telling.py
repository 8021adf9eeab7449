"""Telling people of a task's result: where it ran, and the links to its pages."""

import logging
from collections.abc import Mapping
from typing import Any

from windsock.settings import Settings
from windsock_airflow.runs import RunFacts, run_url

log = logging.getLogger(__name__)

_LINKS = {"mlflow": "Version in MLflow", "report": "Report"}


def tell_of_result(
    model: str, step: str, result: dict[str, Any], facts: RunFacts, task_id: str, links: Mapping[str, str]
) -> None:
    """Tell people what they must know of a live run's result; whatever goes wrong there, the step is done."""
    if not facts.live:
        return
    try:
        from windsock.messages import tell

        settings = Settings.from_env()
        tell(
            settings,
            model,
            step,
            result,
            dag_id=facts.dag_id,
            task_id=task_id,
            run_id=facts.run_id,
            day=facts.key,
            url=run_url(settings, facts.dag_id, facts.run_id, task_id),
            links=tuple((_LINKS[name], url) for name, url in links.items()),
        )
    except Exception as err:
        log.warning("People could not be told of this result: %s: %s", type(err).__name__, err)
