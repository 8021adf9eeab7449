"""``windsock step``: one pipeline step by itself, without Airflow.

This is what a pod runs, and what a person runs to see a step fail slowly. It reports as
``errors`` says: exit code 0, 64 or 65 (never retry), 75 (not yet, or a service is away).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

import click

from windsock.errors import SpecError


@click.command()
@click.argument("name")
@click.option("--model", "-m", required=True, help="The model's name.")
@click.option("--key", "-k", help="The day, YYYY-MM-DD, for steps that work on a day.")
@click.option(
    "--option",
    "-o",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the step; repeat for more. JSON where it is JSON, else text; versions are text.",
)
@click.option("--replayed", is_flag=True, help="As in a backfill: no retraining, no promotion, no alert.")
@click.option("--origin", default="manual", show_default=True, help="Name of this run in the records.")
def step(name: str, model: str, key: str | None, pairs: tuple[str, ...], replayed: bool, origin: str) -> None:
    """Run the step NAME and print its result as one line of JSON, the last on stdout."""
    log_to_stderr()
    from windsock.steps import run_step

    result = run_step(name, model=model, key=key, live=not replayed, origin=origin, options=read_options(pairs))
    click.echo(json.dumps(result, default=str))


def read_options(pairs: tuple[str, ...]) -> Mapping[str, Any]:
    """Turn ``NAME=VALUE`` pairs into options.

    Raises:
        SpecError: A pair has no ``=`` or no name.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise SpecError(f"The option {pair!r} is not of the form NAME=VALUE, for example as_of=2026-03-01.")
        options[name] = text if name.endswith("version") else _json_or_text(text)
    return options


def log_to_stderr() -> None:
    """Send log records to stderr, so that stdout carries the result alone."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
