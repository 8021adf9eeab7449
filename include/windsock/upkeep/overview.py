"""How the days of a model stand: for people (``windsock models``, ``status``, ``doctor``), by the store alone."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from windsock.days import ONE_DAY, spans
from windsock.errors import WindsockError
from windsock.redact import redact_line
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.store import Store
from windsock.upkeep.stage_days import StageDays, days_of_stages
from windsock.upkeep.waits import Wait, waits_of

_LONGEST_LIST, _MOST_LINES = 200, 5


@dataclass(frozen=True)
class DaysOfModel:
    """The days of a model."""

    model: str
    yesterday: str
    stages: tuple[StageDays, ...] = ()
    waits: tuple[Wait, ...] = ()
    """Runs that wait, longest first."""
    fault: str = ""
    """Why it is not known how the days stand, if so."""

    def gaps(self) -> list[str]:
        """Say which days are lacking, stage by stage; nothing if none is."""
        found = ((days.stage, [*days.beyond, *days.lacking]) for days in self.stages)
        return [f"{stage} of {len(days)} days: {_short(spans(days))}" for stage, days in found if days]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        stages = {
            days.stage: {
                "last": str(days.last) if days.last else None,
                "lacking": spans(days.lacking),
                "beyond": spans(days.beyond),
            }
            for days in self.stages
        }
        waits = [asdict(wait) for wait in self.waits]
        return {"yesterday": self.yesterday, "stages": stages, "waits": waits, "fault": self.fault}


def days_of_model(settings: Settings, spec: ModelSpec, now: datetime) -> DaysOfModel:
    """Return how the days of a model stand; never raises: who asks after one model asks after others, too."""
    yesterday = str(now.date() - ONE_DAY)
    try:
        stages = tuple(days_of_stages(settings, spec, now).values())
        waits = sorted(waits_of(Store.of(settings), spec.name), key=lambda wait: wait.since)
    except WindsockError as err:
        return DaysOfModel(spec.name, yesterday, fault=str(err))
    except Exception as err:  # every kind of store has errors of its own
        return DaysOfModel(spec.name, yesterday, fault=f"{type(err).__name__}: {redact_line(err)}")
    return DaysOfModel(spec.name, yesterday, stages, tuple(waits))


def lines_about_days(days: DaysOfModel) -> list[str]:
    """Say what is not settled and who waits for what, a line each; nothing where all is well."""
    lines = [f"{days.model}: {days.fault}"] if days.fault else []
    lines += [f"{days.model}: not settled by now: {gap}" for gap in days.gaps()]
    lines += [
        f"{days.model}: {wait.step} of {wait.key} waits since {wait.since}: {wait.sentence}"
        for wait in days.waits[:_MOST_LINES]
    ]
    more = len(days.waits) - _MOST_LINES
    return [*lines, f"{days.model}: {more} more runs wait"] if more > 0 else lines


def models_without_spec(store: Store, known: set[str]) -> list[str]:
    """List the models of which days stand in the store, but that no spec is of: renamed, or removed."""
    return [name for name in store.folders() if name not in known and "ledger" in store.folders(name)]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_LIST else f"{text[:_LONGEST_LIST].rpartition(',')[0]} and more"
