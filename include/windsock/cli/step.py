"""``windsock step``, one pipeline step by itself, and the feature store by hand: ``apply``, ``materialize``.

A step is what a pod runs, and what a person runs to see it fail slowly. It reports as ``errors`` says: exit code 0,
64 or 65 (never retry), 75 (not yet, or a service is away).
"""

import contextlib
import json
import logging
import sys
from collections.abc import Collection, Mapping
from typing import Any

import click
from rich.console import Console
from rich.progress import track

from windsock.cli.corrections import user_name
from windsock.days import spans
from windsock.errors import NotReady, SpecError, TooLittleHistory
from windsock.settings import Settings
from windsock.spec import ModelSpec, get_spec, load_specs
from windsock.steps import TEXTS, run_step
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
    help="An option of the step; repeat for more. JSON where it is JSON and not meant as text, as a reason is.",
)
@click.option("--replayed", is_flag=True, help="As in a backfill: no retraining, no promotion, no alert.")
@click.option("--origin", default="manual", show_default=True, help="Name of this run in the records.")
@click.option("--result", "path", metavar="PATH", help="Also write the result to this path below the store's root.")
def step(
    name: str, model: str, key: str | None, pairs: tuple[str, ...], replayed: bool, origin: str, path: str | None
) -> None:
    """Run the step NAME and print its result as one line of JSON, the last on stdout."""
    # Stdout carries the result alone.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    parts = path.split("/") if path is not None else []
    if not all(parts) or {".", ".."} & set(parts):
        raise SpecError(
            f"--result is a path below the store's root, such as steps/fraud/monitor.json; given: {path!r}."
        )
    options = read_options(pairs)
    if "reason" in options:
        options = {"by": user_name(), **options}
    result = run_step(name, model=model, key=key, live=not replayed, origin=origin, options=options)
    line = json.dumps(result, default=str)
    if parts:
        Store.of(Settings.from_env()).write_bytes(f"{line}\n".encode(), *parts)
    click.echo(line)


@click.command()
@click.argument("model", required=False)
@click.option("--features/--no-features", default=True, help="Whether to compute the features that a training lacks.")
@click.option("--prune", is_flag=True, help="Also remove from the feature store what no model needs any more.")
def apply(model: str | None, features: bool, prune: bool) -> None:
    """Compute ahead what the next training of MODEL (or of each model) lacks, and register it in the feature store.

    Nothing that stands is changed: a definition that is new has tables of its own. So it may be run from a branch, on
    the store of production, before the branch is merged; after that there is nothing left to do.
    """
    from windsock.featurestore.definitions import apply as apply_definitions  # brings Feast

    settings = Settings.from_env()
    specs = {model: get_spec(settings, model)} if model is not None else load_specs(settings)[0]
    faulty = [name for name, spec in sorted(specs.items()) if features and not _compute_ahead(settings, spec)]
    done = apply_definitions(settings, remove_gone=prune)
    state = "registered" if done.changed else "already registered, nothing changed"
    click.echo(f"{', '.join(done.models) or 'no model'}: {state}")
    for name, why in done.broken.items():
        click.secho(f"{name}: left as it was: {why}", fg="red", err=True)
    if faulty or (done.broken and (model is None or model in done.broken)):
        raise click.exceptions.Exit(64)


def _compute_ahead(settings: Settings, spec: ModelSpec) -> bool:
    """Compute what a model's next training lacks, and say so; False: its spec has a fault, which stops no other."""
    from windsock.dataset import ahead

    try:
        pairs = ahead.lacking_pairs(settings, spec)
        for day, each in track(pairs, spec.name, console=Console(stderr=True), transient=True):
            ahead.compute(settings, spec, day, each)
    except (NotReady, TooLittleHistory) as err:
        click.echo(f"{spec.name}: no features to compute ahead yet: {err}")
        return True
    except SpecError as err:
        click.secho(f"{spec.name}: its features are not computed: {err}", fg="red", err=True)
        return False
    for table in dict.fromkeys(each.table.name for _, each in pairs):
        days = [day for day, each in pairs if each.table.name == table]
        click.echo(f"{spec.name}: {table}: {len(days)} days computed, {spans(days)}")
    if not pairs:
        click.echo(f"{spec.name}: the next training lacks no features")
    return True


@click.command()
@click.argument("model")
@click.argument("day", required=False)
@click.option("--correct", is_flag=True, help="Also overwrite newer rows: make online equal to the tables.")
@click.option("--all", "every_day", is_flag=True, help="All days: fill a store that was emptied or has lost rows.")
def materialize(model: str, day: str | None, correct: bool, every_day: bool) -> None:
    """Write the features of MODEL of DAY (YYYY-MM-DD) to the online store and check them."""
    if every_day:
        if day is not None or correct:
            raise click.UsageError("--all goes with neither a day nor --correct: it writes what is missing or older.")
        from windsock.featurestore.refill import refill_model

        settings = Settings.from_env()
        for view, days, rows in refill_model(settings, get_spec(settings, model)):
            click.echo(f"{view}: {days} days, {rows} rows were missing or older")
        return
    if day is None:
        raise click.UsageError("Name a day, as in windsock materialize MODEL 2026-10-05, or --all.")
    result = run_step("materialize", model=model, key=day, options={"correct": correct})
    for view, counts in result["views"].items():
        click.echo(f"{view}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    click.echo(f"parity: {result['parity']['checked']} entities checked, all equal")


def read_options(pairs: tuple[str, ...], text: Collection[str] = TEXTS) -> Mapping[str, Any]:
    """Turn ``NAME=VALUE`` pairs into options: values are JSON where they are JSON.

    ``text`` names those whose value is text, whatever it looks like: a ticket's number is a reason, not a number.

    Raises:
        SpecError: A pair has no ``=`` or no name.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, written = pair.partition("=")
        if not equals or not name:
            raise SpecError(f"The option {pair!r} is not of the form NAME=VALUE, for example as_of=2026-03-01.")
        options[name] = written
        with contextlib.suppress(ValueError):
            value = json.loads(written)
            if name not in text or isinstance(value, str):
                options[name] = value
    return options
