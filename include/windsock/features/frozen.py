"""The definitions that a model version carries: ``definitions.json`` in its run folder, and in the index of versions.

Scoring, monitoring, the gate and the online store compute a version's features by these, never by ``model.yaml``, which
only says what the next training wants. The file is small and has a format of its own, so that nothing that changes in
the spec later stops a version of today. Runs of version 0.1 have none: theirs are in their lineage.
"""

from collections.abc import Mapping
from typing import Any

from windsock.column_types import ARROW_TYPES, widens
from windsock.errors import SpecError
from windsock.features.definition import columns_read, definition_hash, reads_labels
from windsock.format_numbers import numbered
from windsock.ingest.kept import lacking_columns
from windsock.ledger import DayRecord
from windsock.living_versions import read_definitions
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.modelling import FeaturesSpec
from windsock.store import Store
from windsock.version_index import version_info

_OF_VIEW = ("name", "entity", "lookback_days", "ttl_days", "as_of")


def definitions_of(spec: ModelSpec) -> dict[str, Any]:
    """Return the content of ``definitions.json``: what a version of this spec computes its features by."""
    views = [
        {
            **{field: getattr(view, field) for field in _OF_VIEW},
            "file": view.sql,
            "sql": spec.sql_of(view),
            "definition": definition_hash(spec, view),
        }
        for view in spec.features.views
    ]
    return numbered(
        "feature definitions",
        {
            "row": [[name, expression] for name, expression in spec.features.row.items()],  # the order is the model's
            "views": views,
            "entities": dict(spec.entities),
            "label": spec.label.column,
            "columns": [[name, kind] for name, kind in spec.events.columns.items()],
            "reads": sorted({*columns_read(spec), *spec.entities.values(), spec.events.key, spec.events.time}),
        },
    )


def spec_of_version(settings: Settings, spec: ModelSpec, version: str) -> ModelSpec:
    """Return the spec with the definitions of a registered version: what its features are computed by.

    Raises:
        SpecError: There is no such version, or its definitions are gone or of a format that this version cannot read.
    """
    info = version_info(settings, spec, version)
    return with_definitions(spec, read_definitions(settings.store, info))


def with_definitions(spec: ModelSpec, frozen: Mapping[str, Any]) -> ModelSpec:
    """Return the spec with other definitions: features, entities and the columns that there were.

    A column that has been widened since is read as wide as it is now; one that is not declared any more is read as it
    was. Facts (when labels become known, what was delivered when) and everything about training stay the spec's.

    Raises:
        SpecError: The spec names another key or time of events, which is another model, or another label than the
            version's views read.
    """
    for field in (spec.events.key, spec.events.time):
        if field not in dict(frozen["columns"]):
            raise SpecError(
                f"{spec.folder / 'model.yaml'}: {field!r} is the key or the time of events now, but registered "
                "versions know no such column. Take that back, or make it a model of another name. A column that "
                "the source has renamed keeps its name here: write `from:` with the new one."
            )
    then = {
        "features": FeaturesSpec.model_validate(
            {
                "row": dict(frozen["row"]),
                "views": [
                    {**{f: view[f] for f in _OF_VIEW if f in view}, "sql": view["file"]} for view in frozen["views"]
                ],
            }
        ),
        "entities": dict(frozen["entities"]),
        "events": spec.events.with_columns(dict(frozen["columns"])),
    }
    texts = {view["file"]: view["sql"] for view in frozen["views"]}
    then["label"] = spec.label.model_copy(update={"column": frozen["label"]})
    as_it_was = spec.frozen(texts, {}, **then)
    reading = [view.name for view in as_it_was.features.views if reads_labels(as_it_was, view)]
    if frozen["label"] != spec.label.column and reading:
        raise SpecError(
            f"{spec.folder / 'model.yaml'}: label.column is {spec.label.column!r} now, but registered versions read "
            f"{frozen['label']!r} in {', '.join(reading)}, and new days would not have it. Have the source keep its "
            "name, or make it a model of another name."
        )
    names = {
        view.name: given.get("definition") or definition_hash(as_it_was, view)
        for view, given in zip(as_it_was.features.views, frozen["views"], strict=True)
    }
    now, columns = spec.events.columns, dict(frozen["columns"])
    for name, kind in columns.items():
        if name in now and widens(ARROW_TYPES[kind], ARROW_TYPES[now[name]]):
            columns[name] = now[name]
    if (delivered := spec.events.delivered_at) is not None:
        columns.setdefault(delivered, now[delivered])
    return as_it_was.frozen(texts, names, events=spec.events.with_columns(columns), label=spec.label)


def require_columns(store: Store, spec: ModelSpec, record: DayRecord, by: str) -> None:
    """Refuse to compute a version's features of a day that lacks a column which they read: NULL would be no truth.

    Args:
        store: Where the day lies.
        spec: The spec with the version's definitions.
        record: The day's record of ingest.
        by: Who needs the features, for the message.

    Raises:
        SpecError: A column is lacking, and the spec does not say that it was not there yet.
    """
    absent = set(lacking_columns(store, spec, record)) & set(columns_read(spec))
    declared = spec.events.declared
    wrong = sorted(n for n in absent if (since := declared[n].since) is None or record.day >= since)
    if wrong:
        raise SpecError(
            f"{spec.name}: {by} reads {', '.join(wrong)}, which the rows of {record.ds} do not have. Have the source "
            f"deliver it, or say `from:` which column it is now; then ingest {record.ds} again. Or train and promote a "
            "version without it."
        )
