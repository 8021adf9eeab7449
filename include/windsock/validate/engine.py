"""Running a suite on one day's rows and sorting what it found by consequence."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
import pyarrow as pa
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.registry import list_registered_expectation_implementations

from windsock.column_types import to_pandas
from windsock.days import end_of, start_of
from windsock.errors import SpecError, did_you_mean
from windsock.settings import Settings
from windsock.spec import ModelSpec
from windsock.spec.columns import declared_columns
from windsock.validate.sentences import column_of, example_of, rule_of, show
from windsock.validate.suites import columns_of, expectations_of, find_suite, open_context, suite_name

_LONGEST_LIST = 20
_OF_TYPES = ("expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list")
_LISTS = ("partial_unexpected_counts", "partial_unexpected_index_list", "unexpected_list", "unexpected_index_list")
"""What GX's format COMPLETE adds to BASIC."""


@dataclass(frozen=True)
class Broken:
    """One expectation that a day broke."""

    rule: str
    """Column and rule, the name that rows are set aside under."""
    severity: str
    """``critical``, ``warning`` or ``info``."""
    sentence: str
    """Column, rule, count and an example."""
    rows: np.ndarray | None
    """Positions of the rows that break it, ascending; None if it is about the whole."""


def validate(
    settings: Settings, spec: ModelSpec, day: date, rows: pa.Table, first: date | None = None
) -> tuple[list[Broken], dict[str, Any]]:
    """Check one day's rows (declared columns, and the inline label) against the model's expectations.

    ``first``: the oldest day that they may be of; default: the day itself.
    What an expectation says of a column that the rows lack, because it was delivered later only, is left out.

    Returns:
        What is broken, in the suite's order, and GX's result as plain JSON with its lists cut short.

    Raises:
        SpecError: The model's suite cannot be used.
    """
    lacking = {*declared_columns(spec)} - {*rows.column_names}
    expectations = [e for e in expectations_of(settings, spec) if lacking.isdisjoint(columns_of(e["kwargs"]))]
    return check(settings, spec, day, rows, expectations, suite_name(spec), first)


def check(
    settings: Settings,
    spec: ModelSpec,
    day: date,
    rows: pa.Table,
    expectations: list[dict[str, Any]],
    name: str,
    first: date | None = None,
) -> tuple[list[Broken], dict[str, Any]]:
    """Check rows against the given expectations, as the suite of a name; see :func:`validate`."""
    frame = _as_gx_is_fast(to_pandas(rows), {e["kwargs"].get("column") for e in expectations if e["type"] in _OF_TYPES})
    configurations = _configurations(settings, spec, expectations)
    definition = open_context(settings).data_sources.get("deliveries").get_asset("day").get_batch_definition("whole")
    batch = definition.get_batch({"dataframe": frame})

    def run(some: list[ExpectationConfiguration], result_format: str) -> Any:
        # A spread over infinite values is none; the range rule names them.
        with np.errstate(invalid="ignore"), _configurations_kept():
            return batch.validate(
                gx.ExpectationSuite(name=name, expectations=some),
                result_format={"result_format": result_format, "return_unexpected_index_query": False},
                expectation_parameters={"day_start": start_of(first or day), "day_end": end_of(day)},
            )

    # Listing broken rows is a third of GX's work, so only rules that some rows break are asked for the list.
    outcome = run(configurations, "BASIC")
    broken_by_some = {r.expectation_config.id for r in outcome.results if r.result.get("unexpected_count")}
    listed = run([c for c in configurations if c.id in broken_by_some], "COMPLETE").results if broken_by_some else []
    found = {r.expectation_config.id: r for r in [*outcome.results, *listed]}
    for result in found.values():
        if result.result.get("unexpected_count") == 0 and "element_count" in result.result:
            result.result.update({name: [] for name in _LISTS})
    outcome.results = [found[e["id"]] for e in expectations]
    failed = [(r, e) for r, e in zip(outcome.results, expectations, strict=True) if not r.success]
    broken = [b for result, given in failed if (b := _broken(result, given, spec, frame)) is not None]
    return broken, _short(outcome.to_json_dict())


