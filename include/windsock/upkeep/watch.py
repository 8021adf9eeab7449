"""Close the gaps of a model's days, and tell a person what cannot be closed: what ``windsock_watch`` does for each.

The scheduler is asked only for days that are lacking. A day that a run is on its way for is left to it; any other is
started by a run of this watch's own, whose name says for which stage and day, so that a day is asked for once. One
that failed has said so itself, and is a person's. A run that succeeded without settling its day (somebody marked it, or
what should have followed was paused) is followed by another, twice.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Protocol

from windsock.alerts import Alert, send
from windsock.days import spans
from windsock.errors import UpstreamUnavailable, WindsockError
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.alerting import Kind
from windsock.store import Store
from windsock.upkeep.digest import tell_digest
from windsock.upkeep.stage_days import GRACE, StageDays, days_of_stages, rests_since, was_taken_out
from windsock.upkeep.told import Told
from windsock.upkeep.waits import forget, waits_of

log = logging.getLogger(__name__)

STARTED_BY = {"ingest": "ingest", "labels": "labels", "features": "features", "score": "features", "monitor": "monitor"}
"""Stage to that whose DAG settles its days. Scores follow from a run of features, which also fills the online store."""
_DAGS_OF = {**{stage: (stage,) for stage in STARTED_BY}, "score": ("features", "score")}
_MOST_RUNS = 3
ALIVE = frozenset({"queued", "running"})


@dataclass(frozen=True)
class RunState:
    """What has become of a run."""

    state: str
    ended: datetime | None = None


class Scheduler(Protocol):
    """What the watch asks of Airflow."""

    def is_paused(self, dag_id: str) -> bool:
        """Say whether a DAG is paused, or not there."""

    def days_on_their_way(self, dag_id: str) -> Mapping[str, datetime | None]:
        """Return the days (partition keys) for which a run of a DAG is queued or running, and when it began."""

    def run_state(self, dag_id: str, run_id: str) -> RunState | None:
        """Return what has become of a run; None: there is no such run."""

    def start(self, dag_id: str, run_id: str, key: str) -> None:
        """Start a live run for a day; one that is there already is no error."""


@dataclass
class _Look:
    """One look at one model."""

    settings: Settings
    spec: ModelSpec
    scheduler: Scheduler
    now: datetime
    told: Told
    stages: Mapping[str, StageDays]
    seen: frozenset[str] = frozenset()
    """Days that the look before this one found lacking, too: a clock that is wrong for a moment starts nothing."""
    moving: set[date] = field(default_factory=set)
    """Days that some run is on its way for, or that have only just been settled by the stage before."""
    started: dict[str, list[date]] = field(default_factory=dict)
    unsure: bool = False
    """Whether days are lacking that the look before this one did not find so."""

    def sure_of(self, stage: str, days: Iterable[date]) -> list[date]:
        """Keep the days that the look before this one found lacking, too."""
        days = list(days)
        sure = [day for day in days if f"{stage} {day}" in self.seen]
        self.unsure |= len(sure) < len(days)
        return sure

    def tell(
        self, stage: str, kind: Kind, headline: str, sentence: str, about: Iterable[object], day: str | None = None
    ) -> None:
        """Tell a person, once of what it is ``about``: another look that died, or that looks now, has said the same."""
        dag_id = f"{self.spec.name}_{stage}"
        url, cause = f"{self.settings.ui_url}/dags/{dag_id}", " ".join(map(str, (headline, dag_id, *about)))
        alert = Alert(dag_id, sentence, day=day, url=url, headline=headline, cause=cause, kind=kind)
        send(self.settings, alert, self.spec)


def look_after(settings: Settings, spec: ModelSpec, scheduler: Scheduler, now: datetime) -> bool:
    """Start what is lacking, tell what is to be told, and say whether more is to follow soon.

    Raises:
        WindsockError: The store cannot be read, or a record is damaged.
    """
    told, stages = Told.of(Store.of(settings), spec.name), days_of_stages(settings, spec, now)
    lacking = {f"{stage} {day}" for stage, days in stages.items() for day in (*days.lacking, *days.beyond)}
    seen = lacking.difference(told.untold("lacking", lacking))
    told.mark("lacking", lacking)
    look = _Look(settings, spec, scheduler, now, told, stages, frozenset(seen))
    for days in stages.values():
        if days.lacking or days.beyond:
            _close(look, days)
    made_up_for = _tell_what_is_made_up_for(look)
    _tell_who_waits(look)
    tell_digest(settings, spec, told, stages, now)
    told.save()
    return look.unsure or bool(look.moving & made_up_for)


def tell_fault(settings: Settings, spec: ModelSpec, err: WindsockError) -> None:
    """Tell once that a model cannot be looked after; what may be better at the next look goes to the log alone."""
    log.warning("%s: its days could not be looked after: %s", spec.name, err)
    if err.exit_code != UpstreamUnavailable.exit_code:
        told = Told.of(Store.of(settings), spec.name)
        if new := told.untold("fault", [str(err)]):
            told.mark("fault", new)
            sentence = f"The days of model {spec.name} are not looked after: {err}"
            send(settings, Alert("windsock_watch", sentence, headline="Days are not looked after"), spec)
        told.keep_the_rest()
        told.save()


def _close(look: _Look, days: StageDays) -> None:
    """Start runs for the days of a stage that nobody is on the way for, in order; nights one after another."""
    stage, model = days.stage, look.spec.name
    dags = [f"{model}_{name}" for name in _DAGS_OF[stage]]
    if paused := [dag_id for dag_id in dags if look.scheduler.is_paused(dag_id)]:
        _tell_of_pause(look, days, paused[0])
        return
    on_their_way = {key: since for dag_id in dags for key, since in look.scheduler.days_on_their_way(dag_id).items()}
    for day in days.lacking:
        rests = rests_since(look.settings, look.spec, stage, day, look.stages, look.now)
        if str(day) in on_their_way or (rests is not None and rests < GRACE):
            look.moving.add(day)
        elif rests is not None and not was_taken_out(look.settings, look.spec, stage, day):
            for sure in look.sure_of(stage, [day]):
                _start(look, stage, sure)
        if stage == "monitor" and day in look.moving:
            break  # a later night's decision counts on it
    _tell_of_late_days(look, days, on_their_way)
    _tell_of_earlier_days(look, days, on_their_way)


def _tell_of_late_days(look: _Look, days: StageDays, on_their_way: Mapping[str, datetime | None]) -> None:
    """Tell once of each day whose run began long ago and is not known to wait: it hangs, or finds no slot."""
    longest = timedelta(hours=look.spec.schedule.alert_after_hours)
    sure = look.sure_of(days.stage, days.lacking)
    late = {d: at for d in sure if (at := on_their_way.get(str(d))) is not None and look.now - at > longest}
    if not late:
        return
    said = {wait.key for wait in waits_of(Store.of(look.settings), look.spec.name)}
    for day, began in late.items():
        if str(day) not in said and (new := look.told.untold("late", [str(day)])):
            look.told.mark("late", new)
            sentence = (
                f"Its run began at {began:%Y-%m-%d %H:%M} UTC, and {days.stage} of {day} is not done after "
                f"{look.spec.schedule.alert_after_hours:g} hours (schedule.alert_after_hours). Look at its tasks: one "
                "that is queued finds no slot or worker, one that is running is slow or hangs."
            )
            look.tell(STARTED_BY[days.stage], "deadline", "Day is late", sentence, [days.stage, day, began], str(day))


def _start(look: _Look, stage: str, day: date) -> None:
    """Start a run for a day, unless one of ours is on its way or has failed."""
    dag_id = f"{look.spec.name}_{STARTED_BY[stage]}"
    for number in range(1, _MOST_RUNS + 1):
        run_id = f"catch_up__{stage}__{day}" + (f"__{number}" if number > 1 else "")
        run = look.scheduler.run_state(dag_id, run_id)
        if run is None:
            look.scheduler.start(dag_id, run_id, str(day))
            look.started.setdefault(stage, []).append(day)
        elif run.state == "failed":
            return  # its own alert has said why
        elif run.state not in ALIVE and (run.ended is None or look.now - run.ended > GRACE):
            continue
        look.moving.add(day)
        return
    if new := look.told.untold("without a result", [f"{stage} {day}"]):
        look.told.mark("without a result", new)
        sentence = (
            f"{_MOST_RUNS} runs for {day} have succeeded, and still nothing is recorded of {stage}. What is marked as "
            f"a success by hand does not run: clear the last one, {run_id}, and read its log."
        )
        look.tell(STARTED_BY[stage], "failure", "Day without a result", sentence, [stage, run_id], str(day))


def _tell_what_is_made_up_for(look: _Look) -> set[date]:
    """Say once which days are run by themselves now, those that follow included; return all that are."""
    kind = "made up for"
    lacking = sorted({day for days in look.stages.values() for day in days.lacking})
    new = look.told.untold(kind, map(str, lacking))
    started = {str(day) for days in look.started.values() for day in days}
    if started.intersection(new):
        look.told.mark(kind, new)
        runs = ", ".join(f"{stage} of {spans(days)}" for stage, days in look.started.items())
        sentence = (
            f"Days of model {look.spec.name} were not run when they were due: the machine was off, a DAG was paused, "
            f"or the clock was wrong. They are run now by themselves, in order, as live days: {runs}; the steps after "
            "them follow. Nothing need be done unless one of these runs fails."
        )
        look.tell(STARTED_BY[next(iter(look.started))], "catch_up", "Days are made up for", sentence, new)
    return {date.fromisoformat(day) for day in look.told.said.get(kind, ())}


def _tell_of_pause(look: _Look, days: StageDays, dag_id: str) -> None:
    lacking, new = look.sure_of(days.stage, [*days.beyond, *days.lacking]), look.told.untold("paused", [dag_id])
    if lacking and new:
        look.told.mark("paused", new)
        sentence = (
            f"{dag_id} is paused, and {days.stage} of {len(lacking)} days is not settled: {spans(lacking)}. The last "
            f"settled one is {days.last or 'none'}. Unpause it if that was not meant: those of the last "
            f"{look.spec.schedule.catch_up_days} days are then run by themselves."
        )
        stage = dag_id.removeprefix(f"{look.spec.name}_")
        look.tell(stage, "silence", "DAG is paused", sentence, [days.stage, *lacking])


def _tell_of_earlier_days(look: _Look, days: StageDays, on_their_way: Collection[str]) -> None:
    """Say once which days are too old to be run by themselves, with the command that runs them."""
    stage, model = days.stage, look.spec.name
    new = (date.fromisoformat(day) for day in look.told.untold(f"earlier {stage}", map(str, days.beyond)))
    left = [day for day in new if str(day) not in on_their_way and _is_left(look, stage, day)]
    left = look.sure_of(stage, left)
    if left:
        look.told.mark(f"earlier {stage}", map(str, left))
        options = {"ingest": "", "monitor": " --stage monitor"}.get(stage, " --again completed")
        sentence = (
            f"{stage} of {len(left)} days was never settled, and they are too old to be run by themselves "
            f"(schedule.catch_up_days is {look.spec.schedule.catch_up_days}): {spans(left)}. If they are wanted: "
            f"windsock backfill {model} --from {left[0]} --to {left[-1]}{options}"
        )
        look.tell(stage, "deadline", "Days are missing", sentence, left)


def _is_left(look: _Look, stage: str, day: date) -> bool:
    """Say whether a day rests though nothing holds it up."""
    rests = rests_since(look.settings, look.spec, stage, day, look.stages, look.now)
    return rests is not None and rests > GRACE and not was_taken_out(look.settings, look.spec, stage, day)


def _tell_who_waits(look: _Look) -> None:
    """Tell once of each live run that waits for longer than the spec allows; forget those that wait no more."""
    store, longest = Store.of(look.settings), timedelta(hours=look.spec.schedule.alert_after_hours)
    for wait in waits_of(store, look.spec.name):
        if wait.seconds(look.now) < longest.total_seconds():
            continue
        run = look.scheduler.run_state(wait.dag_id, wait.run_id)
        if run is None or run.state not in ALIVE:
            forget(store, look.spec.name, wait.step, wait.key)
        elif wait.live and (new := look.told.untold("waiting", [f"{wait.step} {wait.key} {wait.run_id}"])):
            look.told.mark("waiting", new)
            stage = wait.dag_id.removeprefix(f"{look.spec.name}_")
            sentence = f"It has waited since {wait.since}. {wait.sentence}"
            look.tell(stage, "deadline", "Run waits", sentence, [wait.step, wait.key, wait.since], wait.key)
