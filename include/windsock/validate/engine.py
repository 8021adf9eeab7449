"""Running a suite on one day's rows and sorting what it found by consequence."""

import logging
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.registry import list_registered_expectation_implementations

from windsock.column_types import to_pandas
from windsock.days import end_of, start_of
from windsock.errors import SpecError, did_you_mean
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.validate.context import great_expectations, open_context
from windsock.validate.sentences import column_of, failed_sentence, rows_sentence, rule_of, whole_sentence
from windsock.validate.suites import expectations_of, find_suite, suite_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Broken:
    """One expectation that a day broke."""

    rule: str
    """Column and rule, the name that rows are set aside under."""
    severity: str
    """``critical``, ``warning`` or ``info``."""
    sentence: str
    rows: np.ndarray | None
    """Positions of the rows that break it, ascending; None if it is about the whole."""


@dataclass(frozen=True)
class Findings:
    """What validation found in one day."""

    broken: tuple[Broken, ...]
    """In the suite's order."""
    result: dict[str, Any]
    """GX's result as plain JSON, with its lists cut short."""


def validate(settings: Settings, spec: ModelSpec, day: date, rows: pa.Table) -> Findings:
    """Check one day's rows (declared columns, and the inline label) against the model's expectations.

    Raises:
        SpecError: The model's suite cannot be used.
    """
    expectations = expectations_of(settings, spec)
    frame = to_pandas(rows)
    suite = _suite(settings, spec, expectations)
    definition = open_context(settings).data_sources.get("deliveries").get_asset("day").get_batch_definition("whole")
    with np.errstate(invalid="ignore"):  # a spread over infinite values is none; the range rule names them
        outcome = definition.get_batch({"dataframe": frame}).validate(
            suite,
            result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
            expectation_parameters={"day_start": start_of(day), "day_end": end_of(day)},
        )
    order = {e["id"]: n for n, e in enumerate(expectations)}
    results = sorted(outcome.results, key=lambda r: order[r.expectation_config.id])
    outcome.results = results
    failed = [(r, expectations[order[r.expectation_config.id]]) for r in results if not r.success]
    broken = tuple(b for result, given in failed if (b := _broken(result, given, spec, frame)) is not None)
    return Findings(broken, _short(outcome.to_json_dict()))


def _suite(settings: Settings, spec: ModelSpec, expectations: list[dict[str, Any]]) -> Any:
    """Make GX's suite; GX itself leaves out what it cannot use, logs it and goes on.

    Raises:
        SpecError: An expectation is of no known type or has wrong arguments.
    """
    gx = great_expectations()

    path, known = find_suite(settings, spec), list_registered_expectation_implementations()
    configurations = []
    for expectation in expectations:
        kind = expectation["type"]
        if kind not in known:
            raise SpecError(f"{path}: there is no expectation of type {kind!r}.{did_you_mean(kind, known)}")
        try:
            configurations.append(ExpectationConfiguration(**expectation))
            configurations[-1].to_domain_obj()
        except Exception as err:
            raise SpecError(f"{path}: {kind} cannot be used as given: {' '.join(str(err).split())[:300]}") from err
    return gx.ExpectationSuite(name=suite_name(spec), expectations=configurations)


def _broken(result: Any, given: dict[str, Any], spec: ModelSpec, frame: pd.DataFrame) -> Broken | None:
    """Turn one failed GX result into words and rows."""
    # GX's own configuration has the day's values in place of parameters; the words are ours.
    config = {**given, "kwargs": {**result.expectation_config.to_json_dict()["kwargs"]}}
    rule, severity, key = f"{column_of(config)} {rule_of(config)}", str(given["severity"]), spec.events.key
    message = _exception(result.exception_info)
    if message is not None:
        column = given["kwargs"].get("column")
        if column in frame.columns and frame[column].isna().all():
            return None  # nothing there to measure; that it is all null is for the not-null rules to say
        closed = severity if severity == "info" else "critical"
        return Broken(rule, closed, failed_sentence(config, len(frame), message), None)
    places = result.result.get("unexpected_index_list")
    if places is None:
        observed = result.result.get("observed_value")
        if observed is None and severity == "info":
            return None
        return Broken(rule, severity, whole_sentence(config, frame, key, observed), None)
    rows = np.array(sorted(int(p) for p in places), dtype=np.int64)
    if len(rows) == 0:
        return Broken(rule, severity, whole_sentence(config, frame, key, None), None)
    return Broken(rule, severity, rows_sentence(config, frame, key, rows.tolist()), rows)


def _exception(info: dict[str, Any] | None) -> str | None:
    """Return the message of a check that could not run, or None if it ran."""
    if not info:
        return None
    nested = [v for v in info.values() if isinstance(v, dict)]
    for entry in [info, *nested]:
        if entry.get("raised_exception"):
            return str(entry.get("exception_message") or "unknown exception")
    return None


def _short(value: Any, most: int = 20) -> Any:
    """Cut lists of unexpected values short, so that a bad day's result stays small."""
    if isinstance(value, dict):
        return {
            k: (v[:most] if isinstance(v, list) and "unexpected" in k else _short(v, most)) for k, v in value.items()
        }
    if isinstance(value, list):
        return [_short(v, most) for v in value]
    return value
