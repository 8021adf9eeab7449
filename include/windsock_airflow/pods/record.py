"""What the next process that watches a task's pod must know.

Kept in Airflow's task state store, which outlives processes, reschedules and retries of
the task instance. It is written before what it announces is done, so that a process
killed in between leaves a plan that its successor carries out.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

_KEY = "windsock_pod"


@dataclass
class PodRecord:
    """The record of one task instance; its fields are what is stored."""

    number: int = 0
    """Of the pod, part of its name; grows by one with each pod that is done with."""
    made: bool = False
    """Whether the pod of this number has been made."""
    namespace: str = ""
    """Where it was made."""
    memory: str = ""
    """What the next pod gets instead of what was asked for, after one ran out."""
    try_number: int = 0
    max_tries: int = -1
    """Airflow raises it when somebody clears the task."""
    interruptions: int = 0
    """Pods lost in this try through no fault of theirs."""
    waiting_since: float | None = None
    """Since when the cluster has had no place for it; UTC seconds."""
    not_ready_since: float | None = None
    """Since when the step has said that its input is not there; UTC seconds."""

    def __post_init__(self) -> None:
        self.cleared = False
        """Whether the task was cleared since the record was written: it begins afresh, the pod's number aside."""
        self._store: Any = None

    @classmethod
    def of(cls, context: Any) -> PodRecord:
        """Read the record of the context's task instance, or begin one."""
        store, ti = context.get("task_state_store"), context["ti"]
        kept = (store.get(_KEY) if store is not None else None) or {}
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
            self._store.set(_KEY, asdict(self))

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
