"""The definitions that a model version carries: ``definitions.json`` in its run folder, and in the index of versions.

Scoring, monitoring, the gate and the online store compute a version's features by these, never by ``model.yaml``, which
only says what the next training wants. The file is small and has a format of its own, so that nothing that changes in
the spec later stops a version of today. Runs of version 0.1 have none: theirs are in their lineage.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from windsock.column_types import ARROW_TYPES, widens
from windsock.errors import SpecError
from windsock.features.definition import columns_read, definition_hash
from windsock.format_numbers import numbered, taken
from windsock.runs.run_folder import DEFINITIONS, LINEAGE, RunFolder
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.modelling import FeaturesSpec
from windsock.store import Store
from windsock.version_index import VersionInfo, version_info

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
    return with_definitions(spec, _definitions(settings.store, info))


def with_definitions(spec: ModelSpec, frozen: Mapping[str, Any]) -> ModelSpec:
    """Return the spec with other definitions: features, entities and the columns that there were.

    A column that has been widened since is read as wide as it is now; one that is not declared any more is read as it
    was. Facts (when labels become known, what was delivered when) and everything about training stay the spec's.
    """
    then = {
        "features": FeaturesSpec.model_validate(
            {
                "row": dict(frozen["row"]),
                "views": [{**{f: view.get(f) for f in _OF_VIEW}, "sql": view["file"]} for view in frozen["views"]],
            }
        ),
        "entities": dict(frozen["entities"]),
        "events": spec.events.with_columns(dict(frozen["columns"])),
    }
    texts = {view["file"]: view["sql"] for view in frozen["views"]}
    as_it_was = spec.frozen(texts, {}, **then)
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
    return as_it_was.frozen(texts, names, events=spec.events.with_columns(columns))


@lru_cache(maxsize=64)
def _definitions(root: str, info: VersionInfo) -> Mapping[str, Any]:
    folder = RunFolder.named(Store(root.rstrip("/")), info.model, info.run)
    if info.definitions:
        return taken("feature definitions", info.definitions, f"version {info.version} of {info.model}")
    if folder.exists(DEFINITIONS):
        return taken("feature definitions", folder.read_json(DEFINITIONS), folder.url(DEFINITIONS))
    lineage = folder.read_json(LINEAGE)
    if "spec" not in lineage:
        raise SpecError(
            f"{folder.url(LINEAGE)}: does not say by which features version {info.version} of {info.model} was made. "
            "Restore the file, or train and register the model again."
        )
    return _of_lineage(lineage)


def _of_lineage(lineage: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a run of version 0.1 says of its definitions; the order of row features is in its list."""
    spec, order = lineage["spec"], list(lineage["features"])
    row, views = spec["features"].get("row", {}), spec["features"].get("views", ())
    return {
        "row": [[name, row[name]] for name in sorted(row, key=order.index)],
        "views": [{**view, "file": view["sql"], "sql": lineage["sql"][view["sql"]]} for view in views],
        "entities": spec["entities"],
        "columns": list(spec["events"]["columns"].items()),
    }
