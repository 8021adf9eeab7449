"""Which expectations a day must meet (the model's own suite, completed by what always holds), and GX's file context.

A suite is GX's JSON. Severity says what a broken expectation means: ``critical`` refuses the
file, ``warning`` sets the broken rows aside (a mean has none: it warns), ``info`` warns. It is
looked for in the model's folder (``expectations.json`` or ``validation.suite``), then in the GX context
(``expectations/<model>_events.json``); without one, the rules derived from the spec stand alone.

The context is opened once per process and never written to: GX rewrites ``great_expectations.yml``
whenever something is added to one, and two processes doing so lose each other's changes. So all that runs
need (the data source, the stores) stands in the committed file; only the place for output is filled in.
"""

import json
import logging
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from windsock.errors import SpecError, did_you_mean, listed
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.columns import declared_columns

_LARGEST = 1.7976931348623157e308
_NAMESPACE = uuid.UUID("6d0e4a52-3c55-4a0f-9f0e-77696e64736f")
_SEVERITIES = ("critical", "warning", "info")
_COLUMN_FIELDS = ("column", "column_A", "column_B", "column_list", "column_set")


def output_folder(settings: Settings) -> Path:
    """Return the folder of validation results and Data Docs."""
    return settings.home / "great_expectations" / "uncommitted"


def open_context(settings: Settings) -> Any:
    """Return this installation's file context.

    Raises:
        SpecError: The folder holds no context.
    """
    return _open(settings.gx_root, output_folder(settings))


@cache
def _open(root: Path, output: Path) -> Any:
    if not (root / "great_expectations.yml").is_file():
        raise SpecError(f"{root} holds no great_expectations.yml. Set WINDSOCK_GX_ROOT to the folder that does.")
    import great_expectations as gx  # heavy, and a suite's own file is read without it

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    environment = {"WINDSOCK_GX_OUTPUT": str(output)}
    return gx.get_context(mode="file", context_root_dir=str(root), runtime_environment=environment)


def suite_name(spec: ModelSpec) -> str:
    """Return the name of a model's suite."""
    return f"{spec.name}_events"


def profile_name(spec: ModelSpec) -> str:
    """Return the name of the suite that is profiled for a model without one; see ``validate.profile``."""
    return f"{spec.name}_profile"


def find_suite(settings: Settings, spec: ModelSpec) -> Path | None:
    """Return the file of the model's own suite, or None if it has none."""
    candidates = [
        spec.folder / (spec.validation.suite or "expectations.json"),
        settings.gx_root / "expectations" / f"{suite_name(spec)}.json",
    ]
    return next((path for path in candidates if path.is_file()), None)


def expectations_of(settings: Settings, spec: ModelSpec) -> list[dict[str, Any]]:
    """Return every expectation a day of the model must meet, the derived ones first.

    Each is GX's ``{"type", "kwargs", "severity", "meta", "id"}``; ids are stable.

    Raises:
        SpecError: The suite file is not a suite, or names an unknown column or severity.
    """
    path = find_suite(settings, spec)
    own = _read(path, spec) if path is not None else []
    # An own rule that only warns does not stand in for one that sets rows aside.
    strict = [e for e in own if e["severity"] != "info"]
    taken, mentioned = {_identity(e) for e in strict}, {_identity(e) for e in own}
    bounded = {e["kwargs"].get("column") for e in strict if e["type"] == "expect_column_values_to_be_between"}
    derived = [
        e
        for e in _derived(spec)
        if _identity(e) not in (mentioned if e["severity"] == "info" else taken)
        and not (e["meta"]["rule"] == "finite" and e["kwargs"]["column"] in bounded)
    ]
    together = derived + own
    for n, expectation in enumerate(together):
        expectation["meta"] = expectation.get("meta") or {}
        expectation["id"] = expectation.get("id") or str(uuid.uuid5(_NAMESPACE, f"{n} {json.dumps(expectation)}"))
    return together


