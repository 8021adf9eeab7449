"""Whose a pod is, and what the next process that watches it must know.

Labels are there to find a pod by. Its name is made from the task instance and a count, not at random: two processes
that both believe they must make the pod ask for the same name, and the cluster takes one.
"""

import hashlib
import re
import time
import uuid
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from windsock.compute import SiteCompute
from windsock.settings import Settings
from windsock.store import Store

PREFIX = "windsock.io/"
TASK_LABEL, INSTALLATION_LABEL = f"{PREFIX}task", f"{PREFIX}installation"
KEPT_LABEL = f"{PREFIX}settled"
"""On failed pods that were kept to be looked at: no task takes them for its own."""
NAME_VARIABLE = "windsock_installation"
"""Airflow's variable that holds the name of this Airflow: made once in each Airflow's own database."""
ABOUT_NAME = "Tells this Airflow's pods from those of another one on the same store; made once, never changed."
_NAME_LENGTH = 63
_RECORD_KEY = "windsock_pod"


@dataclass(frozen=True)
class TaskIdentity:
    """One task instance of one installation, tries aside."""

    installation: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int

    @classmethod
    def of(cls, context: Any, installation: str) -> Self:
        """Read it from a task's context; ``installation`` as of :func:`installation_of`."""
        ti = context["ti"]
        index = ti.map_index if ti.map_index is not None else -1
        return cls(installation, ti.dag_id, ti.run_id, ti.task_id, index)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for this task instance."""
        return _digest("\n".join((self.installation, self.dag_id, self.run_id, self.task_id, str(self.map_index))))

    def labels(self, **descriptive: str) -> dict[str, str]:
        """Return the labels of this task's pods; ``descriptive`` ones are for people and for accounting of costs."""
        return {
            "app.kubernetes.io/part-of": "windsock",
            INSTALLATION_LABEL: self.installation,
            TASK_LABEL: self.digest,
            **{f"{PREFIX}{name}": label_value(text) for name, text in descriptive.items()},
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


@dataclass
class PodRecord:
    """What Airflow's task state store, which outlives processes and retries, keeps of one task instance's pods.

    It is written before what it announces is done: a process killed in between leaves a plan for its successor.
    """

    number: int = 0
    """Of the pod, part of its name; grows by one with each pod that is done with."""
    made: bool = False
    namespace: str = ""
    """Where the pod of this number was made."""
    memory: str = ""
    """What the next pod gets instead of what was asked for, after one ran out."""
    try_number: int = 0
    installation: str = ""
    """Whose the pod of this number is; empty: it was made by a version that knew stores only."""
    max_tries: int = -1
    """Airflow raises it when somebody clears the task."""
    interruptions: int = 0
    """Pods lost in this try through no fault of theirs."""
    waiting_since: float | None = None
    """Since when the cluster has had no place for it; UTC seconds."""
    not_ready_since: float | None = None
    """Since when the step has said that its input is not there; UTC seconds."""
    cleared: bool = False
    """Whether the task was cleared since the record was written: it begins afresh, the pod's number aside."""

    def __post_init__(self) -> None:
        self._store: Any = None

    @classmethod
    def of(cls, context: Any) -> Self:
        """Read the record of the context's task instance, or begin one."""
        store, ti = context.get("task_state_store"), context["ti"]
        kept = (store.get(_RECORD_KEY) if store is not None else None) or {}
        record = cls(**{f.name: kept[f.name] for f in fields(cls) if f.name in kept})
        record._store = store
        try_number, max_tries = int(ti.try_number), int(getattr(ti, "max_tries", 0) or 0)
        record.cleared = record.max_tries not in {-1, max_tries}
        if record.cleared:
            record.waiting_since = record.not_ready_since = None
        if record.try_number != try_number:
            record.interruptions = 0
        record.try_number, record.max_tries = try_number, max_tries
        return record

    def save(self) -> None:
        """Write it to the state store."""
        if self._store is not None:
            self._store.set(_RECORD_KEY, asdict(self))

    def waited(self, since: Literal["waiting_since", "not_ready_since"]) -> float:
        """Return for how many seconds the task has waited for the cluster, or for its input, now included."""
        setattr(self, since, getattr(self, since) or time.time())
        self.save()
        return time.time() - float(getattr(self, since))

    def stop_waiting(self) -> None:
        """Note that the cluster has found a place."""
        if self.waiting_since is not None:
            self.waiting_since = None
            self.save()

    def next_pod(self) -> None:
        """Note that the pod is done with, before it is deleted: the next one gets another name."""
        self.number, self.made = self.number + 1, False
        self.save()


def installation_of(settings: Settings, site: SiteCompute, airflow: str = "") -> str:
    """Return a digest that tells installations apart which share a namespace: by store, site's name and Airflow.

    Without an ``airflow`` it is what pods had that were made before each Airflow had a name.
    """
    return _digest("\n".join(filter(None, (Store.of(settings).url(), site.installation, airflow))))


def name_of_airflow() -> str:
    """Return, within a task, the name by which this Airflow's pods are told from those of another on the same store."""
    from airflow.sdk import Variable

    if (name := Variable.get(NAME_VARIABLE, default=None)) is None:
        # No scheduler has begun to look after pods yet, which makes it: a model has only now been moved to pods.
        Variable.set(NAME_VARIABLE, new_name(), description=ABOUT_NAME)
        name = Variable.get(NAME_VARIABLE)
    return str(name)


def new_name() -> str:
    """Return a name that no other Airflow has."""
    return uuid.uuid4().hex


def label_value(text: str) -> str:
    """Return a valid label value: the text itself, or a cleaned start of it with a digest to tell it apart."""
    from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value  # brings the Kubernetes client

    return make_safe_label_value(text).strip("-")  # of nothing valid, the digest alone


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
