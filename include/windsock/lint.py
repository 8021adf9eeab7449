"""Checking model specs beyond their form: does everything that they name really run?

``spec.load`` checks fields and files. Here the SQL is run on empty tables of the right
types, expressions one by one, and names and parameters are held against what takes them.
Every fault of every model is listed, each as a sentence.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from windsock.errors import SpecError, UpstreamUnavailable, did_you_mean
from windsock.settings import Settings
from windsock.spec import ModelSpec, find_specs, load_spec
from windsock.spec.estimators import Choice, CustomSpec, LightGBMSpec, TorchSpec
from windsock.spec.load import SPEC_FILE, frozen_module
from windsock.spec.modelling import FeaturesSpec

_NUMBERS = frozenset({"BIGINT", "DOUBLE", "BOOLEAN", "INT64", "BOOL"})
"""As DuckDB and Arrow call them."""
_RESERVED_NAMES = {
    "event_timestamp": "the time of each row",
    "known_at": "when a fact became known",
    "known_positive": "the evaluation's mark of known positives",
    "score": "predictions",
    "ds": "the partition",
}


@dataclass(frozen=True)
class CheckedModel:
    """What lint found in one model's folder."""

    model: str
    path: Path
    faults: list[str] = field(default_factory=list)
    note: str = ""
    """What was checked, in a few words."""
    warnings: list[str] = field(default_factory=list)
    """What a real delivery would be warned of."""


def specs_below(settings: Settings, path: Path | None = None, model: str | None = None) -> dict[str, Path]:
    """Find the spec files to check: of a path, or of the installation.

    Raises:
        SpecError: There is none, or no model of that name.
    """
    if path is None:
        found, where = find_specs(settings.models), ", ".join(map(str, settings.models))
    else:
        file, where = (path if path.is_file() else path / SPEC_FILE).absolute(), str(path)
        found = {file.parent.name: file} if file.is_file() else find_specs([path.absolute()])
    if model is not None:
        if model not in found:
            raise SpecError.unknown("model", model, found, where)
        found = {model: found[model]}
    if not found:
        raise SpecError(f"There is no {SPEC_FILE} in {where}. A model is a folder with that file in it.")
    return found


def lint_model(name: str, path: Path, data: Settings | None = None, *, estimators: bool = True) -> CheckedModel:
    """Check one spec, by itself: one broken model hides no other.

    ``data`` are settings that lead to the model's days: the newest delivery is then tried, and its views on the newest
    day that is ingested. Without
    ``estimators`` their parameters are not held against their libraries, which take seconds to import.
    """
    try:
        spec = load_spec(path)
    except SpecError as err:
        head, *lines = str(err).splitlines()
        return CheckedModel(name, path, [line.strip().removeprefix("- ") for line in lines] or [head])
    faults: list[str] = []
    types = _features(spec, faults)
    for found in (_names(spec, types), _categories(spec, types), _schedules(spec), _suite(spec)):
        faults += found
    if estimators:
        faults += _estimators(spec)
    views = len(spec.features.views)
    note = f"{len(types)} features ({len(spec.features.row)} of the row, {views} view{'s' if views != 1 else ''})"
    warnings: list[str] = []
    if data is not None and not faults:
        delivered, refused, warnings = _newest_delivery(data, spec)
        faults += refused
        note += delivered
        day, looking_ahead = try_on_newest_day(data, spec)
        faults += looking_ahead
        note += f"; views tried on {day}" if day is not None else "; views were not tried: no day is ingested yet"
    return CheckedModel(name, path, faults, note, warnings)


def _newest_delivery(settings: Settings, spec: ModelSpec) -> tuple[str, list[str], list[str]]:
    """Return a note on the newest delivery at the model's source, why it would be refused, and warnings."""
    from windsock.ingest.trial import try_newest_delivery

    try:
        note, faults, warnings = try_newest_delivery(settings, spec)
    except (SpecError, UpstreamUnavailable) as err:
        return "", [f"source: {err}"], []
    return f"; {note}" if note else "", faults, warnings


def _features(spec: ModelSpec, faults: list[str]) -> list[tuple[str, str, str]]:
    """Return every feature that runs, as (name, type, where it is declared); add what does not run to ``faults``."""
    from windsock.features.feature_tables import feature_table
    from windsock.features.frame import event_frame
    from windsock.features.sql_rules import row_faults, view_faults
    from windsock.features.view_sql import compute_view
    from windsock.store import Store

    found: list[tuple[str, str, str]] = []
    refused = row_faults(spec)
    faults += [f"features.row.{name}: {fault}" for name, fault in refused.items()]
    for name, expression in spec.features.row.items():
        if name in refused:
            continue
        alone = spec.model_copy(update={"features": FeaturesSpec(row={name: expression})})
        try:
            kind = event_frame(Store("."), alone, []).schema.types[-1]  # by place: the name may be a column's too
            found.append((name, str(kind).upper(), "features.row"))
        except SpecError as err:
            faults.append(f"features.row.{name}: {str(err).rpartition('does not run: ')[2]}")
    for view in spec.features.views:
        try:
            faults += [f"{view.sql}: view {view.name!r}: {fault}" for fault in view_faults(spec, view)]
            table = feature_table(spec, view)
            compute_view(spec, view, None, None, spec.first_day)  # the very SQL that the step runs
            found += [(name, kind, f"view {view.name}") for name, kind in table.columns if name in table.features]
        except SpecError as err:
            faults.append(str(err).removeprefix(f"{spec.folder}/"))
    return found