@contextmanager
def _configurations_kept() -> Iterator[None]:
    """Let GX make each expectation's configuration once.

    It makes another one whenever it looks up a single argument, dozens for each metric: on small days this is more work
    than everything else that ingest does. The expectations are GX's own, which nothing changes while it validates.
    """
    made_anew, kept = Expectation.configuration, dict[int, tuple[Expectation, ExpectationConfiguration]]()

    def configuration(self: Expectation) -> ExpectationConfiguration:
        if id(self) not in kept:
            # With the expectation itself: another one could get the id of one that is gone.
            kept[id(self)] = self, made_anew.__get__(self)
        return kept[id(self)][1]

    Expectation.configuration = property(configuration)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Expectation.configuration = made_anew  # type: ignore[method-assign]


def _as_gx_is_fast(frame: pd.DataFrame, as_they_are: Collection[str]) -> pd.DataFrame:
    """Return rows with times in nanoseconds, where these reach, and columns of a type in one block.

    GX compares times of other units one by one in Python, and copies the rows for each metric. Some columns stay as
    they are: rules about their types would see another one.
    """
    times = frame.select_dtypes("datetime").drop(columns=as_they_are, errors="ignore")
    reached = [n for n in times if times[n].min() >= pd.Timestamp.min and times[n].max() <= pd.Timestamp.max]
    return frame.astype(dict.fromkeys(reached, "datetime64[ns]")).copy()


def _configurations(
    settings: Settings, spec: ModelSpec, expectations: list[dict[str, Any]]
) -> list[ExpectationConfiguration]:
    """Return the configurations of GX's suite, or raise SpecError: GX leaves out what it cannot use, and goes on."""
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
    return configurations


def _broken(result: Any, given: dict[str, Any], spec: ModelSpec, frame: pd.DataFrame) -> Broken | None:
    """Turn one failed GX result into words and rows."""
    # GX's own configuration has the day's values in place of parameters; the words are ours.
    config = {**given, "kwargs": {**result.expectation_config.to_json_dict()["kwargs"]}}
    column, rule, severity, key = column_of(config), rule_of(config), str(given["severity"]), spec.events.key
    named, total = f"{column} {rule}", f"{len(frame):,}"
    message = _exception(result.exception_info)
    if message is not None:
        if column in frame.columns and frame[column].isna().all():
            return None  # nothing there to measure; that it is all null is for the not-null rules to say
        line = " ".join(message.split())[:200]
        sentence = (
            f"{column}: the rule '{rule}' could not be checked on {total} rows, e.g. {line}. "
            "A check that could not run counts as failed; correct the suite or the data."
        )
        return Broken(named, severity if severity == "info" else "critical", sentence, None)
    why = f" {given['meta']['why']}" if given["meta"].get("why") else ""
    places = result.result.get("unexpected_index_list")
    if places:
        rows = np.array(sorted(int(p) for p in places), dtype=np.int64)
        values = ", ".join(show(frame[c].iat[rows[0]]) for c in column.split(", ") if c in frame.columns)
        where = "" if column == key else f" ({key} {show(frame[key].iat[rows[0]])})"
        sentence = f"{column}: {len(rows):,} of {total} rows break the rule '{rule}', e.g. {values}{where}.{why}"
        return Broken(named, severity, sentence, rows)
    observed = result.result.get("observed_value") if places is None else None
    if places is None and observed is None and severity == "info":
        return None
    example = example_of(config, frame, key, observed)
    if config["type"] == "expect_table_row_count_to_be_between":
        sentence = f"table: {total} rows break the rule '{rule}'{example}.{why}"
    else:
        sentence = f"{column}: {show(observed, exact=False)} over {total} rows breaks the rule '{rule}'{example}.{why}"
    return Broken(named, severity, sentence, None)


def _exception(info: dict[str, Any] | None) -> str | None:
    """Return the message of a check that could not run, or None if it ran."""
    info = info or {}
    for entry in [info, *(v for v in info.values() if isinstance(v, dict))]:
        if entry.get("raised_exception"):
            return str(entry.get("exception_message") or "unknown exception")
    return None


def _short(value: Any) -> Any:
    """Cut lists of unexpected values short, so that a bad day's result stays small."""
    if isinstance(value, dict):
        return {
            k: v[:_LONGEST_LIST] if isinstance(v, list) and "unexpected" in k else _short(v) for k, v in value.items()
        }
    return [_short(v) for v in value] if isinstance(value, list) else value