def _derived(spec: ModelSpec) -> list[dict[str, Any]]:
    """Return what holds for the events of every model."""
    events, label = spec.events, spec.label
    day = {"min_value": {"$PARAMETER": "day_start"}, "max_value": {"$PARAMETER": "day_end"}, "strict_max": True}
    found = [
        _expect("expect_column_values_to_not_be_null", column=events.key),
        _expect("expect_column_values_to_be_unique", column=events.key),
        _expect("expect_column_values_to_not_be_null", column=events.time),
        _expect("expect_column_values_to_be_between", "within its day (UTC)", column=events.time, **day),
    ]
    found += [_expect("expect_column_values_to_not_be_null", column=column) for column in spec.entities.values()]
    if events.delivered_at is not None:
        pair = {"column_A": events.delivered_at, "column_B": events.time, "or_equal": True}
        rule, unless = f"not before {events.time}", "either_value_is_missing"
        found.append(_expect("expect_column_pair_values_a_to_be_greater_than_b", rule, **pair, ignore_row_if=unless))
    for column, kind in declared_columns(spec).items():
        if kind == "double":
            limits = {"min_value": -_LARGEST, "max_value": _LARGEST}
            found.append(_expect("expect_column_values_to_be_between", "finite", column=column, **limits))
    if label.files is None:
        if label.task == "binary":
            found.append(_expect("expect_column_values_to_be_in_set", column=label.column, value_set=[0, 1]))
        some = _expect("expect_column_values_to_not_be_null", column=label.column, mostly=0.01)
        why = "A null label is unknown: such rows are scored, but kept out of training and of risk."
        found.append({**some, "severity": "info", "meta": {"rule": None, "why": why}})
    return found


def _expect(kind: str, rule: str | None = None, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs, "severity": "warning", "meta": {"rule": rule}}


def _identity(expectation: dict[str, Any]) -> tuple[str, str]:
    kwargs = expectation["kwargs"]
    bounds = [kwargs.get("min_value"), kwargs.get("max_value")]
    place = kwargs.get("column") or json.dumps(kwargs, sort_keys=True)
    per_day = any(isinstance(b, dict) for b in bounds)
    return expectation["type"] + (" per day" if per_day else "" if bounds == [None, None] else " bounds"), str(place)


def _read(path: Path, spec: ModelSpec) -> list[dict[str, Any]]:
    """Read a suite file and check what GX would only find out on the data."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        expectations = raw["expectations"]
        pairs = [(e["type"], e["kwargs"]) for e in expectations]
    except (OSError, ValueError, TypeError, KeyError) as err:
        raise SpecError(
            f"{path}: is not a GX suite ({type(err).__name__}: {err}). "
            'It needs {"expectations": [{"type": ..., "kwargs": {...}, "severity": ...}]}.'
        ) from err
    known = [*spec.events.columns, spec.label.column]
    for n, (kind, kwargs) in enumerate(pairs):
        severity = expectations[n].setdefault("severity", "critical")
        if severity not in _SEVERITIES:
            raise SpecError(
                f"{path}: expectations[{n}] ({kind}): severity {severity!r} is none of {', '.join(_SEVERITIES)}."
            )
        for column in columns_of(kwargs):
            if column not in known:
                raise SpecError(
                    f"{path}: expectations[{n}] ({kind}) names the column {column!r}, which the spec does not declare."
                    f"{did_you_mean(column, known)} Known: {listed(known)}."
                )
    if spec.label.files is not None:  # the label is not among the events' columns then
        return [e for e in expectations if spec.label.column not in columns_of(e["kwargs"])]
    return list(expectations)


def columns_of(kwargs: dict[str, Any]) -> list[str]:
    """Return the columns that an expectation names."""
    values = [kwargs[field] for field in _COLUMN_FIELDS if kwargs.get(field)]
    return [str(name) for value in values for name in (value if isinstance(value, list) else [value])]
