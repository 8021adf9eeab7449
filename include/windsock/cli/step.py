"""``windsock step``: one pipeline step by itself, without Airflow.

This is what a pod runs, and what a person runs to see a step fail slowly. It reports as
``errors`` says: exit code 0, 64 or 65 (never retry), 75 (not yet, or a service is away).
"""

import contextlib
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

import click

from windsock.errors import SpecError
from windsock.settings import Settings
from windsock.steps import run_step
from windsock.store import Store


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
@click.option("--result", "place", metavar="PATH", help="Also write the result to this path below the store's root.")
def step(
    name: str, model: str, key: str | None, pairs: tuple[str, ...], replayed: bool, origin: str, place: str | None
) -> None:
    """Run the step NAME and print its result as one line of JSON, the last on stdout."""
    # Stdout carries the result alone.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    parts = place.split("/") if place is not None else []
    if not all(parts) or {".", ".."} & set(parts):
        raise SpecError(
            f"--result is a path below the store's root, such as steps/fraud/monitor.json; given: {place!r}."
        )
    result = run_step(name, model=model, key=key, live=not replayed, origin=origin, options=read_options(pairs))
    line = json.dumps(result, default=str)
    if parts:
        Store.of(Settings.from_env()).write_bytes(f"{line}\n".encode(), *parts)
    click.echo(line)


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
        options[name] = text
        if not name.endswith("version"):
            with contextlib.suppress(ValueError):
                options[name] = json.loads(text)
    return options