def try_on_newest_day(settings: Settings, spec: ModelSpec) -> tuple[date | None, list[str]]:
    """Try every view on the newest day that is ingested; return that day, if any, and each view that looks ahead."""
    from windsock.features.inputs import Seen, inputs_of_day
    from windsock.features.look_ahead import find_look_ahead
    from windsock.ledger import Ledger
    from windsock.store import Store

    ingested = Ledger.of(settings, spec.name, "ingest")
    full = (day for day in reversed(ingested.days()) if (r := ingested.get(day)) is not None and r.rows("events"))
    if (day := next(full, None)) is None:
        return None, []
    store, faults = Store.of(settings), list[str]()
    seen = Seen.of(settings, spec, day, spec.features.lookback_days)
    for view in spec.features.views:
        events, labels = inputs_of_day(spec, view, day, seen.events, seen.labels).read(store, spec)
        if (found := find_look_ahead(spec, view, events, labels, day)) is not None:
            faults.append(f"{view.sql}: view {view.name!r}: {found}")
    return day, faults


def _names(spec: ModelSpec, types: list[tuple[str, str, str]]) -> Iterator[str]:
    counts = Counter(name.casefold() for name, _, _ in types)
    for name, _, _ in types:
        if counts.pop(name.casefold(), 0) > 1:
            places = ", ".join(sorted({where for n, _, where in types if n.casefold() == name.casefold()}))
            yield f"several features are named {name!r} ({places}): rename all but one."
    taken = {
        **_RESERVED_NAMES,
        spec.events.key: "the key",
        spec.label.column: "the label",
        **{column: f"the {entity} entity" for entity, column in spec.entities.items()},
    }
    for name, _, where in types:
        if name in taken:
            yield f"{where}: feature {name!r} has the name of {taken[name]}. Choose another name."


def _categories(spec: ModelSpec, types: list[tuple[str, str, str]]) -> Iterator[str]:
    names = [name for name, _, _ in types]
    for name in spec.training.categorical:
        if name not in names:
            yield f"training.categorical names {name!r}, which is no feature.{did_you_mean(name, names)}"
    for name, kind, where in types:
        if kind not in _NUMBERS and name not in spec.training.categorical:
            yield f"{where}: feature {name!r} is of type {kind}, no number: list it in training.categorical or cast it."


def _estimators(spec: ModelSpec) -> Iterator[str]:
    for estimator in spec.training.estimators:
        if isinstance(estimator, CustomSpec):
            yield from _program(spec, estimator)
            continue
        for name, space in estimator.search.items():
            place = f"training.estimators: {estimator.name}.search.{name}"
            if isinstance(space, Choice):
                continue
            if space.low >= space.high:
                yield f"{place}: low {space.low} is not below high {space.high}."
            if space.log and space.low <= 0:
                yield f"{place}: a logarithmic range must start above 0, not at {space.low}."
        if isinstance(estimator, LightGBMSpec):
            yield from _lightgbm_parameters(estimator)
        elif isinstance(estimator, TorchSpec) and estimator.module is not None:
            try:
                frozen_module(spec, estimator)
            except SpecError as err:
                yield str(err).removeprefix(f"{spec.name}: ")


def _program(spec: ModelSpec, estimator: CustomSpec) -> Iterator[str]:
    if estimator.compute.image is not None:
        return  # what an image holds is not known here
    for part in estimator.command:
        if part.endswith((".py", ".sh")) and not Path(part).is_absolute() and not (spec.folder / part).is_file():
            yield f"training.estimators: {estimator.name}.command names {part!r}, which is not in {spec.folder}."


def _lightgbm_parameters(estimator: LightGBMSpec) -> Iterator[str]:
    from lightgbm.basic import _ConfigAliases

    from windsock.learners.booster import own_params

    aliases: dict[str, list[str]] = _ConfigAliases._get_all_param_aliases()
    known = set(aliases).union(*aliases.values())
    for part, names in (("params", estimator.params), ("search", estimator.search)):
        for name in names:
            if name not in known:
                yield (
                    f"training.estimators: {estimator.name}.{part}: LightGBM has no parameter {name!r}."
                    f"{did_you_mean(name, known)}"
                )
    try:
        own_params(estimator)
    except SpecError as err:
        yield str(err)


def _schedules(spec: ModelSpec) -> Iterator[str]:
    from croniter import croniter  # type: ignore[import-untyped]

    for name, expression in spec.schedule:
        if isinstance(expression, str) and not croniter.is_valid(expression):
            yield f"schedule.{name}: {expression!r} is no cron expression. Five fields, for example '30 0 * * *'."


def _suite(spec: ModelSpec) -> Iterator[str]:
    from windsock.validate.suites import expectations_of

    try:
        expectations_of(Settings.from_env(), spec)
    except SpecError as err:
        yield str(err).removeprefix(f"{spec.folder}/")
