"""What has become of requests for trainings: told by run folders, versions, verdicts and promotions, not by Airflow."""

import logging
from collections.abc import Mapping
from datetime import date

from windsock import promotions
from windsock.errors import DamagedRecord
from windsock.governor.policy import Answer
from windsock.ledger import DECISIONS, Ledger
from windsock.runs.run_folder import LINEAGE
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.version_index import list_versions, version_info

log = logging.getLogger(__name__)

REQUEST = "request"
"""Field of a run's lineage that holds the dedupe key of the request it answers."""
APPROVAL = "approval.json"
"""File of a run folder that says why a person was asked about its version, and it was not approved."""


def requests_since(settings: Settings, model: str, first: date) -> dict[date, str]:
    """Return day to dedupe key of the requests on record from a day on."""
    ledger = Ledger.of(settings, model, DECISIONS)
    records = ledger.records(day for day in ledger.days() if first <= day)
    return {day: record.detail["requested"] for day, record in records.items() if record.detail.get("requested")}


def training_for(settings: Settings, model: str, day: date, key: str) -> str | None:
    """Return the run folder of the training that answers a request of a day, or None if there is none."""
    store = Store.of(settings)
    # A training as of a day has a name that begins with it.
    for run in store.folders("runs", model):
        lineage = ("runs", model, run, LINEAGE)
        if run.startswith(f"{day}-") and store.exists(*lineage) and store.read_json(*lineage).get(REQUEST) == key:
            return run
    return None


def answers_to(settings: Settings, spec: ModelSpec, requests: Mapping[date, str]) -> dict[str, Answer]:
    """Return dedupe key to what has become of it, for those of the requests that have a training."""
    runs = {key: run for day, key in requests.items() if (run := training_for(settings, spec.name, day, key))}
    if not runs:
        return {}
    store = Store.of(settings)
    versions, refits = dict[str, str](), dict[str, str]()
    for known in reversed(list_versions(settings, spec)):
        try:
            info = version_info(settings, spec, known)
        except DamagedRecord as err:  # an old one must not keep every night from being decided; the doctor tells of it
            log.warning("Passed over: %s", err)
            continue
        versions[info.run] = known
        if info.refit_of:
            refits[info.refit_of] = known
        if versions.keys() >= set(runs.values()):
            break
    in_force = {entry.version: entry.in_force_from for entry in promotions.history(settings, spec)}
    found = {}
    for key, run in runs.items():
        version = versions.get(run)
        if version is not None and refits.get(version) in in_force:
            version = refits[version]  # it is in force for its twin, which was judged
        if version is None:
            found[key] = Answer("begun", run)
        elif version in in_force:
            found[key] = Answer("promoted", run, version, in_force[version])
        else:
            found[key] = _judged(store, spec.name, run, version)
    return found


def _judged(store: Store, model: str, run: str, version: str) -> Answer:
    gate, approval = (("runs", model, run, name) for name in ("gate.json", APPROVAL))
    if store.exists(*gate) and store.read_json(*gate).get("passed") is not True:
        return Answer("refused", run, version)
    if store.exists(*approval):
        return Answer("refused", run, version, why=str(store.read_json(*approval)["why"]))
    return Answer("trained", run, version)


def note_no_approval(settings: Settings, spec: ModelSpec, version: str, why: str) -> None:
    """Keep why a version that passed the gate was not approved: its request is answered, and the next may be made."""
    run = version_info(settings, spec, version).run
    Store.of(settings).write_json({"version": version, "why": why}, "runs", spec.name, run, APPROVAL)


def forget_no_approval(settings: Settings, spec: ModelSpec, version: str) -> None:
    """Take that back: a person is asked again."""
    Store.of(settings).remove("runs", spec.name, version_info(settings, spec, version).run, APPROVAL)


def overtaken(settings: Settings, model: str, as_of: date, key: str) -> str | None:
    """Say why a request that has waited should not start a training any more, or return None."""
    if (run := training_for(settings, model, as_of, key)) is not None:
        return f"training {run} answers this request already"
    newer = [day for day in requests_since(settings, model, as_of) if day > as_of]
    return f"a newer request, of {max(newer)}, stands in its place" if newer else None


def later_nights_ask(settings: Settings, spec: ModelSpec, day: date) -> bool:
    """Say whether nights beyond the pause after a request have been decided: then it is for them to ask."""
    decided = Ledger.of(settings, spec.name, DECISIONS).days()
    return bool(decided) and (decided[-1] - day).days >= spec.retraining.recovery_days
