"""Trigger forms, derived from the spec so that form and check agree."""

from typing import Any

from airflow.sdk import Param
from pydantic import BaseModel

from windsock.spec import ModelSpec
from windsock.spec.estimators import CustomSpec
from windsock.spec.modelling import TrainingSpec

OVERRIDES = ("window_days", "holdout_days", "trials")
"""Training values a person may change for one run."""


def train_form(spec: ModelSpec) -> dict[str, Param]:
    """Return the fields of the ``train`` form; the spec's own values stand in it."""
    training = spec.training
    return {
        "as_of": optional_day("Train as of", "Use only what was known by the end of this day; empty: the latest."),
        "window_days": _number(training, "window_days"),
        "holdout_days": _number(training, "holdout_days"),
        **_trials(training),
        "reason": reason("Why this training is run."),
    }


def _trials(training: TrainingSpec) -> dict[str, Param]:
    """Return the number of trials, which all searched estimators get; none if nothing is searched."""
    searched = [e for e in training.estimators if not isinstance(e, CustomSpec) and e.search]
    if not searched:
        return {}
    number = _number(searched[0], "trials")
    if len({e.trials for e in searched}) > 1:
        # No number stands for all of them: empty means that each has the spec's own.
        number = Param(None, description=number.description, **{**number.schema, "type": ["null", "integer"]})
    return {"trials": number}


def optional_day(title: str, description: str) -> Param:
    """Return a field for a day that may stay empty."""
    return Param(None, type=["null", "string"], format="date", title=title, description=description)


def version(description: str) -> Param:
    """Return a field for a model version that may stay empty."""
    return Param(None, type=["null", "string"], pattern=r"^\d+$", title="Model version", description=description)


def flag(title: str, description: str) -> Param:
    """Return a switch that is off."""
    return Param(False, type="boolean", title=title, description=description)


def worse_redelivery() -> dict[str, Param]:
    """Return the fields by which a person lets a delivery in that is worse than what it replaces, or is broken."""
    return {
        "accept_worse": flag(
            "Accept worse", "Let a delivery in although it lacks rows or values, or is unlike the days before."
        ),
        "reason": reason("Why the worse delivery is right; with who says so, it is kept in the day's record."),
    }


def reason(description: str, *, required: bool = False) -> Param:
    """Return a text field that ends up in the records."""
    if required:
        return Param("", type="string", minLength=1, maxLength=500, title="Reason", description=description)
    return Param(None, type=["null", "string"], maxLength=500, title="Reason", description=description)


def _number(part: BaseModel, name: str) -> Param:
    """Return a field with the range and the words that the spec's schema has for it."""
    schema: dict[str, Any] = type(part).model_json_schema()["properties"][name]
    return Param(getattr(part, name), **{key: value for key, value in schema.items() if key != "default"})
