"""Who waits for what: one small record per run that waits, beside the ledger, so that nobody has to ask Airflow.

A step that is not ready notes the sentence that it also writes into its log; the note goes when it runs, or gives up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from windsock.days import utc_now
from windsock.errors import DamagedRecord
from windsock.format_numbers import numbered
from windsock.store import Store

_FOLDER = "waits"


@dataclass(frozen=True)
class Wait:
    """A run that waits."""

    step: str
    key: str
    """The day that it is for."""
    dag_id: str
    run_id: str
    live: bool
    sentence: str
    """What is missing, and what to do about it."""
    since: str = ""
    """When this was first said."""

    def seconds(self, now: datetime) -> float:
        """Return how long it has waited."""
        return (now - datetime.fromisoformat(self.since)).total_seconds()


def note(store: Store, model: str, wait: Wait) -> None:
    """Note that a run waits; what is noted of it already stays, but for another sentence."""
    parts = _parts(model, wait.step, wait.key)
    known = _read(store, *parts)
    same = known is not None and known.run_id == wait.run_id
    if same and known is not None and known.sentence == wait.sentence:
        return
    since = known.since if same and known is not None else utc_now().isoformat(timespec="seconds")
    store.write_json(numbered("wait", {**vars(wait), "since": since}), *parts)


def forget(store: Store, model: str, step: str, key: str) -> None:
    """Take a note away; none is no error."""
    store.remove(*_parts(model, step, key))


def waits_of(store: Store, model: str) -> Iterator[Wait]:
    """Yield the waits of a model, by step and day."""
    for step in store.folders(model, _FOLDER):
        for key in store.json_names(model, _FOLDER, step):
            if (wait := _read(store, *_parts(model, step, key))) is not None:
                yield wait


def _parts(model: str, step: str, key: str) -> tuple[str, ...]:
    return model, _FOLDER, step, f"{key}.json"


def _read(store: Store, *parts: str) -> Wait | None:
    """Return a note; None if there is none, or none that can be read: the next look writes it anew."""
    try:
        return store.as_record("wait", Wait, store.read_json(*parts), *parts)
    except (FileNotFoundError, DamagedRecord):
        return None
