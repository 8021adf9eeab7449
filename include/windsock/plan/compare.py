"""A model's plan, put together: its spec and what it is compared with, what the store holds, and what is refused."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from windsock.errors import DataContractError, NotReady, SpecError
from windsock.features.definition_checks import refuse_faulty
from windsock.features.feature_tables import feature_table, feature_tables
from windsock.ingest.gaps import ColumnGap
from windsock.ingest.kept import derivable_since
from windsock.lint import lint_model
from windsock.plan.base import Revision
from windsock.plan.change import NEXT_TRAINING, Change, Days, ModelPlan
from windsock.plan.columns import column_changes, column_gaps, newest_delivery
from windsock.plan.days import days_to_compute
from windsock.plan.fields import field_changes, file_changes, first_day_changes
from windsock.plan.labels import label_changes
from windsock.plan.probe import probe_source
from windsock.plan.report import say_days
from windsock.plan.standing import Standing, read_standing
from windsock.plan.values import with_values
from windsock.plan.views import row_changes, short_definition, view_changes
from windsock.settings import Settings
from windsock.spec import ModelSpec, load_spec
from windsock.store import Store


@dataclass(frozen=True)
class Looks:
    """What a plan looks at besides specs, git and records."""

    values: bool = False
    """The newest full day, computed as it was and as it is."""
    suite: bool = False
    """The last raw days, judged by the rules as they are."""
    probe: int = 0
    """Published days that are fetched from the source and compared."""


SPECS_ALONE = Looks()


def plan_model(
    settings: Settings, name: str, path: Path | None, was: Revision, *, named: bool, looks: Looks = SPECS_ALONE
) -> ModelPlan:
    """Say what an edit of one model means.

    Args:
        settings: Lead to the store.
        name: The model.
        path: Its ``model.yaml``; None: there is none any more.
        was: The models as they were.
        named: Whether that revision was asked for by name: then a model that it lacks is new, and else it is compared
            with the definitions of its champion, if it has one.
        looks: What else to look at.

    Raises:
        SpecError: The store is of a format that this version does not know.
    """
    notes = [f"git was not asked: {was.why_not}"] if was.why_not else []
    base, spec, faults = _base(name, was, notes), None, list[str]()
    if path is not None:
        try:
            spec = load_spec(path)
        except SpecError:
            faults = lint_model(name, path).faults
    if (known := spec or base) is None:
        return _unusable(settings, name, was.said, faults, notes)
    same = spec is None or base is None or _rests_on(spec) == _rests_on(base)
    standing = read_standing(settings, known if same or base is None else base)
    said = was.said
    if base is None and not named and standing.own is not None and standing.champion is not None:
        base, said = standing.own, f"the definitions of champion {standing.champion.version}"
        notes.append("features, entities and columns are compared, nothing else")
    changes, days = list[Change](), list[Days]()
    if path is None:
        changes = [_gone(name, standing)]
    elif spec is None:
        changes = [_refusals(name, faults)]
    else:
        days, gaps = _lacking(settings, spec, base, notes) if same and not standing.unread else ([], [])
        delivered = newest_delivery(settings, spec, standing) if same and not standing.unread else ()
        changes += _changes(base, spec, standing, days, gaps, delivered)
        changes += _refused(settings, base, spec, path, standing)
        changes += _champion_stops(standing)
        if looks.values and not standing.unread and same:
            changes, day = with_values(settings, base, spec, changes, standing.ingested)
            notes.append(day)
        if looks.suite and not standing.unread and same:
            from windsock.plan.suite import try_suite  # brings Great Expectations

            notes += try_suite(settings, spec, standing.ingested)
        if looks.probe and not standing.unread and same:
            notes += probe_source(settings, spec, standing.ingested, looks.probe)
        if spec.retention.raw_days is not None and standing.ingested and same:
            notes.append(_derivable(settings, spec))
    if standing.unread:
        notes.append(f"{standing.unread}: this plan is from the specs alone, without days, values and champion")
    return ModelPlan(
        model=name,
        against=said if base is not None else f"{said}, where there is no {name}" if said else "nothing",
        store=Store.of(settings).url(),
        newest_day=standing.newest_day,
        champion=standing.champion.version if standing.champion is not None else None,
        challenger=standing.challenger,
        changes=tuple(changes),
        days=tuple(days),
        goes_on=tuple(_goes_on(standing)) if path is not None else (),
        notes=(*notes, *standing.notes),
    )


def _derivable(settings: Settings, spec: ModelSpec) -> str:
    """Say how far back days can be derived again, where deliveries are not kept for ever."""
    first = derivable_since(Store.of(settings), spec)
    kept = f"deliveries are kept for {spec.retention.raw_days} days (retention.raw_days)"
    if first is None:
        return f"{kept}: no published day can be derived again, unless it is delivered again"
    return f"{kept}: the first day that can be derived again is {first}; earlier ones must be delivered again"


def _base(name: str, was: Revision, notes: list[str]) -> ModelSpec | None:
    """Return a model as it was, if it was and can be read; add to ``notes`` why it cannot."""
    if name not in was.specs:
        return None
    try:
        return load_spec(was.specs[name])
    except SpecError as err:
        why = str(err).replace(f"{was.specs[name].parent}/", "").replace("\n", " ")
        notes.append(f"{name} at {was.said} is not compared with, as it does not load: {why}")
        return None


def _lacking(
    settings: Settings, spec: ModelSpec, base: ModelSpec | None, notes: list[str]
) -> tuple[list[Days], list[ColumnGap]]:
    """Return what the next training lacks; add to ``notes`` why that cannot be said."""
    try:
        return days_to_compute(settings, spec, base), column_gaps(settings, spec)
    except (NotReady, DataContractError) as err:
        notes.append(f"no days are counted: {err}")
    except SpecError:
        notes.append("no days are counted, as a view does not run")
    return [], []


def _changes(
    base: ModelSpec | None,
    spec: ModelSpec,
    standing: Standing,
    days: Sequence[Days],
    gaps: Sequence[ColumnGap],
    delivered: Sequence[str],
) -> Iterator[Change]:
    if base is None:
        views = ", ".join(view.name for view in spec.features.views) or "no views"
        first = f"begin with a backfill of {spec.name}_ingest from {spec.first_day} on" if not standing.ingested else ""
        yield Change("+", f"model {spec.name}", effect="new DAGs", notes=tuple(filter(None, (views, first))))
        return
    lacking = {each.table: (say_days(each),) for each in days}
    for change in view_changes(base, spec):
        view = change.part.removeprefix("view ")
        yield replace(change, notes=(*change.notes, *lacking.get(f"{view}@{change.after}", ())))
    yield from row_changes(base, spec)
    yield from column_changes(base, spec, standing, gaps, delivered)
    yield from label_changes(base, spec, standing, days)
    yield from first_day_changes(base, spec, standing)
    yield from field_changes(base, spec)
    if base.folder != spec.folder:
        yield from file_changes(base, spec)


def _refused(
    settings: Settings, base: ModelSpec | None, spec: ModelSpec, path: Path, standing: Standing
) -> Iterator[Change]:
    """Yield what lint and the next training refuse, whether or not it is part of the edit."""
    edited = base is None or base.training != spec.training
    faults = lint_model(spec.name, path, estimators=edited).faults
    if not standing.unread and not faults:
        try:
            refuse_faulty(Store.of(settings), spec.name, feature_tables(spec))
        except SpecError as err:
            faults = str(err).splitlines()
    if faults:
        yield _refusals(spec.name, faults)


def _champion_stops(standing: Standing) -> Iterator[Change]:
    """Yield the views of the champion that could not be computed any more, which must never come from an edit."""
    if standing.champion is None or standing.own is None:
        return
    faults = []
    for view in standing.own.features.views:
        try:
            feature_table(standing.own, view)
        except SpecError as err:
            faults.append(str(err).removeprefix(f"{standing.own.folder}/"))
    if faults:
        why = tuple(f"champion {standing.champion.version} could score nothing more: {fault}" for fault in faults)
        yield Change("~", f"champion {standing.champion.version}", effect="the next day", refused=why)


def _refusals(name: str, faults: Sequence[str]) -> Change:
    return Change("~", f"model {name}", effect=NEXT_TRAINING, refused=tuple(faults))


def _gone(name: str, standing: Standing) -> Change:
    notes = [f"{len(standing.ingested)} ingested days are kept"] if standing.ingested else []
    if standing.champion is not None:
        notes.append(f"champion {standing.champion.version} is in force and will score nothing more")
    notes.append(
        "its DAGs go. Days, versions and DAGs are found by the folder's name: to keep them, give it its name back"
    )
    return Change("-", f"model {name}", effect="its chain stops", notes=tuple(notes))


def _goes_on(standing: Standing) -> Iterator[str]:
    if standing.champion is None or standing.own is None:
        return
    own, version = standing.own, standing.champion.version
    parts = [f"{view.name}@{short_definition(own, view)}" for view in own.features.views]
    parts += [f"its {len(own.features.row)} row features"] if own.features.row else []
    yield f"Champion {version} goes on with {', '.join(parts)} until another version is promoted."
    if standing.earlier is not None:
        yield f"A rollback to version {standing.earlier} stays possible."


def _unusable(settings: Settings, name: str, said: str, faults: Sequence[str], notes: Sequence[str]) -> ModelPlan:
    """Return the plan of a model that loads neither now nor as it was."""
    changes = (_refusals(name, faults),) if faults else (Change("-", f"model {name}", effect="its chain stops"),)
    return ModelPlan(name, said, Store.of(settings).url(), None, None, None, changes, (), (), tuple(notes))


def _rests_on(spec: ModelSpec) -> tuple[str, str]:
    """Return what every stored record of a model rests on."""
    return spec.events.key, spec.events.time


def models_of(specs: Mapping[str, Path], was: Revision, wanted: Sequence[str]) -> list[str]:
    """Return the models to look at: those asked for, or all that there are or were.

    Raises:
        SpecError: There is no model of a name that was asked for, nor was there one.
    """
    known = sorted({*specs, *was.specs})
    for name in wanted:
        if name not in known:
            raise SpecError.unknown("model", name, known)
    return list(dict.fromkeys(wanted)) or known
