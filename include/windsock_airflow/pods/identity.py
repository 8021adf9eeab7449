"""Whose a pod is: labels to find it by, a name that can exist only once.

The name is made from the task instance and a count, not at random: two processes that
both believe they must make the pod ask for the same name, and the cluster takes one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value

from windsock.compute.site import SiteCompute
from windsock.settings import Settings
from windsock.store import Store

PREFIX = "windsock.io/"
TASK_LABEL, INSTALLATION_LABEL = f"{PREFIX}task", f"{PREFIX}installation"
KEPT_LABEL = f"{PREFIX}settled"
"""On failed pods that were kept to be looked at: no task takes them for its own."""
_NAME_LENGTH = 63


@dataclass(frozen=True)
class TaskIdentity:
    """One task instance of one installation, tries aside."""

    installation: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int

    @classmethod
    def of(cls, context: Any, installation: str) -> TaskIdentity:
        """Read it from a task's context; ``installation`` as of :func:`installation_of`."""
        ti = context["ti"]
        index = ti.map_index if ti.map_index is not None else -1
        return cls(installation, ti.dag_id, ti.run_id, ti.task_id, index)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for this task instance."""
        return _digest("\n".join((self.installation, self.dag_id, self.run_id, self.task_id, str(self.map_index))))

    def labels(self, **shown: str) -> dict[str, str]:
        """Return the labels of this task's pods; ``shown`` are for people and for accounting of costs."""
        return {
            "app.kubernetes.io/part-of": "windsock",
            INSTALLATION_LABEL: self.installation,
            TASK_LABEL: self.digest,
            **{f"{PREFIX}{name}": label_value(text) for name, text in shown.items()},
        }

    @property
    def annotations(self) -> dict[str, str]:
        """What ``sweep`` reads to ask Airflow whether the pod is still wanted."""
        return {
            f"{PREFIX}dag-id": self.dag_id,
            f"{PREFIX}run-id": self.run_id,
            f"{PREFIX}task-id": self.task_id,
            f"{PREFIX}map-index": str(self.map_index),
        }

    def pod_name(self, words: str, number: int) -> str:
        """Return the name of this task's pod of that number; ``words`` are for people."""
        ending = f"-{self.digest[:10]}-{number}"
        head = re.sub(r"[^a-z0-9]+", "-", words.lower())[: _NAME_LENGTH - len(ending)].strip("-")
        return f"{head or 'step'}{ending}"


def installation_of(settings: Settings, site: SiteCompute) -> str:
    """Return a digest that tells installations apart which share a namespace: by their store, and the site's name."""
    url = Store.of(settings).url()
    return _digest(url if site.installation is None else f"{url}\n{site.installation}")


def label_value(text: str) -> str:
    """Return a valid label value: the text itself, or a cleaned start of it with a digest to tell it apart."""
    return make_safe_label_value(text).strip("-")  # of nothing valid, the digest alone


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
